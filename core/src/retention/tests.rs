//! Over any inventory: what goes has a reason and our mark, what is not known stays.

use proptest::prelude::*;

use super::*;
use crate::workflow::Transcripts;

fn policy() -> Retention {
    Retention {
        workspaces_days: 7,
        work_disks_days: 3,
        templates: Bounds { max: 2, days: 30 },
        transcripts: Transcripts { days: 30, max_mib: 10 },
        journal_backups: Bounds { max: 1, days: 0 },
        journal_events: 0,
    }
}

fn item(kind: Kind, place: &str, days: u64) -> Item {
    Item {
        kind,
        place: place.to_owned(),
        bytes: Some(MIB),
        idle_ms: Some(days * DAY_MS),
        mark: Mark::Ours,
        owner: Owner::Issue(Role::Terminal),
        live: false,
        unexported: false,
        doomed: false,
    }
}

fn verdict(item: Item) -> Verdict {
    plan(&Inventory { items: vec![item], errors: vec![] }, &policy())[0]
}

#[test]
fn each_kind_goes_exactly_when_its_days_are_over() {
    for (kind, days, due) in [
        (Kind::Workspace, 7, Due::Finished { days: 7 }),
        (Kind::WorkDisk, 3, Due::Finished { days: 3 }),
        (Kind::PutAside, 3, Due::Finished { days: 3 }),
        (Kind::Template, 30, Due::TooOld { days: 30 }),
        (Kind::Run, 30, Due::TooOld { days: 30 }),
    ] {
        assert_eq!(verdict(item(kind, "a", days)), Ok(due), "{kind:?}");
        let earlier = Item { idle_ms: Some(days * DAY_MS - 1), ..item(kind, "a", 0) };
        assert_eq!(verdict(earlier), Err(Kept::NotYet { days }), "{kind:?}");
        assert_eq!(verdict(Item { idle_ms: None, ..item(kind, "a", 0) }), Err(Kept::AgeUnknown), "{kind:?}");
    }
    assert_eq!(verdict(item(Kind::JournalBackup, "a", 9999)), Err(Kept::Unbounded), "0 is no bound");
    for kind in [Kind::Airlock, Kind::Patches, Kind::Journal, Kind::Other] {
        assert_eq!(verdict(item(kind, "a", 9999)), Err(Kept::Always), "{kind:?}");
    }
}

#[test]
fn one_thing_in_the_way_keeps_what_would_go_otherwise() {
    let old = item(Kind::WorkDisk, "a", 999);
    assert!(verdict(old.clone()).is_ok(), "the control");
    for (item, kept) in [
        (Item { mark: Mark::Missing, ..old.clone() }, Kept::NotOurs),
        (Item { mark: Mark::Link, ..old.clone() }, Kept::Link),
        (Item { live: true, ..old.clone() }, Kept::Live),
        (Item { unexported: true, ..old.clone() }, Kept::Unexported),
        (Item { unexported: true, doomed: true, ..old.clone() }, Kept::Unexported),
        (Item { owner: Owner::Unknown, ..old.clone() }, Kept::IssueUnknown),
        (Item { owner: Owner::Nobody, ..old.clone() }, Kept::IssueUnknown),
        (Item { owner: Owner::Issue(Role::Active), ..old.clone() }, Kept::IssueActive),
        (Item { owner: Owner::Issue(Role::Holding), ..old.clone() }, Kept::IssueHeld),
    ] {
        assert_eq!(verdict(item), Err(kept));
    }
}

#[test]
fn of_many_the_ones_used_last_stay() {
    let items = [("c", 3), ("a", 1), ("b", 2), ("d", 4)];
    let items: Vec<Item> = items.map(|(place, days)| item(Kind::Template, place, days)).into();
    let mut inventory = Inventory { items, errors: vec![] };
    let due = Ok(Due::TooMany { max: 2 });
    let stays = Err(Kept::NotYet { days: 30 });
    assert_eq!(plan(&inventory, &policy()), [due, stays, stays, due]);
    // One in use has its place, and does not go for being old.
    inventory.items[3].live = true;
    assert_eq!(plan(&inventory, &policy())[3], Err(Kept::Live));
    // What is too old anyhow takes nobody's place.
    inventory.items[1].idle_ms = Some(31 * DAY_MS);
    inventory.items[3].live = false;
    assert_eq!(plan(&inventory, &policy()), [stays, Ok(Due::TooOld { days: 30 }), stays, due]);
}

#[test]
fn runs_beyond_their_room_go_oldest_first() {
    let sized = |place: &str, days, mib| Item { bytes: Some(mib * MIB), ..item(Kind::Run, place, days) };
    let items = vec![sized("1", 3, 4), sized("2", 2, 4), sized("3", 1, 4), Item { live: true, ..sized("4", 0, 2) }];
    let plan = plan(&Inventory { items, errors: vec![] }, &policy());
    let stays = Err(Kept::NotYet { days: 30 });
    assert_eq!(plan, [Ok(Due::TooMuch { max_mib: 10 }), stays, stays, Err(Kept::Live)]);
}

#[test]
fn what_cannot_be_looked_at_keeps_everything() {
    let items = vec![item(Kind::Run, "a", 999), Item { doomed: true, ..item(Kind::WorkDisk, "b", 999) }];
    let mut inventory = Inventory { items, errors: vec![] };
    assert!(plan(&inventory, &policy()).iter().all(Result::is_ok), "the control");
    inventory.errors.push("cannot read something".to_owned());
    assert_eq!(plan(&inventory, &policy()), [Err(Kept::InventoryFailed); 2]);
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Workspace,
        Kind::WorkDisk,
        Kind::PutAside,
        Kind::Airlock,
        Kind::Patches,
        Kind::Template,
        Kind::Run,
        Kind::Journal,
        Kind::JournalBackup,
        Kind::Other,
    ])
}

