//! Random calls, closed, killed and opened again in between, against a simple model of what must be remembered.

use std::collections::BTreeMap;

use symphony_core::board::RetryKind;
use symphony_core::session::{Kept, Place};

use super::*;
use crate::journal::Limit;

/// Sequences, and calls in each.
const SEEDS: u64 = 24;
const STEPS: u64 = 60;
const ISSUES: u64 = 3;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What must be remembered, and what is under way.
#[derive(Default)]
struct Model {
    memory: Memory,
    running: BTreeMap<IssueId, RunId>,
    handed: BTreeMap<u64, RunId>,
}

impl Model {
    fn take(&mut self, run: RunId) {
        let taken: Vec<u64> = self.handed.iter().filter(|(_, by)| **by == run).map(|(id, _)| *id).collect();
        for letters in self.memory.letters.values_mut() {
            letters.retain(|letter| !taken.contains(&letter.id));
        }
        self.memory.letters.retain(|_, letters| !letters.is_empty());
        self.handed.retain(|_, by| *by != run);
    }

    /// Everything under way ended with its process.
    fn cut_off(&mut self) {
        for issue in std::mem::take(&mut self.running).into_keys() {
            let end = "symphony ended without a word while this run was under way; what was exported is kept";
            let last = LastRun { reason: EndReason::CutOff, end: end.to_owned(), left: None };
            self.memory.counters.entry(issue).or_default().last = Some(last);
        }
        self.handed.clear();
    }
}

async fn step(journal: &Journal, model: &mut Model, dice: &mut Dice) {
    let issue = IssueId(format!("issue-{}", dice.below(ISSUES)));
    let (some, run) = (counters(u32::try_from(dice.below(9)).expect("small")), model.running.get(&issue).copied());
    let text = format!("words {}", dice.below(1000));
    let memory = &mut model.memory;
    match (dice.below(11), run) {
        (0..=2, None) => {
            let run = RunId(memory.next_run);
            journal.run_started(run, issue.clone(), some.clone()).await.expect("writes");
            memory.next_run += 1;
            memory.waiting.remove(&issue);
            memory.parked.remove(&issue);
            memory.counters.insert(issue.clone(), some);
            model.running.insert(issue, run);
        }
        (0, Some(run)) => {
            let until =
                Timestamp::from_millisecond(1_700_000_000_000 + i64::try_from(dice.below(1 << 30)).expect("small"));
            let due = Due { until: until.expect("an instant"), kind: RetryKind::Failure, error: Some(text) };
            let ending = ending(3, Some(due).filter(|_| dice.below(2) == 0));
            memory.counters.insert(issue.clone(), ending.counters.clone());
            match &ending.due {
                Some(due) => memory.waiting.insert(issue.clone(), due.clone()),
                None => memory.waiting.remove(&issue),
            };
            journal.run_ended(run, issue.clone(), ending).await.expect("writes");
            model.running.remove(&issue);
            model.handed.retain(|_, by| *by != run);
        }
        (1, Some(run)) => {
            let letters: Vec<u64> = memory.letters.get(&issue).into_iter().flatten().map(|letter| letter.id).collect();
            journal.turn_began(run, issue.clone(), some.clone(), letters.clone()).await.expect("writes");
            memory.counters.insert(issue, some);
            model.handed.extend(letters.into_iter().map(|id| (id, run)));
        }
        (2, Some(run)) => {
            journal.turn_ended(run, issue).await.expect("writes");
            model.take(run);
        }
        (3 | 4, Some(run)) => {
            let open = journal.asked(run, issue.clone(), asked(&text), None).await.expect("writes");
            memory.questions.insert(issue, open);
        }
        (5, _) => {
            let open = memory.questions.get(&issue).map(|open| open.id);
            let number = [None, open, Some(9999)][usize::try_from(dice.below(3)).expect("small")];
            let answered = journal.answered(issue.clone(), number, text, By::Api).await.expect("writes");
            match (answered, open.is_some() && number != Some(9999)) {
                (Answered::Taken(letter), true) => {
                    memory.questions.remove(&issue);
                    memory.letters.entry(issue).or_default().push(letter);
                }
                (Answered::NotAsked, false) => {}
                other => panic!("{other:?}"),
            }
        }
        (6, _) => {
            let letter = journal.said(issue.clone(), text, By::Dashboard).await.expect("writes");
            memory.letters.entry(issue).or_default().push(letter);
        }
        (7, _) => {
            journal.withdrawn(issue.clone(), "withdrawn").await.expect("writes");
            memory.questions.remove(&issue);
        }
        (8, None) => {
            let parked = Parked { reason: ParkReason::Diverged { detail: text }, from: StateName::new("Todo") };
            journal.parked(issue.clone(), parked.clone(), some.clone()).await.expect("writes");
            memory.waiting.remove(&issue);
            memory.counters.insert(issue.clone(), some);
            memory.parked.insert(issue, parked);
        }
        (9, _) => {
            journal.keep_within(Some(Limit { keep: 6, slack: 6, instance: memory.instance.clone(), secret: [7; 32] }));
            journal.probed().await.expect("writes");
            if dice.below(2) == 0 {
                journal.keep_within(None);
            }
        }
        (10, _) => {
            let place =
                Place { agent: text, state: StateName::new("Todo"), runtime: "jail".into(), cwd: "/work".into() };
            let told = Some("told".to_owned()).filter(|_| dice.below(2) == 0);
            let kept = Kept { id: "s-1".into(), place, told, tried: dice.below(2) == 0 };
            let kept = Some(kept).filter(|_| dice.below(3) > 0);
            journal.session(run, issue.clone(), kept.clone()).await.expect("writes");
            match kept {
                Some(kept) => memory.sessions.insert(issue, kept),
                None => memory.sessions.remove(&issue),
            };
        }
        _ => {
            journal.counted(issue.clone(), some.clone()).await.expect("writes");
            memory.counters.insert(issue, some);
        }
    }
}

#[tokio::test]
async fn whatever_is_written_is_remembered_and_the_chain_stays_whole() {
    let (mut compacted, mut reopened) = (0, 0);
    for seed in 1..=SEEDS {
        let dir = tempfile::tempdir().expect("directory");
        let mut path = dir.path().join("journal.db");
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (mut journal, memory) = open(&path).expect("opens");
        let mut model = Model { memory, ..Model::default() };
        for number in 0..STEPS {
            // What fails below says of which sequence it was.
            println!("seed {seed}, step {number}");
            step(&journal, &mut model, &mut dice).await;
            if dice.below(8) == 0 || number + 1 == STEPS {
                if dice.below(2) == 0 {
                    let killed = dir.path().join(format!("killed-{number}.db"));
                    as_killed(&path, &killed);
                    path = killed;
                }
                drop(journal);
                let memory;
                (journal, memory) = open(&path).expect("opens again");
                model.cut_off();
                assert_eq!(memory, model.memory, "seed {seed}, step {number}");
                compacted += u64::from(whole(&path).checkpoint.is_some());
                reopened += 1;
            }
        }
    }
    assert!(compacted > SEEDS && reopened > 2 * SEEDS, "too tame: {compacted} of {reopened}");
}
