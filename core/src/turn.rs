//! After a turn: prompt again, wait for a human, hand off, or end. Pure; the run acts on the answer.

use crate::board::{FailureCode, RunEnd, RunFailure};

/// How a turn ended, as far as this decision cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent ended its turn (`end_turn`).
    Ended,
    /// Anything else: other stop reasons, transport, protocol, agent and timeout failures.
    Failed(RunFailure),
}

/// Where the issue's file is, right after the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// In an active state.
    Active,
    /// In any other state, or nowhere.
    NotActive,
    /// The tracker could not tell (C179: fails the attempt).
    Unknown(String),
}

/// Facts about the turn that just ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether `mark_done` was accepted in this run.
    pub marked_done: bool,
    /// Whether a question to a human is open.
    pub asked: bool,
    /// Where the issue is now.
    pub sight: Sight,
    /// Turns that no human asked for, this one included; a steering reply is free.
    pub autonomous_turns: u32,
    /// How many of those are allowed in one run.
    pub max_turns: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Hand the work off: the agent said it is done.
    HandOff,
    /// Wait for the answer, then prompt with it.
    WaitForHuman,
    /// Prompt the same session to carry on.
    Continue,
    /// End the run this way.
    End(RunEnd),
}

/// The agent's word that it is done counts even if the turn then broke: the work is exported. A question
/// of a turn that broke does not: the session may be gone, and the next run asks again.
pub fn after_turn(facts: Facts) -> Next {
    if facts.marked_done {
        return Next::HandOff;
    }
    if facts.asked {
        return match facts.outcome {
            Outcome::Ended => Next::WaitForHuman,
            Outcome::Failed(failure) => Next::End(RunEnd::Failed(failure)),
        };
    }
    match (facts.outcome, facts.sight) {
        (Outcome::Failed(failure), _) => Next::End(RunEnd::Failed(failure)),
        (Outcome::Ended, Sight::Unknown(message)) => {
            Next::End(RunEnd::Failed(RunFailure { code: FailureCode::IssueRefreshFailed, message }))
        }
        (Outcome::Ended, Sight::NotActive) => Next::End(RunEnd::NoLongerActive),
        (Outcome::Ended, Sight::Active) if facts.autonomous_turns >= facts.max_turns => Next::End(RunEnd::TurnsUsed),
        (Outcome::Ended, Sight::Active) => Next::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            outcome: Outcome::Ended,
            marked_done: false,
            asked: false,
            sight: Sight::Active,
            autonomous_turns: 1,
            max_turns: 2,
        }
    }

    fn failure() -> RunFailure {
        RunFailure { code: FailureCode::TurnFailed, message: "boom".into() }
    }

    #[test]
    fn a_turn_that_leaves_the_issue_active_is_continued_up_to_the_limit() {
        assert_eq!(after_turn(facts()), Next::Continue);
        let last = Facts { autonomous_turns: 2, ..facts() };
        assert_eq!(after_turn(last), Next::End(RunEnd::TurnsUsed));
    }

    #[test]
    fn done_wins_over_a_turn_that_broke_afterwards() {
        let broke = Facts { outcome: Outcome::Failed(failure()), marked_done: true, ..facts() };
        assert_eq!(after_turn(broke), Next::HandOff);
    }

    #[test]
    fn a_question_waits_for_a_human_and_is_no_end() {
        assert_eq!(after_turn(Facts { asked: true, autonomous_turns: 2, ..facts() }), Next::WaitForHuman);
    }

    #[test]
    fn an_issue_that_left_the_active_states_ends_the_run_cleanly() {
        let gone = Facts { sight: Sight::NotActive, ..facts() };
        assert_eq!(after_turn(gone), Next::End(RunEnd::NoLongerActive));
    }

    #[test]
    fn an_unreadable_tracker_after_a_turn_fails_the_attempt() {
        let blind = Facts { sight: Sight::Unknown("no access".into()), ..facts() };
        assert!(matches!(after_turn(blind), Next::End(RunEnd::Failed(f)) if f.code == FailureCode::IssueRefreshFailed));
    }
}
