//! A journal that fails, a person who changes their mind: nothing passes meanwhile, and nothing is lost.

use tokio::sync::Notify;

use super::*;

/// Every row of what runs reached finds the disk full, until [`WORKS`].
const FAILS: &str = "CREATE TRIGGER full BEFORE INSERT ON egress_reached BEGIN SELECT raise(ABORT, 'disk full'); END";
const WORKS: &str = "DROP TRIGGER full";

impl House {
    fn journal(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir.path().join("journal.db")).expect("db")
    }

    fn order(&self, sql: &str) {
        self.journal().execute_batch(sql).expect("done");
    }

    /// An agent asks, a person says this.
    async fn told(&self, door: &Door, target: &str, verb: Verb) -> u64 {
        assert_eq!(status(door, target).await, "403");
        let card = self.book.entries().0.iter().find(|card| card.target.to_string() == target).expect("a card").id;
        self.book.decide(card, verb, By::Api).await.expect("taken").id
    }
}

async fn status(door: &Door, target: &str) -> String {
    connect(door, target).await.1[9..12].to_owned()
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_lets_nothing_pass_at_the_second_try_either() {
    let house = House::new().await;
    let door = house.door(1, "a", &["good.example"]);
    house.order(FAILS);
    for _ in 0..3 {
        let (_, said) = connect(&door, "good.example:443").await;
        assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("journal cannot be written"), "{said}");
    }
    let both = tokio::join!(status(&door, "good.example:443"), status(&door, "good.example:443"));
    assert_eq!(both, ("503".into(), "503".into()), "at the same time");
    assert_eq!(house.book.reach_of(RunId(1)).connections, 0, "none of them passed");
    house.order(WORKS);
    assert_eq!(status(&door, "good.example:443").await, "200", "the same door, once it can be written");
    house.order(FAILS);
    assert_eq!(status(&door, "good.example:443").await, "200", "its rule is in the journal");
    house.order(WORKS);
    door.close().await;
    let row = "SELECT rule || ' ' || connections || ' ' || denied FROM egress_reached";
    assert_eq!(house.rows(row), ["egress.allow: good.example 2 5"]);
    house.is_whole();
}

#[tokio::test]
async fn a_second_connection_by_a_rule_waits_until_the_journal_has_the_first() {
    let house = House::new().await;
    let door = house.door(1, "a", &["good.example"]);
    let held = house.journal();
    held.execute_batch("BEGIN IMMEDIATE").expect("held");
    let call = || {
        let door = door.clone();
        tokio::spawn(async move { status(&door, "good.example:443").await })
    };
    let (first, second) = (call(), call());
    while house.book.reach_of(RunId(1)).connections < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!first.is_finished() && !second.is_finished(), "nothing is written");
    }
    held.execute_batch("COMMIT").expect("let go");
    assert_eq!((first.await.expect("ended"), second.await.expect("ended")), ("200".into(), "200".into()));
}

#[tokio::test]
async fn a_decision_of_once_stands_when_its_connection_could_not_be_kept() {
    let house = House::new().await;
    let door = house.door(1, "a", &[]);
    let id = house.told(&door, "once.example:443", Verb::Once).await;
    house.order(FAILS);
    assert_eq!(status(&door, "once.example:443").await, "503");
    assert_eq!(house.book.entries().1.iter().map(|decision| decision.id).collect::<Vec<_>>(), [id]);
    assert_eq!(house.rows("SELECT '' || id FROM egress_decided"), [id.to_string()], "nor did the journal forget it");
    house.order(WORKS);
    assert_eq!(status(&door, "once.example:443").await, "200");
    assert_eq!(status(&door, "once.example:443").await, "403", "and it was for one");
    door.close().await;
    house.is_whole();
}

/// Calls when it is told to.
struct Slow(Here, Arc<Notify>, Arc<Notify>);

impl Dial for Slow {
    fn dial<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(TcpStream, IpAddr), Denied>> {
        Box::pin(async move {
            self.1.notify_one();
            self.2.notified().await;
            self.0.dial(target).await
        })
    }
}

#[tokio::test]
async fn a_decision_that_is_taken_back_while_its_host_is_called_lets_nothing_pass() {
    let mut house = House::new().await;
    let (calls, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let here = Here(house.server.local_addr().expect("bound"));
    house.egress = Egress::new(house.book.clone(), Arc::new(Slow(here, calls.clone(), go.clone())));
    let (door, other) = (house.door(1, "a", &[]), house.door(2, "b", &[]));
    for (target, verb, never) in [
        ("always.example:443", Verb::Always, false),
        ("issue.example:443", Verb::Issue, false),
        ("once.example:443", Verb::Once, false),
        ("never.example:443", Verb::Issue, true),
    ] {
        let id = house.told(&door, target, verb).await;
        let change = async {
            calls.notified().await;
            match never {
                false => drop(house.book.forget(id).await.expect("taken back")),
                true => drop(house.told(&other, target, Verb::Never).await),
            }
            go.notify_one();
        };
        let ((_, said), ()) = tokio::join!(connect(&door, target), change);
        let why = if never { "never to be reached" } else { "a person was asked" };
        assert!(said.starts_with("HTTP/1.1 403 ") && said.contains(why), "{said}");
    }
    assert_eq!(house.book.reach_of(RunId(1)).connections, 0);
    door.close().await;
    house.is_whole();
}
