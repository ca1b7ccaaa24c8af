//! The ledger: what was used, and what requests under way may still use. A request is let go only when the most that it
//! can use fits below every cap beside what others may still use, so no cap is passed while that bound holds.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use super::{Cap, Caps, Entry, Met, Past, Place, Price, Prices, Raise, Rules, Scope, Sums, Unit};
use crate::broker::{Metered, Most, Provider, Usage};
use crate::ids::{IssueId, RunId};
use crate::money::Money;

/// Names of models that are told apart beside those of the workflow. Providers tell them, and some repeat what an agent
/// invents.
const MODELS_MAX: usize = 200;
/// What stands for all others.
const OTHERS: &str = "(others)";

const SCOPES: [Scope; 3] = [Scope::Issue, Scope::Day, Scope::Workflow];
const UNITS: [Unit; 2] = [Unit::Tokens, Unit::Money];

/// A request that wants to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Whose.
    pub run: RunId,
    /// For which issue.
    pub issue: IssueId,
    /// On which day.
    pub day: Date,
    /// To whom.
    pub provider: Provider,
    /// The model that is asked.
    pub model: String,
    /// The unusual tier that is asked for.
    pub tier: Option<String>,
    /// What it can use at most.
    pub most: Most,
}

/// A request that may be sent: what it can use is set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// Its number in this process.
    pub id: u64,
    /// What was wanted.
    pub of: Wanted,
    /// What it can cost at most; `None`: it has no price.
    pub cost: Option<Money>,
    /// The model it is charged to when nobody says which one answered: the one that is asked, if that is no invention.
    pub model: String,
}

impl Reservation {
    fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.of.most.tokens(),
            Unit::Money => self.cost.unwrap_or_default().0,
        }
    }

    /// What is charged for it when nobody says what it used.
    pub fn assumed(&self) -> Entry {
        let Wanted { issue, day, provider, most, .. } = self.of.clone();
        let used = Usage { input: most.input, output: most.output, ..Usage::default() };
        let cost = self.cost.unwrap_or_default();
        let unpriced = if self.cost.is_none() { most.tokens() } else { 0 };
        let sums = Sums { requests: 1, used, cost, unpriced, assumed: most.tokens() };
        Entry { day, issue, provider: provider.name().to_owned(), model: self.model.clone(), sums }
    }
}

/// Why a request may not be sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Denied {
    /// Money is counted, and nobody knows what this costs.
    Unpriced(String),
    /// Money is counted, it asks for a longer context than is usual, and nobody knows what that costs.
    NoLongPrice(String),
    /// It does not fit.
    Met(Met),
    /// It would fit if requests that are under way used less than they may: ask again when one has ended.
    Busy {
        /// Whether those of its own run alone leave no room.
        own: bool,
    },
}

/// A request that was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// What.
    pub entry: Entry,
    /// For which run.
    pub run: RunId,
}

/// Why a cap cannot be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raising {
    /// It is more than was seen: somebody was faster.
    Already,
    /// There is no such cap.
    NoCap,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Day {
    all: Sums,
    models: BTreeMap<(String, String), Sums>,
}

/// All of it. One owner, no synchronisation.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    next: u64,
    open: BTreeMap<u64, Reservation>,
    all: Sums,
    issues: BTreeMap<IssueId, Sums>,
    days: BTreeMap<Date, Day>,
    models: BTreeMap<(String, String), Sums>,
    /// Of runs that live.
    runs: BTreeMap<RunId, Sums>,
    raised: BTreeMap<(Place, Unit), u64>,
    /// Caps of all issues that a request met.
    met: Vec<Met>,
    /// Issues that went away for want of room, with what they wanted.
    crowded_out: BTreeMap<IssueId, Wanted>,
}

impl Ledger {
    /// What earlier processes left; what they had under way was charged when the journal was opened.
    pub fn new(past: Past) -> Self {
        let mut ledger = Self::default();
        for entry in &past.entries {
            ledger.add(entry);
        }
        for raise in past.raises {
            ledger.raise(raise);
        }
        ledger
    }

