//! The one ledger of this process and its record in the journal: a request is let go once what it can use is set aside in
//! both, and charged in both when it is over.
//!
//! Owns the clock of the day and the lock around the ledger; what may be used is decided in `symphony_core::spend`. Nothing
//! here waits with the lock held.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use symphony_core::board::ParkReason;
use symphony_core::broker::Metered;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::snapshot::{ModelRow, Spend, Spent};
use symphony_core::spend::{Denied, Ledger, Met, Place, Raise, Raising, Rules, Scope, Standing, Sums, Wanted};
use symphony_core::steering::By;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::journal::{Journal, Memory};

/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Metering(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    journal: Journal,
    zone: TimeZone,
    /// A request ended, or more is allowed: who waits may look again.
    freed: Notify,
}

struct State {
    ledger: Ledger,
    rules: Rules,
    /// Caps that are being raised.
    raising: BTreeSet<Place>,
}

impl std::fmt::Debug for Metering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metering").finish_non_exhaustive()
    }
}

/// Why a request is not sent.
#[derive(Debug)]
pub enum Unmetered {
    /// The budget says so.
    Denied(Denied),
    /// It could not be kept; the text says why.
    Journal(String),
}

/// Why a cap was not raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unraised {
    /// It may not be.
    Refused(Raising),
    /// It could not be kept; the text says why.
    Journal(String),
}

