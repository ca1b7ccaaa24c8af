//! The book of hosts of this process: what waits for a person's word, what was said, and what each run reached. The journal has
//! all of it first; what stands here is its copy, with the counts that are not written yet.
//!
//! Nothing is reached, and nothing counts as decided, before the journal holds it.

mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use symphony_core::egress::{
    AllowList, Asking, Card, Decision, Denied, Kept, Ledger, Named, NotDecided, Reach, Rule, Settles, Target, Verb,
    Verdict,
};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::steering::By;
use tokio::sync::watch;

pub use self::tally::{Counts, Tally};
use crate::journal::{Journal, JournalError, Reached};

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Book(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    journal: Journal,
    ledger: Mutex<Ledger>,
    /// One decision at a time: the second of two finds that the first was taken.
    deciding: tokio::sync::Mutex<()>,
    /// What live runs reached.
    live: Mutex<BTreeMap<RunId, Arc<Tally>>>,
    changes: watch::Sender<u64>,
}

/// Why a person's word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is nothing to decide.
    #[error(transparent)]
    Not(#[from] NotDecided),
    /// The journal could not keep it.
    #[error("what you decided could not be stored: {0}")]
    NotStored(#[from] JournalError),
}

/// One run's part of the book, until it is dropped.
#[derive(Debug)]
pub struct Page(Record);

/// What a page writes, which goes on where nobody waits for it.
#[derive(Clone, Debug)]
struct Record {
    book: Book,
    run: RunId,
    issue: IssueId,
    tally: Arc<Tally>,
}

impl Book {
    /// With what earlier processes kept.
    pub fn new(journal: Journal, kept: Kept) -> Self {
        Self(Arc::new(Shared {
            journal,
            ledger: Mutex::new(Ledger::new(kept)),
            deciding: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            changes: watch::channel(0).0,
        }))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<RunId, Arc<Tally>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    /// Wakes when there is something new to show.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What agents of finished issues asked for in vain.
    pub fn undecided(&self) -> Vec<Card> {
        self.ledger().undecided().cloned().collect()
    }

    /// Cards that wait and decisions that hold, oldest first.
    pub fn entries(&self) -> (Vec<Card>, Vec<Decision>) {
        let ledger = self.ledger();
        (ledger.cards().cloned().collect(), ledger.decisions().cloned().collect())
    }

    /// What a live run reached so far.
    pub fn reach_of(&self, run: RunId) -> Reach {
        self.live().get(&run).map(|tally| tally.reach()).unwrap_or_default()
    }

    /// A run's page, until it is dropped.
    pub fn open(&self, run: RunId, issue: IssueId) -> Page {
        let tally = Arc::new(Tally::default());
        self.live().insert(run, tally.clone());
        self.ledger().begun(&issue);
        Page(Record { book: self.clone(), run, issue, tally })
    }

    /// Takes a person's word about a card: the first one counts.
    ///
    /// # Errors
    /// Somebody was faster, or it could not be kept: then the card waits as before.
    pub async fn decide(&self, card: u64, verb: Verb, by: By) -> Result<Decision, DecideError> {
        self.settle(|ledger| ledger.answered_by(card, verb), verb, by).await
    }

    /// Takes a person's word about a card or a host, in place of what was decided before.
    ///
    /// # Errors
    /// Nothing, or nothing definite, is meant; or it could not be kept: then all is as before.
    pub async fn redecide(&self, named: &Named, verb: Verb, by: By) -> Result<Decision, DecideError> {
        self.settle(|ledger| ledger.settled_by(named, verb), verb, by).await
    }

    async fn settle(
        &self,
        find: impl FnOnce(&Ledger) -> Result<Settles, NotDecided>,
        verb: Verb,
        by: By,
    ) -> Result<Decision, DecideError> {
        let _turn = self.0.deciding.lock().await;
        let settles = {
            let mut ledger = self.ledger();
            let settles = find(&ledger)?;
            // Either it is used up or replaced.
            let once = settles.replaces.as_ref().filter(|decision| decision.verb == Verb::Once);
            if once.is_some_and(|decision| !ledger.take(decision.id)) {
                return Err(NotDecided::NoDecision.into());
            }
            settles
        };
        let kept = self.0.journal.egress_decided(settles.clone(), verb, by).await;
        match (&kept, &settles.replaces) {
            (Ok(decision), _) => self.ledger().decided(decision.clone(), &settles),
            (Err(_), Some(replaced)) => self.ledger().give_back(replaced.id),
            (Err(_), None) => {}
        }
        self.changed();
        Ok(kept?)
    }

    /// Takes a decision back. Connections that are open go on.
    ///
    /// # Errors
    /// It holds no longer, or that could not be kept.
    pub async fn forget(&self, id: u64) -> Result<Decision, DecideError> {
        let _turn = self.0.deciding.lock().await;
        let decision = {
            let mut ledger = self.ledger();
            let decision = ledger.decision(id)?.clone();
            // Either it is used up or taken back.
            if decision.verb == Verb::Once && !ledger.take(id) {
                return Err(NotDecided::NoDecision.into());
            }
            decision
        };
        let kept = self.0.journal.egress_forgotten(decision.clone()).await;
        match &kept {
            Ok(()) => self.ledger().forgotten(id),
            Err(_) => self.ledger().give_back(id),
        }
        kept?;
        self.changed();
        Ok(decision)
    }

    /// Nobody works on the issue any more: what its agents asked for waits no longer.
    ///
    /// # Errors
    /// That could not be kept.
    pub async fn withdraw(&self, issue: &IssueId) -> Result<(), JournalError> {
        let _turn = self.0.deciding.lock().await;
        let cards = self.ledger().of_issue(issue);
        if cards.is_empty() {
            return Ok(());
        }
        self.0.journal.egress_withdrawn(issue.clone(), cards.clone()).await?;
        self.ledger().withdrawn(&cards);
        self.changed();
        Ok(())
    }
}

impl Page {
    /// By which rule the run may reach `target`.
    ///
    /// # Errors
    /// Why it may not; a person was asked, where nobody has decided yet.
    pub async fn rule(&self, target: &Target, allow: &AllowList) -> Result<Rule, Denied> {
        let verdict = self.0.book.ledger().verdict(&self.0.issue, target, allow);
        match verdict {
            Verdict::Pass(rule) => Ok(rule),
            Verdict::Never => Err(Denied::Never(target.clone())),
            Verdict::Ask => Err(self.ask(target).await),
        }
    }

    async fn ask(&self, target: &Target) -> Denied {
        let asking = self.0.book.ledger().ask(&self.0.issue, target);
        match asking {
            Asking::Full => Denied::Crowded(target.clone()),
            Asking::Already => {
                self.0.book.changed();
                Denied::Asked(target.clone())
            }
            Asking::Begin => {
                // On a task of its own: an agent that hangs up meanwhile would leave a card that nobody finds.
                let (book, run, issue, target) =
                    (self.0.book.clone(), self.0.run, self.0.issue.clone(), target.clone());
                let asked = tokio::spawn(async move {
                    match book.0.journal.egress_asked(run, issue.clone(), target.clone()).await {
                        Ok(card) => {
                            book.ledger().asked(card);
                            book.changed();
                            Denied::Asked(target)
                        }
                        Err(error) => {
                            book.ledger().not_asked(&issue, &target);
                            tracing::error!(issue_id = %issue, %target, %error, "nobody could be asked about a host");
                            Denied::NotKept(target)
                        }
                    }
                });
                asked.await.unwrap_or(Denied::Over)
            }
        }
    }

    /// A connection to `target` is about to be used, by which rule. The journal holds that before it returns, and that a
    /// decision of `once` is used up. Whether it may is asked again: a person may have taken it back during the call.
    ///
    /// # Errors
    /// It could not be kept, or nobody allows it any more: then nothing may pass.
    pub async fn passes(
        &self,
        target: &Target,
        allow: &AllowList,
        address: std::net::IpAddr,
    ) -> Result<(Rule, Arc<Counts>), Denied> {
        let rule = self.rule(target, allow).await?;
        let once = match rule {
            Rule::Decided(Verb::Once, id) => {
                let taken = {
                    let mut ledger = self.0.book.ledger();
                    ledger.decision(id).ok().cloned().filter(|_| ledger.take(id))
                };
                let Some(decision) = taken else { return Err(self.ask(target).await) };
                Some(decision)
            }
            _ => None,
        };
        let (counts, is_kept) = self.0.tally.passed(target, &rule, address);
        if !is_kept || once.is_some() {
            // On a task of its own: whether it is kept, and a decision used up, must not depend on who waits for it.
            let (record, target, rule) = (self.0.clone(), target.clone(), rule.clone());
            tokio::spawn(async move { record.passage(target, rule, once).await }).await.unwrap_or(Err(Denied::Over))?;
        }
        let verdict = self.0.book.ledger().verdict(&self.0.issue, target, allow);
        let is_used = matches!(rule, Rule::Decided(Verb::Once, _));
        let denied = match verdict {
            Verdict::Never => Denied::Never(target.clone()),
            Verdict::Ask if !is_used => self.ask(target).await,
            Verdict::Pass(_) | Verdict::Ask => {
                self.0.book.changed();
                return Ok((rule, counts));
            }
        };
        self.0.tally.not_passed(target);
        Err(denied)
    }

    /// Ends when a person says never about `target`; the workflow's list stands above that.
    pub async fn forbidden(&self, target: &Target, allow: &AllowList) {
        let mut changes = self.0.book.changes();
        // Its own changes are seen, too: what was said before this was called counts.
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            if self.0.book.ledger().verdict(&self.0.issue, target, allow) == Verdict::Never {
                return;
            }
        }
        std::future::pending().await
    }

    /// A request was refused, or its connection cut. What is new is written at once, repetitions with the next counts.
    pub async fn denied(&self, target: Option<&Target>, why: &Denied) {
        let is_new = self.0.tally.denied(target, why);
        self.0.book.changed();
        if is_new {
            self.write().await;
        }
    }

    /// Writes down the counts that changed since they were written last.
    pub async fn write(&self) {
        let record = &self.0;
        let _turn = record.tally.writing.lock().await;
        record.keep(record.tally.changed(), None).await;
    }
}

impl Record {
    /// Keeps that a connection passes, unless the journal has it already, and that it uses a decision up: both or neither.
    async fn passage(self, target: Target, rule: Rule, once: Option<Decision>) -> Result<(), Denied> {
        let _turn = self.tally.writing.lock().await;
        let id = once.as_ref().map(|decision| decision.id);
        let is_kept = self.keep(self.tally.missing(&target, &rule), once).await;
        if let Some(id) = id {
            match is_kept {
                true => self.book.ledger().used_up(id),
                false => self.book.ledger().give_back(id),
            }
        }
        self.book.changed();
        match is_kept {
            true => Ok(()),
            false => {
                self.tally.not_passed(&target);
                Err(Denied::NotKept(target))
            }
        }
    }

    /// Whether these are in the journal. Only in its turn.
    async fn keep(&self, rows: Vec<Reached>, used: Option<Decision>) -> bool {
        if rows.is_empty() && used.is_none() {
            return true;
        }
        let kept = self.book.0.journal.egress_reached(self.run, self.issue.clone(), rows.clone(), used).await;
        match &kept {
            Ok(()) => self.tally.written(rows),
            Err(error) => {
                tracing::error!(issue_id = %self.issue, run_id = self.run.0, %error, "what a run reached could not be kept");
            }
        }
        self.book.changed();
        kept.is_ok()
    }
}

impl Drop for Page {
    /// The run is over, however it ended: what is not written yet is queued, and shown no longer.
    fn drop(&mut self) {
        let Record { book, run, issue, tally, .. } = &self.0;
        book.live().remove(run);
        let rows = tally.changed();
        // The journal writes on a thread of the runtime; a process that ends has none.
        if !rows.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            drop(book.0.journal.egress_reached(*run, issue.clone(), rows, None));
        }
    }
}
