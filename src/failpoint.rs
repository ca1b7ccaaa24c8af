//! Places where a test can kill this process, or make a step fail: one list of every step that writes something down.
//!
//! `SYMPHONY_FAILPOINT=journal/run_started/torn:2` kills the process with SIGKILL when it comes there for the second
//! time. With `=eio` or `=enospc` behind it the step fails instead; `:3-5` is then a range of times, `:3-` all from the
//! third on, and a `*` in the name stands for any one word. `SYMPHONY_FAILPOINT_LOG` names a file that gets the name of
//! each point that is passed. All of it only in builds with debug assertions: a release build has no trace of it.

use std::io;

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of it has happened.
    Before,
    /// Half of it has happened.
    Torn,
    /// All of it has happened, and nobody knows yet.
    After,
}

impl Phase {
    /// As it stands in a point's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Torn => "torn",
            Self::After => "after",
        }
    }
}

/// A step that writes something down, and where in it the process can be killed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What does it, and what it does.
    pub name: &'static str,
    /// Its points.
    pub phases: &'static [Phase],
}

const fn step(name: &'static str, phases: &'static [Phase]) -> Step {
    Step { name, phases }
}

const WHOLE: &[Phase] = &[Phase::Before, Phase::After];
const IN_PARTS: &[Phase] = &[Phase::Before, Phase::Torn, Phase::After];

/// Every step. A new one is a line here, and [`reach`] where it happens; the crash matrix takes it from here.
pub const STEPS: &[Step] = &[
    // One transaction each; torn: its statements are done, and it is not committed.
    step("journal/made", IN_PARTS),
    step("journal/opened", IN_PARTS),
    step("journal/probed", IN_PARTS),
    step("journal/run_started", IN_PARTS),
    step("journal/run_ended", IN_PARTS),
    step("journal/turn_began", IN_PARTS),
    step("journal/turn_ended", IN_PARTS),
    step("journal/counted", IN_PARTS),
    step("journal/parked", IN_PARTS),
    step("journal/asked", IN_PARTS),
    step("journal/answered", IN_PARTS),
    step("journal/said", IN_PARTS),
    step("journal/withdrawn", IN_PARTS),
    step("journal/session", IN_PARTS),
    step("journal/egress_asked", IN_PARTS),
    step("journal/egress_decided", IN_PARTS),
    step("journal/egress_forgotten", IN_PARTS),
    step("journal/egress_withdrawn", IN_PARTS),
    step("journal/egress_reached", IN_PARTS),
    // What a request may use is set aside; what it used is charged; more is allowed.
    step("journal/reserved", IN_PARTS),
    step("journal/settled", IN_PARTS),
    step("journal/raised", IN_PARTS),
    // What a provider said of a credential, and that it takes it again; an issue was sent away, or answered.
    step("journal/standing", IN_PARTS),
    step("journal/in_vain", IN_PARTS),
    step("journal/compacted", IN_PARTS),
    // A file of our own is replaced; torn: half of the temporary one is written.
    step("file/write", IN_PARTS),
    // An issue file is moved, gets a note (torn: the texts are exchanged, the old one still has a name), is made.
    step("issue/move", WHOLE),
    step("issue/note", IN_PARTS),
    step("issue/create", IN_PARTS),
    // torn: an older patch has been set aside, the new one has no name yet.
    step("patch/write", IN_PARTS),
    // torn: the repository is whole and has no name yet.
    step("airlock/make", IN_PARTS),
    step("airlock/refs", WHOLE),
    // torn: the agent's branch stands at the head, the airlock does not know.
    step("branch/advance", IN_PARTS),
    // torn: it stands in its place, and is not marked as ready.
    step("workspace/make", IN_PARTS),
    // torn: it is marked as being removed.
    step("workspace/remove", IN_PARTS),
    // torn: its first directory stands, and is not yet its user's.
    step("disk/make", IN_PARTS),
    // The mark on an issue whose work may stand on a work disk only.
    step("disk/mark", WHOLE),
    step("disk/unmark", WHOLE),
    // The work disk is told what the airlock holds.
    step("disk/marker", WHOLE),
];

/// The names of all points, in the order of [`STEPS`].
pub fn points() -> impl Iterator<Item = String> {
    STEPS.iter().flat_map(|step| step.phases.iter().map(|phase| format!("{}/{}", step.name, phase.as_str())))
}

/// The process is at a point.
///
/// # Errors
/// Only when a test wants this step to fail here.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reach(_area: &str, _step: &str, _phase: Phase) -> io::Result<()> {
    Ok(())
}

/// The process is at a point.
///
/// # Errors
/// Only when a test wants this step to fail here.
#[cfg(debug_assertions)]
pub fn reach(area: &str, step: &str, phase: Phase) -> io::Result<()> {
    armed::reach(area, step, phase)
}

#[cfg(debug_assertions)]
mod armed {
    use std::io::{self, Write as _};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::{Phase, STEPS};

