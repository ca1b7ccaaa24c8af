//! The conversation: turn after turn, a checkpoint after each, until it has an end.

use std::time::Duration;

use symphony_core::board::{FailureCode, Plan, RetryKind, RunEnd, StopCause};
use symphony_core::issue::Issue;
use symphony_core::patience::TurnLimits;
use symphony_core::prompt;
use symphony_core::session::Kept;
use symphony_core::snapshot::Tokens;
use symphony_core::steering::{By, Letter};
use symphony_core::turn::{Facts, Next, Outcome, Sight, after_turn};
use symphony_core::workflow::Role;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::judge::{Asking, changed};
use super::line::{Line, Posted, Report, WAITING};
use super::mcp::Mcp;
use super::models::{self, Watch};
use super::tools::{Said, Seen};
use super::word::Word;
use super::{Attempt, failed, failure};
use crate::agent::session::{Outside, Session};
use crate::agent::tools::ToolCall;
use crate::agent::turn::{Turn, TurnEnd};
use crate::airlock::Airlock;
use crate::sandbox::channel::Channel;
use crate::tracker::TrackerError;
use crate::workspace::Ready;

/// A turn still open so long after `mark_done`, a transition or a question was taken is cancelled, and counts as that.
const AFTER_WORD: Duration = Duration::from_secs(10);
/// Between a turn and the next prompt of the same session.
const BETWEEN_TURNS: Duration = Duration::from_millis(25);

/// A file that one look did not find is looked for once more after this long.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// What a talk has led to so far.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// What the agent told us through its tools.
    pub(super) said: Said,
    /// Whether the work disk holds a tree of ours.
    pub(super) seeded: bool,
    /// What humans said that stands in no prompt yet.
    letters: Vec<Letter>,
    /// Whether a human's word cut the turn short.
    interrupted: bool,
    /// What is kept of the agent's session once it has answered.
    pub(super) session: Option<Kept>,
    /// What providers let its agent do, if it has a way to any.
    pub(super) providers: Option<Watch>,
    /// What is seen of its requests to models.
    pub(super) asking: Asking,
    /// How long its agent took to end.
    pub(super) ending: Duration,
    tokens: Tokens,
}

impl Talk {
    /// What the next prompt says: no turn is cut short for it any more, and a question whose answer is in it is no
    /// question any more.
    fn take_letters(&mut self) -> Vec<Letter> {
        self.interrupted = false;
        if self.has_answer() {
            self.said.question = None;
        }
        std::mem::take(&mut self.letters)
    }

    fn has_answer(&self) -> bool {
        self.letters.iter().any(|letter| letter.answers.is_some())
    }

    /// Whether the next turn is free: a default is nobody's word.
    fn has_words_of_a_human(&self) -> bool {
        self.letters.iter().any(|letter| letter.by != By::Deadline)
    }

    /// The message of the commit that uncommitted work becomes at the end; `None` while there is no end.
    pub(super) fn done_message(&self, issue: &Issue) -> Option<String> {
        let claim = self.said.word.as_ref()?.claim()?;
        Some(crate::handoff::patch::message(&claim.title, &claim.summary, &issue.identifier.0))
    }
}

/// What is said next.
struct Words {
    text: String,
    /// A human's answers in it, as typed.
    answer: Option<String>,
    /// The letters that it holds.
    letters: Vec<u64>,
    /// Whether it is there for a human's words alone: such a turn is free.
    free: bool,
}

impl Words {
    /// The letters in one prompt, oldest first.
    fn of(letters: Vec<Letter>, tools: bool) -> Self {
        let answers = letters.iter().filter(|letter| letter.answers.is_some());
        let typed: Vec<&str> = answers.map(|letter| letter.text.as_str()).collect();
        Self {
            text: prompt::letters(&letters, tools),
            answer: (!typed.is_empty()).then(|| typed.join("\n\n")),
            letters: letters.iter().map(|letter| letter.id).collect(),
            // A default is nobody's word: asking and never being answered must come to an end.
            free: letters.iter().any(|letter| letter.by != By::Deadline),
        }
    }

