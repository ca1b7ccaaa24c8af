//! How budgets are called and what is said about them.

use std::fmt;

use super::{Cap, Met, Scope, Sums, Unit};
use crate::money::Money;

impl Unit {
    /// An amount as a person types it.
    ///
    /// # Errors
    /// What is wrong with it, a sentence with an example.
    pub fn parse(self, text: &str) -> Result<u64, String> {
        let read = match self {
            Self::Money => Money::parse(text).map(|money| money.0),
            Self::Tokens => {
                let digits = text.trim().replace('_', "");
                let plain =
                    !digits.is_empty() && digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit());
                if plain { digits.parse().ok() } else { None }
            }
        };
        match (read, self) {
            (Some(amount @ 1..), _) => Ok(amount),
            (Some(0), _) => Err("the amount is zero; say how much more may be used".to_owned()),
            (None, Self::Money) => Err("this is no amount in US dollars; write it like 5 or 2.50".to_owned()),
            (None, Self::Tokens) => Err("this is no number of tokens; write it in digits, like 200000".to_owned()),
        }
    }
}

/// So much of a unit, as a person reads it and may type it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub Unit, pub u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unit::Tokens => write!(f, "{} tokens", self.1),
            Unit::Money => write!(f, "${}", Money(self.1).exact()),
        }
    }
}

const ALL: [(Scope, Unit, &str, &str); 6] = [
    (Scope::Issue, Unit::Tokens, "budget-tokens", "budget.tokens"),
    (Scope::Issue, Unit::Money, "budget-usd", "budget.usd"),
    (Scope::Day, Unit::Tokens, "budget-day-tokens", "budget.day.tokens"),
    (Scope::Day, Unit::Money, "budget-day-usd", "budget.day.usd"),
    (Scope::Workflow, Unit::Tokens, "budget-workflow-tokens", "budget.workflow.tokens"),
    (Scope::Workflow, Unit::Money, "budget-workflow-usd", "budget.workflow.usd"),
];

impl Met {
    /// How much more has to be allowed for the request that did not fit, or else for any. 0: there is room, as after a raise
    /// whose issue could not be brought back.
    pub fn lacks(&self) -> u64 {
        self.used.saturating_add(self.asked.max(1)).saturating_sub(self.allowed)
    }

    /// The least raise that helps, as a person may type it: `at least $0.20`. What the next request takes is not always
    /// known.
    pub fn least(&self) -> String {
        let lacks = self.lacks().max(1);
        let (word, least) = if self.asked > 0 { ("at least", lacks) } else { ("more than", lacks - 1) };
        match self.unit {
            Unit::Tokens => format!("{word} {}", Amount(Unit::Tokens, least)),
            Unit::Money => format!("{word} {}", Money(least).rounded_up()),
        }
    }

    /// Whether a raise by so much helps.
    ///
    /// # Errors
    /// It does not; a sentence that says how much would.
    pub fn enough(&self, by: u64) -> Result<(), String> {
        if by >= self.lacks().max(1) {
            return Ok(());
        }
        let amount = |of| match self.unit {
            Unit::Tokens => Amount(Unit::Tokens, of).to_string(),
            Unit::Money => Money(of).to_string(),
        };
        let next = match self.asked {
            0 => String::new(),
            asked => format!(" and the next request could take up to {}", amount(asked)),
        };
        let (used, allowed) = (amount(self.used), Amount(self.unit, self.allowed));
        Err(format!("that is not enough: {used} of {allowed} is used{next}; raise {} by {}", self.key(), self.least()))
    }

    fn names(&self) -> (&'static str, &'static str) {
        let found = ALL.iter().find(|(scope, unit, ..)| (*scope, *unit) == (self.scope, self.unit));
        found.map_or(("budget", "budget"), |(_, _, code, key)| (code, key))
    }

