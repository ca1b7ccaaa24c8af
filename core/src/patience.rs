//! How long a prompt may take: three clocks, fed with what was seen, asked for a verdict.
//!
//! Owns the rules only. Time comes in as [`Tick`]s, the answer is data; the agent's session sleeps
//! until [`Patience::next_deadline`] and asks again.

use crate::time::Tick;

/// The limits of one prompt, in milliseconds; 0 disables a limit (C57).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnLimits {
    /// Total time of the prompt (`acp.prompt_timeout_ms`).
    pub total_ms: u64,
    /// Longest time without output of the agent (`acp.turn_timeout_ms`, C55).
    pub silence_ms: u64,
    /// Longest time without a byte on the whole channel, tool calls excepted (`acp.stall_timeout_ms`, C120).
    pub stall_ms: u64,
}

/// Which limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impatience {
    /// The prompt took too long as a whole.
    Total,
    /// The agent said nothing for too long.
    Silence,
    /// Nothing moved at all, and no tool call explains it.
    Stall,
}

/// The clocks of one prompt. Standard error of the agent is not output: do not feed it (M13).
#[derive(Clone, Debug)]
pub struct Patience {
    limits: TurnLimits,
    total_from: Tick,
    agent: Tick,
    channel: Tick,
    tool_open: bool,
    still_since: Option<Tick>,
}

impl Patience {
    /// All clocks start at `now`: what came before, such as booting, is not counted (T5).
    pub fn new(now: Tick, limits: TurnLimits) -> Self {
        Self { limits, total_from: now, agent: now, channel: now, tool_open: false, still_since: None }
    }

    /// The agent's newest output was at `at`. Its bytes cross the channel, so that clock moves too.
    pub fn agent_spoke(&mut self, at: Tick) {
        self.agent = self.agent.max(at);
        self.channel = self.channel.max(at);
    }

    /// The newest byte on the channel, in either direction and of any stream, was at `at`.
    pub fn channel_moved(&mut self, at: Tick) {
        self.channel = self.channel.max(at);
    }

    /// Whether a tool call is open as of `now`. When the last one closes, the stall clock starts anew.
    pub fn tool_open(&mut self, now: Tick, open: bool) {
        if self.tool_open && !open {
            self.channel = self.channel.max(now);
        }
        self.tool_open = open;
    }

    /// Whether, as of `now`, the agent waits for what it cannot hurry, such as a provider that asked to wait: meanwhile every
    /// clock stands still.
    pub fn stands_still(&mut self, now: Tick, still: bool) {
        match (self.still_since, still) {
            (None, true) => self.still_since = Some(now),
            (Some(since), false) => {
                let waited = now.since(since);
                self.total_from = self.total_from.plus_ms(waited);
                self.agent = self.agent.max(now);
                self.channel = self.channel.max(now);
                self.still_since = None;
            }
            _ => {}
        }
    }

    /// When a limit runs out if nothing else happens, and which; `None`: never.
    pub fn next_deadline(&self) -> Option<(Tick, Impatience)> {
        if self.still_since.is_some() {
            return None;
        }
        let due = |from: Tick, ms: u64, which| (ms > 0).then(|| (from.plus_ms(ms), which));
        let stall = if self.tool_open { 0 } else { self.limits.stall_ms };
        [
            due(self.total_from, self.limits.total_ms, Impatience::Total),
            due(self.agent, self.limits.silence_ms, Impatience::Silence),
            due(self.channel, stall, Impatience::Stall),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// Which limit has run out by `now`, the earliest one first.
    pub fn verdict(&self, now: Tick) -> Option<Impatience> {
        self.next_deadline().filter(|(at, _)| *at <= now).map(|(_, which)| which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TurnLimits = TurnLimits { total_ms: 1000, silence_ms: 300, stall_ms: 100 };

    fn started_at_zero(limits: TurnLimits) -> Patience {
        Patience::new(Tick(0), limits)
    }

    #[test]
    fn an_agent_that_keeps_talking_meets_only_the_total_limit() {
        let mut patience = started_at_zero(LIMITS);
        for at in (0..1000).step_by(50) {
            patience.agent_spoke(Tick(at));
            assert_eq!(patience.verdict(Tick(at)), None, "at {at}");
        }
        assert_eq!(patience.verdict(Tick(1000)), Some(Impatience::Total));
    }

    #[test]
    fn a_moving_channel_does_not_excuse_a_silent_agent() {
        let mut patience = started_at_zero(LIMITS);
        patience.channel_moved(Tick(290));
        assert_eq!(patience.verdict(Tick(299)), None);
        assert_eq!(patience.verdict(Tick(300)), Some(Impatience::Silence));
    }

    #[test]
    fn a_still_channel_is_a_stall_before_it_is_silence() {
        let patience = started_at_zero(LIMITS);
        assert_eq!(patience.next_deadline(), Some((Tick(100), Impatience::Stall)));
        assert_eq!(patience.verdict(Tick(99)), None);
        assert_eq!(patience.verdict(Tick(100)), Some(Impatience::Stall));
    }

    #[test]
    fn an_open_tool_call_is_never_a_stall_but_still_ends_in_silence() {
        let mut patience = started_at_zero(LIMITS);
        patience.tool_open(Tick(10), true);
        assert_eq!(patience.verdict(Tick(299)), None);
        assert_eq!(patience.verdict(Tick(300)), Some(Impatience::Silence));
    }

    #[test]
    fn the_stall_clock_starts_anew_when_the_last_tool_call_closes() {
        let mut patience = started_at_zero(LIMITS);
        patience.tool_open(Tick(10), true);
        patience.tool_open(Tick(150), false);
        assert_eq!(patience.verdict(Tick(249)), None);
        assert_eq!(patience.verdict(Tick(250)), Some(Impatience::Stall));
    }

    #[test]
    fn waiting_for_a_human_stops_every_clock() {
        let mut patience = started_at_zero(LIMITS);
        patience.stands_still(Tick(50), true);
        assert_eq!(patience.verdict(Tick(1_000_000)), None);
        patience.stands_still(Tick(1_000_000), false);
        assert_eq!(patience.verdict(Tick(1_000_099)), None);
        assert_eq!(patience.verdict(Tick(1_000_100)), Some(Impatience::Stall));
        for at in (1_000_000..1_000_950).step_by(50) {
            patience.agent_spoke(Tick(at));
        }
        assert_eq!(patience.verdict(Tick(1_000_949)), None, "the 50 ms before the wait count, the wait does not");
        assert_eq!(patience.verdict(Tick(1_000_950)), Some(Impatience::Total));
    }

    #[test]
    fn zero_disables_each_limit() {
        let never = started_at_zero(TurnLimits::default());
        assert_eq!(never.next_deadline(), None);
        let only_silence = started_at_zero(TurnLimits { silence_ms: 7, ..TurnLimits::default() });
        assert_eq!(only_silence.next_deadline(), Some((Tick(7), Impatience::Silence)));
    }

    #[test]
    fn reports_that_come_late_never_turn_a_clock_back() {
        let mut patience = started_at_zero(LIMITS);
        patience.agent_spoke(Tick(90));
        patience.agent_spoke(Tick(20));
        assert_eq!(patience.verdict(Tick(180)), None);
    }
}
