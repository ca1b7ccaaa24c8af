//! What was used of models outlives the process, and what was under way is charged.

use jiff::civil::date;
use symphony_core::broker::{Most, Provider, Usage};
use symphony_core::money::Money;
use symphony_core::spend::{Entry as Used, Met, Place, Raise, Reservation, Scope, Sums, Unit, Wanted};

use super::*;

fn reservation(id: u64, cost: Option<u64>) -> Reservation {
    let of = Wanted {
        run: RunId(1),
        issue: IssueId("A".into()),
        day: date(2026, 1, 31),
        provider: Provider::OpenAi,
        model: "m".into(),
        tier: None,
        most: Most { input: 70, output: 30, ..Most::default() },
    };
    Reservation { id, model: of.model.clone(), of, cost: cost.map(Money) }
}

fn used(output: u64, cost: u64) -> Used {
    let used = Usage { output, ..Usage::default() };
    let sums = Sums { requests: 1, used, cost: Money(cost), unpriced: 0, assumed: 0 };
    Used { sums, ..reservation(0, None).assumed() }
}

fn raise(place: Place, by: u64) -> Raise {
    Raise { place, unit: Unit::Tokens, by }
}

#[tokio::test]
async fn what_was_used_and_allowed_is_remembered_and_requests_under_way_are_charged_at_the_next_start() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, memory) = open(&path).expect("opens");
    assert_eq!(memory.spend, symphony_core::spend::Past::default());
    for id in 1..=5 {
        journal.reserved(reservation(id, (id == 4).then_some(9))).await.expect("kept");
    }
    journal.settled(1, Some(used(7, 5))).await.expect("kept");
    journal.settled(2, Some(used(8, 6))).await.expect("kept");
    journal.settled(2, Some(used(8, 6))).await.expect("once only");
    journal.settled(3, None).await.expect("kept");
    let places = [Place::Issue(IssueId("A".into())), Place::Day(date(2026, 1, 31)), Place::Workflow];
    for place in places.clone() {
        journal.raised(raise(place, 50), By::Api).await.expect("kept");
    }
    drop(journal);
    // 4 and 5 were under way: 200 tokens, of which those of 5 have no price.
    let (_, memory) = open(&path).expect("opens");
    let [entry] = memory.spend.entries.as_slice() else { panic!("{:?}", memory.spend) };
    let expected = Sums {
        requests: 4,
        used: Usage { input: 140, output: 75, ..Usage::default() },
        cost: Money(20),
        unpriced: 100,
        assumed: 200,
    };
    assert_eq!((entry.model.as_str(), entry.provider.as_str(), entry.sums), ("m", "openai", expected));
    assert_eq!(memory.spend.raises, places.map(|place| raise(place, 50)));
    whole(&path);
    assert_eq!(open(&path).expect("opens").1.spend, memory.spend, "charged once");
}

#[tokio::test]
async fn rows_that_say_less_than_a_runs_end_or_allow_more_than_a_person_are_told() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let issue = IssueId("A".into());
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("kept");
    journal.reserved(reservation(1, Some(9))).await.expect("kept");
    journal.settled(1, Some(used(7, 5))).await.expect("kept");
    journal.run_ended(RunId(1), issue.clone(), ending(1, None)).await.expect("kept");
    journal.raised(raise(Place::Workflow, 50), By::Api).await.expect("kept");
    journal.reserved(reservation(2, Some(9))).await.expect("kept");
    journal.settled(2, Some(used(1, 1))).await.expect("a late one is in no event yet");
    drop(journal);
    whole(&path);
    let before = std::fs::read(&path).expect("reads");
    for (sql, says) in [
        ("UPDATE spend SET output = 6", "A has used less of models than event "),
        ("UPDATE spend SET nano_usd = 0", "A has used less of models than event "),
        ("DELETE FROM spend", "A has used less of models than event "),
        ("UPDATE raises SET amount = 51", "raise 1 is not what event "),
        ("DELETE FROM raises", "raise 1 of event "),
        ("INSERT INTO raises VALUES (9, 'workflow', '', 'tokens', 1, 't')", "raise 9 stands in no event"),
    ] {
        told_of(&path, &before, sql, says);
    }
}

#[tokio::test]
async fn why_an_issue_was_put_aside_for_its_budget_is_remembered_whole() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let units = [Unit::Tokens, Unit::Money];
    let all = [Scope::Issue, Scope::Day, Scope::Workflow].into_iter().flat_map(|scope| units.map(|unit| (scope, unit)));
    let mut expected = std::collections::BTreeMap::new();
    for (number, (scope, unit)) in all.enumerate() {
        let met = Met { scope, unit, day: date(2026, 1, 31), used: 90, asked: 20, answer: 0, allowed: 100 };
        let parked = Parked { reason: ParkReason::Spend(met), from: StateName::new("Todo") };
        let issue = IssueId(format!("A-{number}"));
        journal.parked(issue.clone(), parked.clone(), counters(1)).await.expect("kept");
        expected.insert(issue, parked);
    }
    drop(journal);
    assert_eq!(open(&path).expect("opens").1.parked, expected);
}

/// Regression: sums of whole numbers overflow with an error. Eight requests with a maximum beyond all sense, cut off, kept the
/// journal of their issue shut for ever.
#[tokio::test]
async fn numbers_beyond_all_sense_neither_shut_the_journal_nor_leave_the_sums_wrong() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let huge = |id: u64, model: String| {
        let mut one = reservation(id, Some(u64::MAX));
        one.model = model;
        one.of.most = Most { input: u64::MAX, output: u64::MAX, ..Most::default() };
        one
    };
    for round in 0..3 {
        let (journal, memory) = open(&path).expect("opens");
        assert_eq!(memory.spend.entries.len(), if round == 0 { 0 } else { 13 }, "{:?}", memory.spend);
        for id in 0..24 {
            let model = if id < 12 { "one".to_owned() } else { format!("other {id}") };
            journal.reserved(huge(id, model)).await.expect("kept");
        }
        drop(journal);
    }
    let db = rusqlite::Connection::open(&path).expect("db");
    let told = crate::journal::spend::told(&db, &IssueId("A".into())).expect("a sum");
    assert_eq!(told, serde_json::json!([1_u64 << 60, 1_u64 << 60]));
}
