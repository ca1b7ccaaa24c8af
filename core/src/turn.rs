//! After a turn: prompt again, wait for a human, hand off, hand on, or end. Pure; the run acts on the answer.

use crate::board::{FailureCode, RunEnd, RunFailure};
use crate::ids::StateName;

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

/// What the agent said about its issue; a run has at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `mark_done` was accepted: it goes to the done target.
    Done,
    /// `transition` was accepted: it goes to this state.
    Move(StateName),
}

/// Facts about the turn that just ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How it ended.
    pub outcome: Outcome,
    /// What was accepted in this run, if anything.
    pub word: Option<Word>,
    /// Whether a question to a human is open.
    pub asked: bool,
    /// Where the issue is now.
    pub sight: Sight,
    /// Turns that no human asked for, this one included; a steering reply is free.
    pub autonomous_turns: u32,
    /// How many of those are allowed in one run.
    pub max_turns: u32,
    /// Whether a human said something that stands in no prompt yet: the turn that says it is free.
    pub letters_waiting: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Hand the work off: the agent said it is done.
    HandOff,
    /// Hand the issue on to this state: the agent said it belongs there.
    HandOn(StateName),
    /// Wait for the answer, then prompt with it.
    WaitForHuman,
    /// Prompt the same session to carry on.
    Continue,
    /// End the run this way.
    End(RunEnd),
}

/// The agent's word counts even if the turn then broke: the work is exported. A question
/// of a turn that broke does not: the session may be gone, and the next run asks again.
pub fn after_turn(facts: Facts) -> Next {
    match facts.word {
        Some(Word::Done) => return Next::HandOff,
        Some(Word::Move(to)) => return Next::HandOn(to),
        None => {}
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
        // What a human said must be heard, and costs nothing.
        (Outcome::Ended, Sight::Active) if facts.letters_waiting => Next::Continue,
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
            word: None,
            asked: false,
            sight: Sight::Active,
            autonomous_turns: 1,
            max_turns: 2,
            letters_waiting: false,
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
    fn a_human_s_words_are_heard_also_after_the_last_turn() {
        let last = Facts { autonomous_turns: 2, letters_waiting: true, ..facts() };
        assert_eq!(after_turn(last.clone()), Next::Continue);
        let gone = Facts { sight: Sight::NotActive, ..last };
        assert_eq!(after_turn(gone), Next::End(RunEnd::NoLongerActive), "nobody is to work on it");
    }

    #[test]
    fn done_wins_over_a_turn_that_broke_afterwards() {
        let broke = Facts { outcome: Outcome::Failed(failure()), word: Some(Word::Done), ..facts() };
        assert_eq!(after_turn(broke), Next::HandOff);
    }

    #[test]
    fn a_transition_hands_the_issue_on_whatever_else_is_open() {
        let to = StateName::new("Review");
        let moved = Facts { word: Some(Word::Move(to.clone())), ..facts() };
        for facts in [
            moved.clone(),
            Facts { outcome: Outcome::Failed(failure()), ..moved.clone() },
            Facts { asked: true, autonomous_turns: 2, ..moved.clone() },
            Facts { sight: Sight::Unknown("no access".into()), ..moved },
        ] {
            assert_eq!(after_turn(facts), Next::HandOn(to.clone()));
        }
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