    /// Sets aside what a request can use at most.
    ///
    /// # Errors
    /// It may not be sent.
    pub fn reserve(&mut self, wanted: Wanted, rules: &Rules) -> Result<Reservation, Denied> {
        let price = rules.prices.of(&wanted.model, wanted.tier.as_deref());
        if rules.caps.count_money() && price.is_none() {
            let tier = wanted.tier.as_deref().map(|tier| format!(" {tier}")).unwrap_or_default();
            return Err(Denied::Unpriced(format!("{}{tier}", wanted.model)));
        }
        let is_known = price.is_some_and(|price| price.long.is_some());
        if rules.caps.count_money() && wanted.most.is_long && !is_known {
            return Err(Denied::NoLongPrice(wanted.model));
        }
        let cost = price.as_ref().map(|price| price.most(wanted.most));
        let model = self.called(wanted.provider, &wanted.model, rules);
        let reservation = Reservation { id: self.next.saturating_add(1), of: wanted, cost, model };
        if let Err(denied) = self.fits(&reservation, price.as_ref(), rules) {
            if let Denied::Met(met) = denied {
                self.remember(met);
            }
            return Err(denied);
        }
        self.next = reservation.id;
        self.open.insert(reservation.id, reservation.clone());
        self.runs.entry(reservation.of.run).or_default();
        self.crowded_out.remove(&reservation.of.issue);
        Ok(reservation)
    }

    /// What a model that nobody answered for is called: by its name where the workflow or an answer before told it. An agent
    /// could fill the table with inventions otherwise, and hang up on each.
    fn called(&self, provider: Provider, model: &str, rules: &Rules) -> String {
        let is_known = rules.names(model) || self.models.contains_key(&(provider.name().to_owned(), model.to_owned()));
        if is_known { model } else { OTHERS }.to_owned()
    }

    /// Whether there is room for it now.
    fn fits(&self, reservation: &Reservation, price: Option<&Price>, rules: &Rules) -> Result<(), Denied> {
        let (mut is_busy, mut own) = (false, false);
        for (scope, unit) in SCOPES.into_iter().flat_map(|scope| UNITS.map(|unit| (scope, unit))) {
            let place = place(scope, &reservation.of.issue, reservation.of.day);
            let Some(allowed) = self.allowed(&place, unit, &rules.caps) else { continue };
            let (used, asked) = (self.used(&place).of(unit), reservation.of(unit));
            if used.saturating_add(asked) > allowed {
                let most = reservation.of.most;
                let answer = match unit {
                    Unit::Tokens => most.output,
                    Unit::Money => price.map_or(0, |price| price.longest_answer(most).0),
                };
                return Err(Denied::Met(Met { scope, unit, day: reservation.of.day, used, asked, answer, allowed }));
            }
            let held = |open: &&Reservation| is_in(&place, &open.of);
            let sum = |held: u64, open: &Reservation| held.saturating_add(open.of(unit));
            let of_all = self.open.values().filter(held).fold(0, sum);
            let is_own = |open: &&Reservation| open.of.run == reservation.of.run;
            let of_own = self.open.values().filter(held).filter(is_own).fold(0, sum);
            let is_full = |held: u64| used.saturating_add(asked).saturating_add(held) > allowed;
            (is_busy, own) = (is_busy || is_full(of_all), own || is_full(of_own));
        }
        if is_busy { Err(Denied::Busy { own }) } else { Ok(()) }
    }

    /// A run ends because requests of others leave no room for this one.
    pub fn crowd_out(&mut self, wanted: Wanted) {
        self.crowded_out.insert(wanted.issue.clone(), wanted);
    }

    /// Issues that went away so, and for which there is still no room. One for which there is, or for which a wait would
    /// bring none, is forgotten.
    pub fn crowded_out(&mut self, today: Date, rules: &Rules) -> BTreeSet<IssueId> {
        let mut waiting = std::mem::take(&mut self.crowded_out);
        waiting.retain(|_, wanted| {
            wanted.day = today;
            let price = rules.prices.of(&wanted.model, wanted.tier.as_deref());
            let cost = price.as_ref().map(|price| price.most(wanted.most));
            let asked = Reservation { id: 0, of: wanted.clone(), cost, model: String::new() };
            matches!(self.fits(&asked, price.as_ref(), rules), Err(Denied::Busy { .. }))
        });
        self.crowded_out = waiting;
        self.crowded_out.keys().cloned().collect()
    }

    /// A request is over: it is charged what its provider told, or else what was set aside for it.
    pub fn settle(&mut self, id: u64, metered: Option<&Metered>, rules: &Rules) -> Option<Charged> {
        let mut reservation = self.open.remove(&id)?;
        let told = metered.filter(|metered| metered.whole).and_then(|metered| Some((metered, metered.usage?)));
        let mut entry = match told {
            None => {
                // An answer to another one may have told it meanwhile.
                reservation.model = self.called(reservation.of.provider, &reservation.of.model, rules);
                reservation.assumed()
            }
            Some((metered, usage)) => told_entry(&reservation, metered, usage, &rules.prices),
        };
        let key = (entry.provider.clone(), entry.model.clone());
        let is_full = || self.models.keys().filter(|(_, model)| !rules.names(model)).count() >= MODELS_MAX;
        if !self.models.contains_key(&key) && !rules.names(&entry.model) && is_full() {
            OTHERS.clone_into(&mut entry.model);
        }
        self.add(&entry);
        // One that came too late for its run is its issue's alone.
        if let Some(sums) = self.runs.get_mut(&reservation.of.run) {
            sums.add(&entry.sums);
        }
        Some(Charged { entry, run: reservation.of.run })
    }