    /// The stable word.
    pub fn code(&self) -> &'static str {
        self.names().0
    }

    /// The key of the workflow.
    pub fn key(&self) -> &'static str {
        self.names().1
    }

    /// What [`Met::kept`] wrote of a cap with this word, of which so much was used.
    pub fn parse(code: &str, used: u64, kept: &str) -> Option<Self> {
        let (scope, unit, ..) = *ALL.iter().find(|(_, _, word, _)| *word == code)?;
        let mut parts = kept.split(' ');
        let mut next = || parts.next();
        let (allowed, asked, day) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        // Earlier versions did not keep it.
        let answer = next().map_or(Some(0), |answer| answer.parse().ok())?;
        Some(Self { scope, unit, day, used, asked, answer, allowed })
    }

    /// The rest of it, for the journal.
    pub fn kept(&self) -> String {
        format!("{} {} {} {}", self.allowed, self.asked, self.day, self.answer)
    }

    /// What lets an issue start that was not put aside for it, a sentence; `command` raises it.
    pub(crate) fn remedy_of_all(&self, command: &str) -> String {
        let by_itself = if self.scope == Scope::Day { ", as it does when the next day begins" } else { "" };
        format!("Raise {}, and it starts by itself{by_itself}.", self.by_what(command))
    }

    fn by_what(&self, command: &str) -> String {
        let (key, least) = (self.key(), self.least());
        format!("`{key}` in the dashboard's inbox, with `{command}`, or in the workflow file, by {least}")
    }

    /// What lets an issue go on that was put aside, sentences; `back` is how a person moves it back, `command` raises it.
    pub(crate) fn remedy(&self, back: &str, command: &str) -> String {
        let by_itself = if self.scope == Scope::Day { ", as it does when the next day begins" } else { "" };
        let left = self.allowed.saturating_sub(self.used);
        let more = match left {
            0 => "no more".to_owned(),
            left => format!("no more than the {} that are left", Amount(self.unit, left)),
        };
        let raise = format!(
            "Raise {}, and the issue goes back by itself{by_itself}; moved back without that, it may use {more}.",
            self.by_what(command)
        );
        // No raise is needed then.
        if left == 0 || self.answer < self.lacks() {
            return raise;
        }
        let shorter = match self.unit {
            Unit::Tokens => format!("shorter answers, by {}", Amount(Unit::Tokens, self.lacks())),
            Unit::Money => format!("shorter answers, by {} of their price", Money(self.lacks()).rounded_up()),
        };
        format!(
            "{raise} Or have its agent ask for {shorter} (what names no maximum is taken at \
             `budget.assumed_output_tokens`), then {back}."
        )
    }

    /// When it goes on, behind a semicolon.
    pub fn until(&self) -> String {
        match (self.scope, self.day.tomorrow()) {
            (Scope::Day, Ok(next)) => format!("it goes on when {next} begins, or when {} is raised", self.key()),
            _ => format!("it goes on when {} is raised", self.key()),
        }
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.scope {
            Scope::Issue => "this issue has".to_owned(),
            Scope::Day => format!("all issues together have on {}", self.day),
            Scope::Workflow => "all issues of the workflow together have".to_owned(),
        };
        let amount = |of| Amount(self.unit, of);
        match self.unit {
            Unit::Tokens => write!(f, "{whose} used {} of {}", self.used, amount(self.allowed))?,
            Unit::Money => write!(f, "{whose} used {} of {}", amount(self.used), amount(self.allowed))?,
        }
        write!(f, " ({})", self.key())?;
        match (self.asked, self.answer, self.unit) {
            (0, ..) => Ok(()),
            (asked, 0, _) => write!(f, "; the next request could take up to {}", amount(asked)),
            (asked, answer, Unit::Tokens) => {
                write!(f, "; the next request could take up to {}, {answer} of them for its answer", amount(asked))
            }
            (asked, answer, Unit::Money) => {
                let (asked, answer) = (amount(asked), amount(answer));
                write!(f, "; the next request could take up to {asked}, {answer} of it for its answer")
            }
        }
    }
}

impl Sums {
    /// Money as far as it is known: `$1.20 + 300 unpriced tokens`; `None` while nothing was used.
    pub fn money(&self) -> Option<String> {
        match (self.requests, self.unpriced, self.cost.0) {
            (0, ..) => None,
            (_, 0, _) => Some(self.cost.to_string()),
            (_, unpriced, 0) => Some(format!("{unpriced} unpriced tokens")),
            (_, unpriced, _) => Some(format!("{} + {unpriced} unpriced tokens", self.cost)),
        }
    }

    /// One line, of what may be used where there is a cap: `1200 of 5000 tokens · $0.02 of $1.00`.
    pub fn line(&self, cap: &Cap) -> String {
        let mut line = match cap.tokens {
            Some(allowed) => format!("{} of {allowed} tokens", self.tokens()),
            None => format!("{} tokens", self.tokens()),
        };
        if self.assumed > 0 {
            line.push_str(&format!(" ({} of them assumed)", self.assumed));
        }
        let money = self.money().filter(|_| self.cost.0 > 0 || cap.money.is_some());
        if let Some(money) = money {
            line.push_str(&format!(" · {money}"));
        }
        if let Some(allowed) = cap.money {
            let used = if self.requests == 0 { " · $0.00" } else { "" };
            line.push_str(&format!("{used} of ${}", allowed.exact()));
        }
        line
    }
}
