//! Tokens and money: what was used, what may be used, and what a cap that was met says.
//!
//! Owns the counting rules and their words. Who asks, and where it is kept, are others' business.

mod ledger;
mod prices;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;

use crate::broker::Usage;
use crate::ids::{IssueId, StateName};
use crate::money::Money;

pub use ledger::{Charged, Denied, Ledger, Raising, Reservation, Wanted};
pub use prices::{Price, Prices, Rates};
pub use words::Amount;

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One issue's, over all its runs.
    Issue,
    /// One calendar day's, of all issues.
    Day,
    /// The workflow's, of all issues and days.
    Workflow,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Tokens, given, written and cached alike.
    Tokens,
    /// Nano-dollars.
    Money,
}

/// A budget's bounds; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// In tokens.
    pub tokens: Option<u64>,
    /// In money.
    pub money: Option<Money>,
}

impl Cap {
    /// In this unit.
    pub fn of(&self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Money => self.money.map(|money| money.0),
        }
    }
}

/// All budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// `budget.tokens`, `budget.usd`
    pub issue: Cap,
    /// `budget.day.*`
    pub day: Cap,
    /// `budget.workflow.*`
    pub workflow: Cap,
}

impl Caps {
    /// That of one scope.
    pub fn of(&self, scope: Scope) -> &Cap {
        match scope {
            Scope::Issue => &self.issue,
            Scope::Day => &self.day,
            Scope::Workflow => &self.workflow,
        }
    }

    /// Whether any of them counts money: then nothing without a price may be asked.
    pub fn count_money(&self) -> bool {
        [self.issue, self.day, self.workflow].iter().any(|cap| cap.money.is_some())
    }
}

/// What the workflow says about spending.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `budget.*`
    pub caps: Caps,
    /// `prices`
    pub prices: Prices,
    /// `budget.assumed_output_tokens`: the output of a request that names no maximum.
    pub assumed_output: u64,
    /// `acp.model` and `states.*.model`: what the workflow has its agents ask.
    pub models: BTreeSet<String>,
}

impl Default for Rules {
    fn default() -> Self {
        let (caps, prices, models) = Default::default();
        Self { caps, prices, assumed_output: Self::ASSUMED_OUTPUT, models }
    }
}

impl Rules {
    /// The default of `budget.assumed_output_tokens`.
    pub const ASSUMED_OUTPUT: u64 = 128_000;

    /// Whether the workflow names this model in full: always told apart, whatever else agents invent.
    pub fn names(&self, model: &str) -> bool {
        self.models.contains(model) || self.prices.names(model)
    }
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests that were charged.
    pub requests: u64,
    /// Their tokens.
    pub used: Usage,
    /// What those cost that have a price.
    pub cost: Money,
    /// Tokens without a price, or of a tier that has none of its own.
    pub unpriced: u64,
    /// Tokens that no provider told of: reserved for an answer that was cut, or came without a usage record.
    pub assumed: u64,
}

impl Sums {
    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.used.given().saturating_add(self.used.output)
    }

    /// In this unit.
    pub fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens(),
            Unit::Money => self.cost.0,
        }
    }

    /// Adds another use to this one.
    pub fn add(&mut self, more: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.requests, more.requests);
        add(&mut self.used.input, more.used.input);
        add(&mut self.used.output, more.used.output);
        add(&mut self.used.cache_read, more.used.cache_read);
        add(&mut self.used.cache_write, more.used.cache_write);
        self.cost = self.cost.plus(more.cost);
        add(&mut self.unpriced, more.unpriced);
        add(&mut self.assumed, more.assumed);
    }
}

/// What was used of one model, for one issue, on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The day on which it was asked.
    pub day: Date,
    /// For whom.
    pub issue: IssueId,
    /// Whose model; a name of [`crate::broker::Provider`].
    pub provider: String,
    /// The model that answered, or else the one that was asked.
    pub model: String,
    /// What.
    pub sums: Sums,
}

/// One budget, by the thing it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An issue's.
    Issue(IssueId),
    /// A day's.
    Day(Date),
    /// The workflow's.
    Workflow,
}

/// What people allowed beyond the workflow's caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    /// Where.
    pub place: Place,
    /// In what.
    pub unit: Unit,
    /// How much.
    pub by: u64,
}

/// What the journal remembers of spending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// What was used.
    pub entries: Vec<Entry>,
    /// What people allowed.
    pub raises: Vec<Raise>,
}

/// A cap that was met: a request did not fit below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Whose.
    pub scope: Scope,
    /// In what.
    pub unit: Unit,
    /// The day on which it was met.
    pub day: Date,
    /// What was used then.
    pub used: u64,
    /// What the request that did not fit could use at most; 0: nothing was left at all.
    pub asked: u64,
    /// How much of that is the longest answer it asked for.
    pub answer: u64,
    /// What was allowed then.
    pub allowed: u64,
}

/// What the scheduler has to know of budgets: as of one look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The present day.
    pub today: Date,
    /// What may be used, with what people added to the day's and the workflow's.
    pub caps: Caps,
    /// What issues may use to which people added something.
    pub raised: BTreeMap<IssueId, Cap>,
    /// Issues that have nothing left.
    pub issues: BTreeMap<IssueId, Met>,
    /// The day's or the workflow's budget, when it is met: nothing that needs a model may start.
    pub shut: Option<Met>,
    /// Issues that went away because requests of others leave no room in a budget; there is none yet.
    pub crowded_out: BTreeSet<IssueId>,
    /// States whose agent needs no model.
    pub modelless: BTreeSet<StateName>,
}

impl Standing {
    /// What may be used now where `met` was met.
    fn allowed(&self, issue: &IssueId, met: &Met) -> Option<u64> {
        let cap = match met.scope {
            Scope::Issue => self.raised.get(issue).unwrap_or(&self.caps.issue),
            scope => self.caps.of(scope),
        };
        cap.of(met.unit)
    }

    /// Whether what this issue was put aside for is over: there is more now, or another day.
    pub fn is_over(&self, issue: &IssueId, met: &Met) -> bool {
        let another_day = met.scope == Scope::Day && met.day != self.today;
        another_day || self.allowed(issue, met).is_none_or(|allowed| allowed > met.allowed)
    }

    /// The same cap as it is now: so that only the next change counts.
    #[must_use]
    pub fn renewed(&self, issue: &IssueId, met: &Met) -> Met {
        Met { day: self.today, allowed: self.allowed(issue, met).unwrap_or(u64::MAX), ..*met }
    }
}
