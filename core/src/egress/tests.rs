//! Entries, targets, addresses, hellos and the ledger, case by case; and that no input panics.

mod hellos;

use core::net::IpAddr;

use jiff::Timestamp;
use proptest::prelude::*;

use super::address::{first_forbidden, forbidden};
use super::*;
use crate::ids::{IssueId, RunId};
use crate::steering::By;

fn entry(text: &str) -> Result<String, String> {
    Entry::parse(text).map(|entry| entry.to_string()).map_err(|bad| bad.to_string())
}

fn target(text: &str) -> Target {
    Target::parse(text).expect("a target")
}

#[test]
fn an_entry_is_a_host_or_a_suffix_of_one_owner_with_a_port_if_it_is_not_443() {
    for (text, read) in [
        ("example.com", "example.com"),
        (" Example.COM ", "example.com"),
        ("example.com:443", "example.com"),
        ("example.com:8443", "example.com:8443"),
        ("example.com.", "example.com"),
        ("*.example.com", "*.example.com"),
        ("*.example.co.uk:8443", "*.example.co.uk:8443"),
        ("*.corp.internal", "*.corp.internal"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("some_bucket.example.com", "some_bucket.example.com"),
        // A whole name is one owner's, public suffix or not.
        ("github.io", "github.io"),
    ] {
        assert_eq!(entry(text).as_deref(), Ok(read), "{text}");
    }
    for (text, says) in [
        ("https://example.com", "is not only a host"),
        ("example.com/path", "is not only a host"),
        ("me@example.com", "is not only a host"),
        ("*", "every host"),
        ("*.", "every host"),
        ("*.com", "below `com`"),
        ("*.co.uk", "below `co.uk`"),
        ("*.github.io", "below `github.io`"),
        ("*.GitHub.io.", "below `github.io`"),
        ("*.internal", "below `internal`"),
        // Anybody's, too: the list names these by what is below them.
        ("*.compute.amazonaws.com", "below `compute.amazonaws.com`"),
        ("*.kawasaki.jp", "below `kawasaki.jp`"),
        ("*.sch.uk", "below `sch.uk`"),
        ("*.nom.br", "below `nom.br`"),
        ("*.*.example.com", "has a `*`"),
        ("ex*mple.com", "has a `*`"),
        ("example.*", "has a `*`"),
        ("localhost", "no dot"),
        ("127.0.0.1", "is an address"),
        ("127.1", "is an address"),
        ("2130706433", "is an address"),
        ("1.2.3.0x7f", "is an address"),
        ("[::1]:443", "is an address"),
        ("::1", "is an address"),
        ("fe80::1%eth0", "is an address"),
        ("example.com:0", "a port"),
        ("example.com:65536", "a port"),
        ("example.com:+443", "a port"),
        ("example.com:https", "a port"),
        ("", "no name"),
        ("exa mple.com", "no name"),
        ("-a.example.com", "no name"),
        ("a..example.com", "no name"),
        ("xn--0.example.com", "no name"),
    ] {
        let said = entry(text).expect_err(text);
        assert!(said.contains(says), "{text}: {said}");
        assert!(!Entry::parse(text).expect_err("refused").hint().is_empty());
    }
}

#[test]
fn a_suffix_allows_what_is_below_it_alone_and_every_entry_its_own_port_alone() {
    let list = ["exact.example", "*.wild.example", "*.wild.example:8443"];
    let list = AllowList(list.iter().map(|text| Entry::parse(text).expect("an entry")).collect());
    let allowed = |text| list.entry(&target(text)).map(ToString::to_string);
    assert_eq!(allowed("EXACT.example.:443").as_deref(), Some("exact.example"));
    assert_eq!(allowed("a.wild.example:443").as_deref(), Some("*.wild.example"));
    assert_eq!(allowed("a.b.wild.example:8443").as_deref(), Some("*.wild.example:8443"));
    for denied in [
        "exact.example:80",
        "a.exact.example:443",
        "wild.example:443",
        "evilwild.example:443",
        "wild.example.evil.example:443",
        "a.wild.example:80",
    ] {
        assert_eq!(allowed(denied), None, "{denied}");
    }
    assert_eq!(AllowList::default().entry(&target("a.example:443")), None);
    // Regression: below one owner's name may be another's, or anybody's.
    let broad = AllowList(vec![Entry::parse("*.amazonaws.com").expect("an entry")]);
    let allowed = |text| broad.entry(&target(text)).is_some();
    assert!(allowed("sts.amazonaws.com:443"));
    assert!(!allowed("a-bucket-of-anybody.s3.amazonaws.com:443"));
}

#[test]
fn a_target_is_a_name_and_a_port() {
    assert_eq!(target("A.Example:443").to_string(), "a.example:443");
    for (text, bad) in [
        ("a.example", BadHost::Port),
        ("a.example:", BadHost::Port),
        ("10.0.0.1:443", BadHost::Address),
        ("[::1]:443", BadHost::Address),
        ("::1:443", BadHost::Address),
        ("0x7f.1:443", BadHost::Address),
        ("017700000001:443", BadHost::Address),
        ("localhost:443", BadHost::NoDot),
        ("u@a.example:443", BadHost::NoName),
        ("a.example/x:443", BadHost::NoName),
        ("a%2eexample:443", BadHost::NoName),
    ] {
        assert_eq!(Target::parse(text), Err(bad), "{text}");
    }
}

#[test]
fn every_kind_of_address_that_is_not_of_the_public_internet_is_refused() {
    for (address, kind) in [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.1.2.3", "private"),
        ("100.64.0.1", "shared (CGNAT)"),
        ("100.100.100.200", "shared (CGNAT)"),
        ("100.127.255.255", "shared (CGNAT)"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("168.63.129.16", "cloud metadata"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "reserved"),
        ("192.0.2.1", "documentation"),
        ("192.31.196.1", "reserved"),
        ("192.52.193.1", "reserved"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.1.1", "private"),
        ("192.175.48.1", "reserved"),
        ("198.18.0.1", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.7", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:0:127.0.0.1", "IPv4-translated"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("64:ff9b::a9fe:a9fe", "NAT64"),
        ("64:ff9b:1::1", "NAT64"),
        ("100::1", "discard"),
        ("2001::1", "Teredo"),
        ("2001:2::1", "benchmarking"),
        ("2001:10::1", "reserved"),
        ("2001:1ff::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "6to4"),
        ("2620:4f:8000::1", "reserved"),
        ("3fff::1", "documentation"),
        ("5f00::1", "segment routing"),
        ("fc00::1", "private (ULA)"),
        ("fd00:ec2::254", "private (ULA)"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("4000::1", "reserved"),
        ("e000::1", "reserved"),
    ] {
        assert_eq!(forbidden(address.parse().expect(address)), Some(kind), "{address}");
    }
    for public in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.0",
        "126.1.1.1",
        "172.15.1.1",
        "172.32.0.0",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450::1",
    ] {
        assert_eq!(forbidden(public.parse().expect(public)), None, "{public}");
    }
}

#[test]
fn one_bad_address_refuses_all_of_an_answer() {
    let all = |list: &[&str]| list.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
    assert_eq!(first_forbidden(&all(&["1.1.1.1", "2606:4700::1111"])), None);
    let bad = first_forbidden(&all(&["1.1.1.1", "10.0.0.1"])).expect("one is bad");
    assert_eq!(bad, ("10.0.0.1".parse().expect("an address"), "private"));
}

fn card(id: u64, issue: &str, of: &str) -> Card {
    let target = target(of);
    Card { id, issue: IssueId(issue.into()), run: RunId(1), target, asked_at: Timestamp::UNIX_EPOCH, times: 1 }
}

/// Decides over a card, as the shell does.
fn decide(ledger: &mut Ledger, id: u64, as_number: u64, verb: Verb) -> Vec<u64> {
    let settles = ledger.answered_by(id, verb).expect("it waits");
    let card = settles.card.clone();
    let Card { issue, target, .. } = card;
    let decision = Decision { id: as_number, issue, target, verb, by: By::Api, at: Timestamp::UNIX_EPOCH };
    ledger.decided(decision, &settles);
    settles.answers
}

#[test]
fn each_verb_reaches_as_far_as_it_says() {
    let (a, b, host) = (IssueId("a".into()), IssueId("b".into()), target("x.example:443"));
    let none = AllowList::default();
    let with = |verb| {
        let cards = vec![card(1, "a", "x.example:443"), card(2, "b", "x.example:443"), card(3, "a", "y.example:443")];
        let mut ledger = Ledger::new(Kept { cards, ..Kept::default() });
        let answered = decide(&mut ledger, 1, 9, verb);
        (ledger, answered)
    };
    for (verb, answers, here, there) in [
        (Verb::Once, vec![1], true, false),
        (Verb::Issue, vec![1], true, false),
        (Verb::Always, vec![1, 2], true, true),
    ] {
        let (ledger, answered) = with(verb);
        assert_eq!(answered, answers, "{verb:?}");
        let passes = |issue| matches!(ledger.verdict(issue, &host, &none), Verdict::Pass(Rule::Decided(_, 9)));
        assert_eq!((passes(&a), passes(&b)), (here, there), "{verb:?}");
        assert_eq!(ledger.verdict(&a, &target("x.example:8443"), &none), Verdict::Ask, "another port");
        assert_eq!(ledger.verdict(&a, &target("z.x.example:443"), &none), Verdict::Ask, "another host");
        let late = ledger.answered_by(1, Verb::Never).expect_err("the first word wins");
        assert!(late.to_string().contains("`symphony egress forget 9` takes that back"), "{late}");
    }
    let (mut never, answered) = with(Verb::Never);
    assert_eq!((answered, never.verdict(&b, &host, &none)), (vec![1, 2], Verdict::Never));
    // What the owner wrote into the workflow outweighs it; a leave that was given elsewhere does not.
    let list = AllowList(vec![Entry::parse("x.example").expect("an entry")]);
    assert!(matches!(never.verdict(&b, &host, &list), Verdict::Pass(Rule::Listed(_))));
    never.asked(card(10, "b", "x.example:443"));
    decide(&mut never, 10, 11, Verb::Issue);
    assert_eq!(never.verdict(&b, &host, &none), Verdict::Never);
    never.forgotten(9);
    assert!(matches!(never.verdict(&b, &host, &none), Verdict::Pass(Rule::Decided(Verb::Issue, 11))));
}

#[test]
fn once_is_used_by_one_connection_and_stands_when_that_did_not_come_to_be() {
    let (a, host, none) = (IssueId("a".into()), target("x.example:443"), AllowList::default());
    let mut ledger = Ledger::new(Kept { cards: vec![card(1, "a", "x.example:443")], ..Kept::default() });
    decide(&mut ledger, 1, 2, Verb::Once);
    assert!(ledger.take(2) && !ledger.take(2), "one of two at once");
    assert_eq!(ledger.verdict(&a, &host, &none), Verdict::Ask);
    ledger.give_back(2);
    assert!(matches!(ledger.verdict(&a, &host, &none), Verdict::Pass(Rule::Decided(Verb::Once, 2))));
    assert!(ledger.take(2));
    ledger.used_up(2);
    assert!(!ledger.take(2));
    assert_eq!(ledger.verdict(&a, &host, &none), Verdict::Ask);
}

/// Regression: between the use of a `once` and the agent's next try, `symphony egress decide` said that nobody had asked.
#[test]
fn a_host_whose_once_is_being_used_or_was_used_up_can_be_decided_about_before_it_is_asked_for_again() {
    let (a, host, none) = (IssueId("a".into()), target("x.example:443"), AllowList::default());
    let kept = || Kept { cards: vec![card(1, "a", "x.example:443")], ..Kept::default() };
    for is_done in [false, true] {
        for name in ["1", "2", "x.example"] {
            let mut ledger = Ledger::new(kept());
            decide(&mut ledger, 1, 2, Verb::Once);
            assert!(ledger.take(2));
            if is_done {
                ledger.used_up(2);
            }
            let named = Named::parse(name).expect("a name");
            let settles = ledger.settled_by(&named, Verb::Never).expect("it was asked for");
            assert_eq!(
                (&settles.replaces, settles.card.issue.0.as_str()),
                (&None, "a"),
                "{name}: there is none to replace"
            );
            let Card { issue, target: of, .. } = settles.card.clone();
            let (verb, by, at) = (Verb::Never, By::Cli, Timestamp::UNIX_EPOCH);
            ledger.decided(Decision { id: 3, issue, target: of, verb, by, at }, &settles);
            ledger.give_back(2);
            assert_eq!(ledger.verdict(&a, &host, &none), Verdict::Never, "{name}");
        }
    }
    let mut ledger = Ledger::new(kept());
    decide(&mut ledger, 1, 2, Verb::Once);
    assert!(ledger.take(2));
    ledger.used_up(2);
    assert_eq!(ledger.ask(&a, &host), Asking::Begin);
    ledger.asked(card(4, "a", "x.example:443"));
    let settles = ledger.settled_by(&Named::parse("x.example").expect("a name"), Verb::Never).expect("it is asked for");
    assert_eq!(settles.answers, [4], "its new card is meant");
}

#[test]
fn a_decision_is_replaced_by_the_number_of_its_card_its_own_or_its_host_and_what_is_unclear_is_asked_back() {
    let (a, host, none) = (IssueId("a".into()), target("x.example:443"), AllowList::default());
    let cards = vec![card(1, "a", "x.example:443"), card(2, "b", "y.example:443"), card(3, "a", "y.example:443")];
    let mut ledger = Ledger::new(Kept { cards, ..Kept::default() });
    decide(&mut ledger, 1, 9, Verb::Issue);
    let named = |text: &str| Named::parse(text).expect("a name");
    for name in ["1", "9", "x.example", "x.example:443"] {
        let settles = ledger.settled_by(&named(name), Verb::Never).expect("it was decided");
        assert_eq!(settles.replaces.as_ref().map(|decision| decision.id), Some(9), "{name}");
    }
    let settles = ledger.settled_by(&named("x.example"), Verb::Never).expect("it was decided");
    let Card { issue, target: of, .. } = settles.card.clone();
    let (verb, by, at) = (Verb::Never, By::Cli, Timestamp::UNIX_EPOCH);
    ledger.decided(Decision { id: 12, issue, target: of, verb, by, at }, &settles);
    assert_eq!((ledger.decisions().count(), ledger.verdict(&a, &host, &none)), (1, Verdict::Never));
    let several = ledger.settled_by(&named("y.example"), Verb::Issue).expect_err("two issues ask");
    assert!(several.to_string().contains("card 2, card 3"), "{several}");
    assert_eq!(ledger.settled_by(&named("y.example"), Verb::Always).expect("all of them").answers, [2, 3]);
    let unasked = ledger.settled_by(&named("z.example"), Verb::Always).expect_err("nobody asked");
    assert_eq!(unasked, NotDecided::Unasked(target("z.example:443")));
    assert!(Named::parse("127.0.0.1").is_err() && Named::parse("not a host").is_err());

    ledger.withdrawn(&[2, 3]);
    assert_eq!(ledger.undecided().map(|card| card.id).collect::<Vec<_>>(), [2, 3]);
    assert!(ledger.settled_by(&named("y.example"), Verb::Always).is_ok(), "it can be allowed for the next time");
    ledger.begun(&a);
    assert_eq!(ledger.undecided().map(|card| card.id).collect::<Vec<_>>(), [2], "its new run asks anew");
}

#[test]
fn made_up_hosts_fill_nothing() {
    let mut ledger = Ledger::default();
    let (mut id, mut begun) = (0, 0);
    for issue in 0..100 {
        let issue = IssueId(format!("i-{issue}"));
        for host in 0..200 {
            let host = target(&format!("h{host}.example:443"));
            if ledger.ask(&issue, &host) == Asking::Begin {
                (id, begun) = (id + 1, begun + 1);
                assert_eq!(ledger.ask(&issue, &host), Asking::Already, "while it is written down");
                ledger.asked(Card { id, issue: issue.clone(), ..card(id, "", &host.to_string()) });
                assert_eq!(ledger.ask(&issue, &host), Asking::Already);
            }
        }
        assert!(ledger.of_issue(&issue).len() <= CARDS_OF_ISSUE);
    }
    assert_eq!((begun, ledger.cards().count()), (CARDS, CARDS));
    assert_eq!(ledger.cards().next().map(|card| card.times), Some(2), "each is counted");
    let first = IssueId("i-0".into());
    let cards = ledger.of_issue(&first);
    ledger.withdrawn(&cards);
    assert_eq!(ledger.ask(&first, &target("new.example:443")), Asking::Begin);
    ledger.not_asked(&first, &target("new.example:443"));
    assert_eq!(ledger.ask(&first, &target("new.example:443")), Asking::Begin, "what could not be kept is asked again");
}

#[test]
fn what_an_agent_reads_says_what_to_do() {
    let said = Denied::Asked(target("x.example:443")).to_string();
    assert_eq!(
        said,
        "symphony: x.example:443 is not in egress.allow; a person was asked; try again later or go on without it"
    );
    assert_eq!(Denied::NoTarget(BadHost::Address).status(), 403);
}

proptest! {
    #[test]
    fn no_text_is_more_than_an_error_and_what_is_read_is_read_again(text in "\\PC{0,80}") {
        if let Ok(read) = Target::parse(&text) {
            prop_assert_eq!(Target::parse(&read.to_string()), Ok(read));
        }
        if let Ok(read) = Entry::parse(&text) {
            prop_assert_eq!(Entry::parse(&read.to_string()), Ok(read));
        }
    }
}