fn owners() -> impl Strategy<Value = Owner> {
    let issue = |role| Just(Owner::Issue(role));
    prop_oneof![
        1 => Just(Owner::Nobody),
        1 => Just(Owner::Unknown),
        1 => issue(Role::Active),
        1 => issue(Role::Holding),
        4 => issue(Role::Terminal),
    ]
}

fn items() -> impl Strategy<Value = Item> {
    let marks = prop_oneof![6 => Just(Mark::Ours), 1 => Just(Mark::Missing), 1 => Just(Mark::Link)];
    let idle = prop::option::weighted(0.9, (0..200_u64).prop_map(|days| days * DAY_MS));
    let rarely = || prop::bool::weighted(0.15);
    let size = prop::option::weighted(0.9, 0..20 * MIB);
    (kinds(), size, idle, marks, owners(), (rarely(), rarely(), rarely())).prop_map(
        |(kind, bytes, idle_ms, mark, owner, (live, unexported, doomed))| Item {
            kind,
            place: String::new(),
            bytes,
            idle_ms,
            mark,
            owner,
            live,
            unexported,
            doomed,
        },
    )
}

fn inventories() -> impl Strategy<Value = Inventory> {
    let errors = prop_oneof![9 => Just(vec![]), 1 => Just(vec!["cannot be read".to_owned()])];
    (prop::collection::vec(items(), 0..30), errors).prop_map(|(mut items, errors)| {
        for (at, item) in items.iter_mut().enumerate() {
            item.place = format!("{at}");
        }
        Inventory { items, errors }
    })
}

fn policies() -> impl Strategy<Value = Retention> {
    prop::collection::vec(0..100_u64, 8).prop_map(|n| Retention {
        workspaces_days: n[0],
        work_disks_days: n[1],
        templates: Bounds { max: n[2] / 10, days: n[3] },
        transcripts: Transcripts { days: n[4], max_mib: n[5] },
        journal_backups: Bounds { max: n[6] / 10, days: n[7] },
        journal_events: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_goes_that_is_not_ours_or_may_still_be_needed(inventory in inventories(), policy in policies()) {
        let verdicts = plan(&inventory, &policy);
        prop_assert_eq!(verdicts.len(), inventory.items.len());
        for (item, verdict) in inventory.items.iter().zip(&verdicts) {
            let Ok(due) = verdict else { continue };
            prop_assert!(inventory.errors.is_empty(), "after a failed look");
            prop_assert!(item.mark == Mark::Ours && !item.live && !item.unexported, "{:?}", item);
            prop_assert!(!matches!(item.kind, Kind::Airlock | Kind::Patches | Kind::Journal | Kind::Other), "{:?}", item);
            if item.doomed {
                prop_assert_eq!(*due, Due::Begun);
                continue;
            }
            let of_an_issue =
                matches!(item.kind, Kind::Workspace | Kind::WorkDisk | Kind::PutAside);
            prop_assert!(!of_an_issue || item.owner == Owner::Issue(Role::Terminal), "{:?}", item);
            // Each reason is true.
            let idle = item.idle_ms.expect("known of what goes");
            match due {
                Due::Begun => prop_assert!(false, "{:?}", item),
                Due::Finished { days } | Due::TooOld { days } => {
                    prop_assert!(*days > 0 && idle >= days * DAY_MS);
                }
                Due::TooMany { max } => {
                    let later = |other: &&Item| other.kind == item.kind && other.idle_ms <= item.idle_ms;
                    prop_assert!(*max > 0 && inventory.items.iter().filter(later).count() as u64 > *max);
                }
                Due::TooMuch { max_mib } => {
                    let later = inventory.items.iter().filter(|other| other.kind == Kind::Run && other.idle_ms <= item.idle_ms);
                    prop_assert!(*max_mib > 0 && later.filter_map(|other| other.bytes).sum::<u64>() > max_mib * MIB);
                }
            }
        }
    }

    #[test]
    fn one_more_unreadable_place_or_one_more_doubt_never_removes_more(
        inventory in inventories(), policy in policies(), at in any::<prop::sample::Index>()
    ) {
        let before = plan(&inventory, &policy);
        prop_assume!(!inventory.items.is_empty());
        let at = at.index(inventory.items.len());
        for doubt in [
            |item: &mut Item| item.mark = Mark::Link,
            |item: &mut Item| item.unexported = true,
            |item: &mut Item| item.live = true,
        ] {
            let mut doubtful = inventory.clone();
            doubt(&mut doubtful.items[at]);
            prop_assert!(plan(&doubtful, &policy)[at].is_err());
        }
        let mut failed = inventory.clone();
        failed.errors.push("cannot be read".to_owned());
        prop_assert!(plan(&failed, &policy).iter().all(Result::is_err));
        // The control: it is no property of a plan that removes nothing.
        prop_assert_eq!(plan(&inventory, &policy), before);
    }
}

#[test]
fn random_inventories_reach_every_reason_to_go() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let inventory = inventories().new_tree(&mut runner).expect("made").current();
        let policy = policies().new_tree(&mut runner).expect("made").current();
        seen.extend(plan(&inventory, &policy).into_iter().flatten().map(Due::code));
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}