    /// A prompt of ours, with what humans said at its end.
    fn with(text: String, letters: Vec<Letter>, tools: bool) -> Self {
        if letters.is_empty() {
            return Self { text, answer: None, letters: vec![], free: false };
        }
        let said = Self::of(letters, tools);
        Self { text: format!("{text}\n\n{}", said.text), free: false, ..said }
    }
}

impl Attempt {
    #[expect(clippy::too_many_arguments, reason = "each is a different end of the same conversation")]
    pub(super) async fn turns(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        session: &mut Session,
        mut mcp: Option<&mut Mcp>,
        ready: &Ready,
        prompt: String,
        talk: &mut Talk,
        line: &mut Line,
    ) -> Result<Word, RunEnd> {
        let max_turns = self.agent().max_turns.min(self.plan.allowance.turns);
        let tools = self.workflow.mcp.enabled;
        let mut words = Words::with(prompt, self.letters.clone(), tools);
        let (mut turn_number, mut autonomous) = (0, 0);
        loop {
            turn_number += 1;
            autonomous += u32::from(!words.free);
            line.turn(turn_number, autonomous, words.letters.clone())
                .await
                .map_err(|error| failed(FailureCode::Journal, error))?;
            line.report(Report::Phase("working")).await;
            let (turn, stopped) = self.one_turn(session, channel, mcp.as_deref_mut(), ready, &words, talk, line).await;
            if let Some(usage) = &turn.usage {
                let Tokens { input, output, .. } = &mut talk.tokens;
                // The agent's word, so no sum of it may overflow.
                (*input, *output) = (input.saturating_add(usage.input), output.saturating_add(usage.output));
                talk.tokens.total = talk.tokens.input.saturating_add(talk.tokens.output);
                line.report(Report::Tokens(talk.tokens)).await;
            }
            let word = talk.said.ends_turn();
            let said = outcome(&turn, talk);
            let outcome = self.judged(said, &turn, word, &mut talk.asking, mcp.as_deref(), line).await;
            let ended = outcome == Outcome::Ended;
            // What broke is said again to whoever comes next, unless the agent acted on it: its word counts.
            if (ended || talk.said.word.is_some()) && !words.letters.is_empty() {
                line.turn_ended().await.map_err(|error| failed(FailureCode::Journal, error))?;
            }
            // A turn that was answered shows that the session works, and knows what it was told.
            let sent_away = matches!(
                stopped,
                Some(StopCause::ProviderPaused(_) | StopCause::ProviderLogin(_) | StopCause::BudgetBusy)
            );
            let answered = ended || (turn.usable && (sent_away || turn.end == TurnEnd::Cancelled));
            if let Some(kept) = talk.session.take_if(|_| answered)
                && let Err(error) = line.session(Some(kept)).await
            {
                tracing::warn!(issue_id = %self.plan.issue.id, %error, "the agent's session could not be remembered");
            }
            match stopped {
                // Our own limits do not undo what was accepted: finished work is handed off.
                Some(StopCause::WallTime | StopCause::Spend | StopCause::Drain) if talk.said.word.is_some() => {}
                _ if sent_away && talk.said.word.is_some() => {}
                Some(cause) => {
                    // A person decided otherwise: what is not committed stays so.
                    talk.said.word = None;
                    return Err(RunEnd::Stopped(cause));
                }
                None => {}
            }
            if talk.said.word.is_none() {
                match self.export(airlock, channel, None).await {
                    Ok(_) => {}
                    // A dead guest is the turn's own failure; its disk is rescued afterwards.
                    Err(error) if error.is_guest_gone() => {}
                    Err(error) => return Err(failed(FailureCode::CheckpointFailed, error)),
                }
            }
            let sight = self.sight().await;
            while let Ok(posted) = line.letters.try_recv() {
                talk.letters.push(posted.letter);
            }
            let facts = Facts {
                outcome,
                word: talk.said.word.as_ref().map(Word::fact),
                asked: talk.said.question.is_some(),
                sight,
                autonomous_turns: autonomous,
                max_turns,
                letters_waiting: talk.has_words_of_a_human(),
            };
            match after_turn(facts) {
                // A person spoke before the agent said it was done: it hears that first, and says it again.
                Next::HandOff | Next::HandOn(_) if ended && !talk.letters.is_empty() => {
                    talk.said.word = None;
                    words = Words::of(talk.take_letters(), tools);
                }
                Next::HandOff | Next::HandOn(_) => {
                    let lost = || failed(FailureCode::Crashed, "the agent's word got lost; this is a bug in symphony");
                    return talk.said.word.clone().ok_or_else(lost);
                }
                Next::End(end) => return Err(self.or_a_person(end)),
                Next::WaitForHuman => {
                    self.wait_for_human(channel, session, talk, line).await?;
                    words = Words::of(talk.take_letters(), tools);
                }
                Next::Continue => {
                    tokio::time::sleep(BETWEEN_TURNS).await;
                    // Behind the last turn of ours there is only what a human says.
                    let alone = talk.interrupted || autonomous >= max_turns;
                    let letters = talk.take_letters();
                    words = match alone {
                        true => Words::of(letters, tools),
                        false => Words::with(prompt::continuation(autonomous + 1, max_turns, tools), letters, tools),
                    };
                }
            }
        }
    }