impl Metering {
    /// What earlier processes left, under the rules of the workflow in force. Caps of all issues that issues are parked
    /// for stay met.
    pub fn new(journal: Journal, memory: &Memory, rules: &Rules) -> Self {
        let mut ledger = Ledger::new(memory.spend.clone());
        for parked in memory.parked.values() {
            if let ParkReason::Spend(met) = &parked.reason {
                ledger.remember(*met);
            }
        }
        let state = Mutex::new(State { ledger, rules: rules.clone(), raising: BTreeSet::new() });
        let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
        Self(Arc::new(Inner { state, journal, zone, freed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present day of this machine.
    pub fn today(&self) -> Date {
        self.0.zone.to_datetime(Timestamp::now()).date()
    }

    /// From now on these hold, for runs under way too.
    pub fn follow(&self, rules: &Rules) {
        let mut state = self.state();
        if state.rules != *rules {
            state.rules = rules.clone();
            drop(state);
            self.0.freed.notify_waiters();
        }
    }

    /// The output that is set aside for a request that names no maximum.
    pub fn assumed_output(&self) -> u64 {
        self.state().rules.assumed_output
    }

    /// Sets aside what a request can use, and keeps that. Waits, no longer than `patience`, while it would fit if others,
    /// which are under way, used less than they may.
    ///
    /// # Errors
    /// The request must not be sent.
    pub async fn reserve(&self, wanted: Wanted, patience: Duration) -> Result<Ticket, Unmetered> {
        let mut by_own = false;
        let reserving = async {
            loop {
                // Before the look: what ends between the two is not missed.
                let freed = self.0.freed.notified();
                let reserved = {
                    let state = &mut *self.state();
                    state.ledger.reserve(wanted.clone(), &state.rules)
                };
                match reserved {
                    Err(Denied::Busy { own }) => {
                        by_own = own;
                        freed.await;
                    }
                    other => return other,
                }
            }
        };
        let reserved = tokio::time::timeout(patience, reserving).await.unwrap_or(Err(Denied::Busy { own: by_own }));
        let reservation = reserved.map_err(Unmetered::Denied)?;
        let ticket = Ticket { metering: self.clone(), id: reservation.id, open: true, sent: false };
        let kept = self.0.journal.reserved(reservation).await;
        kept.map(|()| ticket).map_err(|error| Unmetered::Journal(error.to_string()))
    }

    /// A run ends for want of room beside the requests of others: its issue waits for that.
    pub fn crowd_out(&self, wanted: Wanted) {
        self.state().ledger.crowd_out(wanted);
    }

    /// A person allows more, where and as they saw it.
    ///
    /// # Errors
    /// Somebody was faster, there is no such cap, or it could not be kept.
    pub async fn raise(&self, raise: Raise, seen: u64, by: By) -> Result<(), Unraised> {
        {
            let mut state = self.state();
            let may = state.ledger.may_raise(&raise.place, raise.unit, seen, &state.rules.caps);
            may.map_err(Unraised::Refused)?;
            if !state.raising.insert(raise.place.clone()) {
                return Err(Unraised::Refused(Raising::Already));
            }
        }
        let kept = self.0.journal.raised(raise.clone(), by).await;
        let mut state = self.state();
        state.raising.remove(&raise.place);
        kept.map_err(|error| Unraised::Journal(error.to_string()))?;
        state.ledger.raise(raise);
        drop(state);
        self.0.freed.notify_waiters();
        Ok(())
    }

    /// What keeps an issue waiting now that was put aside for `met`; `None`: it goes back by itself.
    pub fn in_the_way(&self, issue: &IssueId, met: &Met) -> Option<Met> {
        let (today, state) = (self.today(), self.state());
        state.ledger.in_the_way(issue, met, today, &state.rules.caps)
    }

    /// Which cap this one is.
    pub fn place_of(&self, issue: &IssueId, met: &Met) -> Place {
        match met.scope {
            Scope::Issue => Place::Issue(issue.clone()),
            Scope::Day => Place::Day(met.day),
            Scope::Workflow => Place::Workflow,
        }
    }

    /// What the scheduler has to know.
    pub fn standing(&self) -> Standing {
        let (today, mut state) = (self.today(), self.state());
        let State { ledger, rules, .. } = &mut *state;
        let crowded_out = ledger.crowded_out(today, rules);
        let caps = &rules.caps;
        Standing {
            today,
            crowded_out,
            caps: ledger.caps(today, caps),
            raised: ledger.raised_issues(caps),
            issues: ledger.used_up(today, caps),
            shut: ledger.shut(today, caps),
            ..Standing::default()
        }
    }

    /// What readers see of all issues.
    pub fn view(&self) -> Spend {
        let (today, state) = (self.today(), self.state());
        let ledger = &state.ledger;
        let row = |(provider, model, today, ever): (&str, &str, _, _)| {
            let (provider, model) = (provider.to_owned(), model.to_owned());
            ModelRow { provider, model, today, ever }
        };
        Spend {
            day: today.to_string(),
            zone: self.0.zone.iana_name().unwrap_or("local").to_owned(),
            today: ledger.day(today),
            ever: ledger.all(),
            caps: ledger.caps(today, &state.rules.caps),
            models: ledger.models(today).map(row).collect(),
        }
    }

    /// Adds what readers see of one issue, and of its live run.
    pub fn tell(&self, spent: &mut Spent, issue: &IssueId, run: Option<RunId>) {
        let state = self.state();
        spent.models = state.ledger.issue(issue);
        spent.cap = state.ledger.cap_of(issue, &state.rules.caps);
        spent.run = run.map(|run| state.ledger.run(run)).unwrap_or_default();
    }

    /// A run is over.
    pub fn forget(&self, run: RunId) {
        self.state().ledger.forget(run);
    }

    fn close(&self, id: u64, charged: Option<Option<&Metered>>) -> Option<Sums> {
        let charged = {
            let State { ledger, rules, .. } = &mut *self.state();
            match charged {
                None => {
                    ledger.release(id);
                    None
                }
                Some(metered) => ledger.settle(id, metered, rules).map(|charged| charged.entry),
            }
        };
        self.0.freed.notify_waiters();
        let sums = charged.as_ref().map(|entry| entry.sums);
        // Where nothing runs any more, the next start charges what was set aside.
        let Ok(runtime) = Handle::try_current() else { return sums };
        let written = self.0.journal.settled(id, charged);
        runtime.spawn(async move {
            if let Err(error) = written.await {
                tracing::error!(%error, "what a request used of a model could not be kept; the next start charges all that was set aside for it");
            }
        });
        sums
    }
}

/// A request whose use is set aside. Dropped, it gives that back, or is charged all of it once it was sent.
pub struct Ticket {
    metering: Metering,
    id: u64,
    open: bool,
    sent: bool,
}

impl Ticket {
    /// From here on its provider may work for it.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Its provider did nothing for it; it may be sent again.
    pub fn refused(&mut self) {
        self.sent = false;
    }

    /// Whether its provider may have worked for it.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    /// It is over, and this was told of it: what was charged. One that was never sent used nothing.
    pub fn settle(mut self, metered: &Metered) -> Option<Sums> {
        if !self.sent {
            return None;
        }
        self.open = false;
        self.metering.close(self.id, Some(Some(metered)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.open = false;
            self.metering.close(self.id, self.sent.then_some(None));
        }
    }
}