    /// A request was never sent, or its provider did nothing for it.
    pub fn release(&mut self, id: u64) -> bool {
        self.open.remove(&id).is_some()
    }

    /// A run is over: its own sums are of no more interest.
    pub fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
    }

    fn add(&mut self, entry: &Entry) {
        let key = (entry.provider.clone(), entry.model.clone());
        self.all.add(&entry.sums);
        self.issues.entry(entry.issue.clone()).or_default().add(&entry.sums);
        let day = self.days.entry(entry.day).or_default();
        day.all.add(&entry.sums);
        day.models.entry(key.clone()).or_default().add(&entry.sums);
        self.models.entry(key).or_default().add(&entry.sums);
    }

    /// A person allows more.
    pub fn raise(&mut self, raise: Raise) {
        let sum = self.raised.entry((raise.place, raise.unit)).or_default();
        *sum = sum.saturating_add(raise.by);
    }

    /// Whether a cap may be raised that somebody saw at `seen`.
    ///
    /// # Errors
    /// It may not.
    pub fn may_raise(&self, place: &Place, unit: Unit, seen: u64, caps: &Caps) -> Result<(), Raising> {
        match self.allowed(place, unit, caps) {
            None => Err(Raising::NoCap),
            Some(allowed) if allowed <= seen => Ok(()),
            Some(_) => Err(Raising::Already),
        }
    }

    /// The cap that keeps an issue waiting which was put aside for `met`, as it is now: that one while it has no room for
    /// the request that did not fit, else any that leaves the issue nothing. `None`: it goes back by itself.
    pub fn in_the_way(&self, issue: &IssueId, met: &Met, today: Date, caps: &Caps) -> Option<Met> {
        let place = place_of(met, issue);
        let is_past = met.scope == Scope::Day && met.day != today;
        let allowed = self.allowed(&place, met.unit, caps).filter(|_| !is_past);
        let now = allowed.map(|allowed| Met { allowed, used: self.used(&place).of(met.unit).max(met.used), ..*met });
        let others = [Place::Issue(issue.clone()), Place::Workflow, Place::Day(today)];
        // One whose issue could not be brought back waits for the next change of it.
        now.filter(|now| now.lacks() > 0 || now.allowed <= met.allowed)
            .or_else(|| others.iter().find_map(|place| self.nothing_left(place, today, caps)))
            .or_else(|| {
                let met = self.shut(today, caps)?;
                let allowed = self.allowed(&place_of(&met, issue), met.unit, caps)?;
                Some(Met { allowed, ..met })
            })
    }

    /// A cap of all issues that was met stays met until it is raised or its day is over, once at most a tenth of it is
    /// left. Before that only the issue whose request does not fit is put aside: an agent that asks for too much at once
    /// must not stop the others.
    pub fn remember(&mut self, met: Met) {
        let little_left = met.allowed.saturating_sub(met.used) <= met.allowed / 10;
        if met.scope != Scope::Issue && little_left {
            self.met.retain(|other| (other.scope, other.unit) != (met.scope, met.unit));
            self.met.push(met);
        }
    }

    fn allowed(&self, place: &Place, unit: Unit, caps: &Caps) -> Option<u64> {
        let allowed = caps.of(scope(place)).of(unit)?;
        let more = self.raised.get(&(place.clone(), unit)).copied().unwrap_or(0);
        Some(allowed.saturating_add(more))
    }

    fn cap(&self, place: &Place, caps: &Caps) -> Cap {
        let of = |unit| self.allowed(place, unit, caps);
        Cap { tokens: of(Unit::Tokens), money: of(Unit::Money).map(Money) }
    }

    fn used(&self, place: &Place) -> Sums {
        match place {
            Place::Issue(issue) => self.issue(issue),
            Place::Day(day) => self.day(*day),
            Place::Workflow => self.all,
        }
    }

    /// Of one issue.
    pub fn issue(&self, issue: &IssueId) -> Sums {
        self.issues.get(issue).copied().unwrap_or_default()
    }

    /// What one issue may use.
    pub fn cap_of(&self, issue: &IssueId, caps: &Caps) -> Cap {
        self.cap(&Place::Issue(issue.clone()), caps)
    }

    /// Of one run that lives.
    pub fn run(&self, run: RunId) -> Sums {
        self.runs.get(&run).copied().unwrap_or_default()
    }

    /// Of one day.
    pub fn day(&self, day: Date) -> Sums {
        self.days.get(&day).map(|day| day.all).unwrap_or_default()
    }

    /// Of everything.
    pub fn all(&self) -> Sums {
        self.all
    }

    /// By provider and model: on this day, and ever.
    pub fn models(&self, day: Date) -> impl Iterator<Item = (&str, &str, Sums, Sums)> {
        let of_day = self.days.get(&day);
        self.models.iter().map(move |(key, ever)| {
            let today = of_day.and_then(|day| day.models.get(key)).copied().unwrap_or_default();
            (key.0.as_str(), key.1.as_str(), today, *ever)
        })
    }

    /// What may be used today: of the day and the workflow with what people added.
    pub fn caps(&self, today: Date, caps: &Caps) -> Caps {
        Caps { issue: caps.issue, day: self.cap(&Place::Day(today), caps), workflow: self.cap(&Place::Workflow, caps) }
    }

    /// Issues to which people added something, with what they may use.
    pub fn raised_issues(&self, caps: &Caps) -> BTreeMap<IssueId, Cap> {
        let places = self.raised.keys().map(|(place, _)| place);
        let issues = places.filter_map(|place| if let Place::Issue(issue) = place { Some(issue) } else { None });
        issues.map(|issue| (issue.clone(), self.cap_of(issue, caps))).collect()
    }

    /// Issues that have nothing left.
    pub fn used_up(&self, today: Date, caps: &Caps) -> BTreeMap<IssueId, Met> {
        let met = |(issue, _): (&IssueId, &Sums)| {
            Some((issue.clone(), self.nothing_left(&Place::Issue(issue.clone()), today, caps)?))
        };
        self.issues.iter().filter_map(met).collect()
    }

    /// The day's or the workflow's budget, if it is met.
    pub fn shut(&self, today: Date, caps: &Caps) -> Option<Met> {
        let in_force = |met: &&Met| {
            let place = place(met.scope, &IssueId(String::new()), met.day);
            let of_today = met.scope != Scope::Day || met.day == today;
            of_today && self.allowed(&place, met.unit, caps).is_some_and(|allowed| allowed <= met.allowed)
        };
        // The lasting one first.
        [Place::Workflow, Place::Day(today)].iter().find_map(|place| {
            let asked = self.met.iter().filter(|met| met.scope == scope(place)).find(in_force).copied();
            asked.or_else(|| self.nothing_left(place, today, caps))
        })
    }

    fn nothing_left(&self, place: &Place, day: Date, caps: &Caps) -> Option<Met> {
        UNITS.into_iter().find_map(|unit| {
            let (allowed, used) = (self.allowed(place, unit, caps)?, self.used(place).of(unit));
            (used >= allowed).then(|| Met { scope: scope(place), unit, day, used, asked: 0, answer: 0, allowed })
        })
    }
}