    /// One prompt, with the agent's tool calls answered meanwhile.
    #[expect(clippy::too_many_arguments, reason = "each is a different end of the same conversation")]
    async fn one_turn(
        &self,
        session: &mut Session,
        channel: &Channel,
        mut mcp: Option<&mut Mcp>,
        ready: &Ready,
        words: &Words,
        talk: &mut Talk,
        line: &mut Line,
    ) -> (Turn, Option<StopCause>) {
        let acp = &self.workflow.acp;
        let limits = TurnLimits {
            total_ms: acp.prompt_timeout_ms,
            silence_ms: acp.turn_timeout_ms,
            stall_ms: acp.stall_timeout_ms,
        };
        let cancel = CancellationToken::new();
        let idle = || u64::try_from(channel.idle().as_millis()).unwrap_or(u64::MAX);
        let held = talk.providers.as_ref().map(|providers| providers.held.clone());
        let outside = Outside { idle: Some(&idle), held };
        let turn = session.prompt(&words.text, words.answer.as_deref(), limits, outside, &cancel);
        tokio::pin!(turn);
        let (mut over_at, mut stopped) = (None::<Instant>, None);
        let (mut seen, mut told) = (talk.asking.begin(), 0);
        let stop = line.stopped();
        let sent_away = models::ends(talk.providers.clone());
        tokio::pin!(stop, sent_away);
        if let Some(mcp) = &mcp {
            mcp.take_calls();
        }
        loop {
            tokio::select! {
                biased;
                // What the agent made of its provider's refusal is no failure of its own.
                turn = &mut turn => {
                    // Cut short, silent for too long, or with its word said: that is not its provider's doing.
                    let ours = matches!(turn.end, TurnEnd::Cancelled | TurnEnd::TimedOut(_)) || talk.said.ends_turn();
                    let over = talk.providers.as_ref().filter(|_| stopped.is_none());
                    let over = over.and_then(|watch| if ours { watch.cause() } else { (watch.turn_over)() });
                    return (turn, stopped.or(over));
                }
                Some(Posted { letter, now }) = line.letters.recv() => {
                    talk.letters.push(letter);
                    if now && !talk.said.ends_turn() {
                        talk.interrupted = true;
                        cancel.cancel();
                    }
                }
                cause = &mut stop, if stopped.is_none() => {
                    stopped = Some(cause);
                    cancel.cancel();
                }
                cause = &mut sent_away, if stopped.is_none() => {
                    stopped = Some(cause);
                    cancel.cancel();
                }
                Some(call) = next_call(mcp.as_deref_mut()) => {
                    let answer = self.on_tool(call.request, &mut talk.said, ready, line).await;
                    if talk.said.ends_turn() {
                        over_at = over_at.or(Some(Instant::now() + AFTER_WORD));
                    }
                    // An agent that hung up does not want the answer.
                    let _ = call.reply.send(answer);
                }
                now = changed(seen.as_mut()) => {
                    if self.on_seen(now, &mut told, &mut talk.asking, line).await {
                        cancel.cancel();
                    }
                }
                () = tokio::time::sleep_until(over_at.unwrap_or_else(Instant::now)), if over_at.is_some() => {
                    over_at = None;
                    cancel.cancel();
                }
            }
        }
    }