    /// What a test asked for.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Order {
        pub(super) name: String,
        pub(super) first: u64,
        pub(super) last: u64,
        /// The error that the step fails with; none: the process dies.
        pub(super) error: Option<i32>,
    }

    impl Order {
        /// `NAME[:FIRST[-[LAST]]][=eio|=enospc]`
        pub(super) fn parse(text: &str) -> Option<Self> {
            let (place, error) = match text.split_once('=') {
                None => (text, None),
                Some((place, "eio")) => (place, Some(libc::EIO)),
                Some((place, "enospc")) => (place, Some(libc::ENOSPC)),
                Some(_) => return None,
            };
            let (name, times) = place.split_once(':').unwrap_or((place, "1"));
            let (first, last) = match times.split_once('-') {
                None => (times.parse().ok()?, times.parse().ok()?),
                Some((first, "")) => (first.parse().ok()?, u64::MAX),
                Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            };
            Some(Self { name: name.to_owned(), first, last, error })
        }

        pub(super) fn is_of(&self, point: &str) -> bool {
            let (mut wanted, mut found) = (self.name.split('/'), point.split('/'));
            loop {
                match (wanted.next(), found.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
                    _ => return false,
                }
            }
        }
    }

    /// A word that is no order ends the process: a test that tests nothing must not pass.
    fn order() -> Option<&'static Order> {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        let read = || {
            let text = std::env::var("SYMPHONY_FAILPOINT").ok()?;
            let order = Order::parse(&text).filter(|order| super::points().any(|point| order.is_of(&point)));
            if order.is_none() {
                eprintln!("SYMPHONY_FAILPOINT={text} names no fail point");
                std::process::exit(70);
            }
            order
        };
        ORDER.get_or_init(read).as_ref()
    }

    fn log() -> Option<&'static std::fs::File> {
        static LOG: OnceLock<Option<std::fs::File>> = OnceLock::new();
        let open = || {
            let path = std::env::var_os("SYMPHONY_FAILPOINT_LOG")?;
            std::fs::OpenOptions::new().create(true).append(true).open(path).ok()
        };
        LOG.get_or_init(open).as_ref()
    }

    pub(super) fn reach(area: &str, step: &str, phase: Phase) -> io::Result<()> {
        static HITS: AtomicU64 = AtomicU64::new(0);
        debug_assert!(is_listed(area, step, phase), "{area}/{step} is no step of failpoint::STEPS");
        let (order, log) = (order(), log());
        if order.is_none() && log.is_none() {
            return Ok(());
        }
        let point = format!("{area}/{step}/{}", phase.as_str());
        if let Some(mut log) = log {
            // One write: lines of threads do not mix.
            log.write_all(format!("{point}\n").as_bytes())?;
        }
        let Some(order) = order.filter(|order| order.is_of(&point)) else { return Ok(()) };
        let hit = HITS.fetch_add(1, Ordering::SeqCst) + 1;
        if hit < order.first || hit > order.last {
            return Ok(());
        }
        match order.error {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => {
                let _ = kill_process(getpid(), Signal::KILL);
                // Not one step further, should the signal take a moment.
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn is_listed(area: &str, step: &str, phase: Phase) -> bool {
        let is_it = |name: &str| name.split_once('/') == Some((area, step));
        STEPS.iter().any(|listed| is_it(listed.name) && listed.phases.contains(&phase))
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::armed::Order;
    use super::*;

    #[test]
    fn an_order_names_a_point_its_times_and_what_happens_there() {
        let order = |name: &str, first, last, error| Some(Order { name: name.into(), first, last, error });
        assert_eq!(Order::parse("a/b/torn"), order("a/b/torn", 1, 1, None));
        assert_eq!(Order::parse("a/b/torn:2"), order("a/b/torn", 2, 2, None));
        assert_eq!(Order::parse("a/*/torn:2-5=eio"), order("a/*/torn", 2, 5, Some(libc::EIO)));
        assert_eq!(Order::parse("a/b/torn:3-=enospc"), order("a/b/torn", 3, u64::MAX, Some(libc::ENOSPC)));
        for wrong in ["a:x", "a:1-x", "a=boom", "a:=eio"] {
            assert_eq!(Order::parse(wrong), None, "{wrong}");
        }
        let is_of = |name: &str, point: &str| Order::parse(name).expect("an order").is_of(point);
        assert!(is_of("a/*/torn", "a/b/torn") && is_of("a/b/torn", "a/b/torn"));
        assert!(!is_of("a/*/torn", "a/b/c/torn") && !is_of("a/b", "a/b/torn") && !is_of("a/b/torn", "a/b/after"));
    }

    #[test]
    fn every_point_has_a_name_of_its_own_in_three_words() {
        let mut names: Vec<String> = points().collect();
        assert!(names.len() > 60 && names.iter().all(|name| name.split('/').count() == 3), "{names:?}");
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nothing_happens_at_a_point_that_nobody_asked_for() {
        for phase in [Phase::Before, Phase::Torn, Phase::After] {
            reach("file", "write", phase).expect("passed");
        }
    }
}