/// What an answer says that it used. Its model's price, or else that of the model that was asked; one of an unusual tier
/// without a price of its own is charged as usual, and said to have none.
fn told_entry(reservation: &Reservation, metered: &Metered, usage: Usage, prices: &Prices) -> Entry {
    let of = |tier: Option<&str>| prices.of(&metered.model, tier).or_else(|| prices.of(&reservation.of.model, tier));
    let own = of(metered.tier.as_deref());
    let price = own.or_else(|| of(None));
    // Sums do not tell it apart.
    let used = Usage { cache_write_1h: None, ..usage };
    let mut sums = Sums { requests: 1, used, ..Sums::default() };
    let asked = reservation.of.most.writes;
    sums.cost = price.map(|price| price.cost(&usage, asked)).unwrap_or_default();
    sums.unpriced = if own.is_none() { sums.tokens() } else { 0 };
    Entry {
        day: reservation.of.day,
        issue: reservation.of.issue.clone(),
        provider: metered.provider.name().to_owned(),
        model: metered.model.clone(),
        sums,
    }
}

fn scope(place: &Place) -> Scope {
    match place {
        Place::Issue(_) => Scope::Issue,
        Place::Day(_) => Scope::Day,
        Place::Workflow => Scope::Workflow,
    }
}

fn place(scope: Scope, issue: &IssueId, day: Date) -> Place {
    match scope {
        Scope::Issue => Place::Issue(issue.clone()),
        Scope::Day => Place::Day(day),
        Scope::Workflow => Place::Workflow,
    }
}

fn place_of(met: &Met, issue: &IssueId) -> Place {
    place(met.scope, issue, met.day)
}

fn is_in(place: &Place, wanted: &Wanted) -> bool {
    match place {
        Place::Issue(issue) => wanted.issue == *issue,
        Place::Day(day) => wanted.day == *day,
        Place::Workflow => true,
    }
}