    /// Returns when the answer is among the letters: it may have come before the turn ended.
    async fn wait_for_human(
        &self,
        channel: &Channel,
        session: &Session,
        talk: &mut Talk,
        line: &mut Line,
    ) -> Result<(), RunEnd> {
        if talk.has_answer() {
            return Ok(());
        }
        line.report(Report::Phase(WAITING)).await;
        let mut stop = line.stop.clone();
        let gone = || failed(FailureCode::AnswerLost, "the conductor is gone");
        // A message that was on its way when the question was asked is no answer.
        while !talk.has_answer() {
            tokio::select! {
                // An answer that was accepted is delivered before anything else is heard.
                biased;
                posted = line.letters.recv() => talk.letters.push(posted.ok_or_else(gone)?.letter),
                cause = stop.wait_for(Option::is_some) => {
                    return Err(cause.ok().and_then(|cause| *cause).map_or_else(gone, RunEnd::Stopped));
                }
                ended = channel.closed() => {
                    return Err(failed(FailureCode::SandboxLost, format!("while a human was asked: {ended}")));
                }
                () = session.closed() => {
                    return Err(failed(FailureCode::PortExit, "the agent ended while a human was asked"));
                }
            }
        }
        Ok(())
    }

    async fn sight(&self) -> Sight {
        match self.look().await {
            Ok(Seen::In(state)) if self.workflow.states.role(&state) == Role::Active => Sight::Active,
            // A file in somebody's hands never stops a running issue.
            Ok(Seen::Unreadable(_)) => Sight::Active,
            // Missing once says nothing: a rename can race a look (trap T6).
            Err(TrackerError::NotFound(_)) => {
                tokio::time::sleep(SECOND_LOOK).await;
                match self.look().await {
                    Ok(Seen::In(state)) if self.workflow.states.role(&state) == Role::Active => Sight::Active,
                    Ok(Seen::Unreadable(_)) => Sight::Active,
                    Ok(Seen::In(_)) | Err(TrackerError::NotFound(_)) => Sight::NotActive,
                    Err(error) => Sight::Unknown(error.to_string()),
                }
            }
            Ok(Seen::In(_)) => Sight::NotActive,
            Err(error) => Sight::Unknown(error.to_string()),
        }
    }
}

/// `None` where there are no tools.
async fn next_call(mcp: Option<&mut Mcp>) -> Option<ToolCall> {
    mcp?.next_call().await
}

/// Only `end_turn` is success (C165), and a turn we cancelled because its word was given counts as ended.
fn outcome(turn: &Turn, talk: &Talk) -> Outcome {
    match (&turn.end, turn.end.failure()) {
        (_, None) => Outcome::Ended,
        (TurnEnd::Cancelled, _) if (talk.said.ends_turn() || talk.interrupted) && turn.usable => Outcome::Ended,
        (end, Some(code)) => Outcome::Failed(failure(code, end)),
    }
}

/// How the prompt names what kind of run this is.
pub(super) fn attempt_of(plan: &Plan) -> prompt::Attempt {
    let retry_kind = match plan.kind {
        RetryKind::First => None,
        RetryKind::Continuation => Some(prompt::RetryKind::Continuation),
        RetryKind::Failure => Some(prompt::RetryKind::Failure),
    };
    let last_end = plan.last.as_ref().map(|last| format!("{}: {}", last.reason, last.end));
    let last_left = plan.last.as_ref().and_then(|last| last.left.clone());
    prompt::Attempt { number: plan.attempt, retry_kind, last_end, last_left }
}
