//! Which profiles a run can have now: a decision over what the runtime can have, and over what a look found of the images
//! that runs boot. Never a fallback: an issue whose profile cannot be had waits.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;

use super::not_now::{NotNow, PROFILE_MAX};
use super::one_line;
use crate::issue::Issue;
use crate::runtimes::Kind;
use crate::workflow::{Profile, Workflow};

/// What one look found of the image that runs of a profile boot. It says nothing of the next look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stock {
    /// It is there, with every package.
    Complete,
    /// It is not there, or lacks something.
    Lacking {
        /// What is missing, a sentence without its end.
        what: String,
        /// How to get it, the same.
        hint: String,
    },
    /// It could not be looked at: nothing is known.
    Unclear(String),
}

/// By the name of the profile; `None` is for runs without one. What is not in it was not looked at.
pub type Stocks = BTreeMap<Option<String>, Stock>;

/// Why no run can have a profile now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The runtime in force never can: words that follow the profile's name.
    Runtime(String),
    /// What it boots is not there, or not complete.
    Lacking {
        /// What is missing.
        what: String,
        /// How to get it.
        hint: String,
    },
    /// Whether it is there could not be told.
    Unclear(String),
}

impl Refusal {
    fn of(stock: &Stock) -> Option<Self> {
        match stock {
            Stock::Complete => None,
            Stock::Lacking { what, hint } => Some(Self::Lacking { what: what.clone(), hint: hint.clone() }),
            Stock::Unclear(why) => Some(Self::Unclear(why.clone())),
        }
    }
}

/// Whose wish a sandbox follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The profile that the issue names.
    Own(String),
    /// The workflow's `sandbox.profile`, because the issue names none.
    Default(String),
    /// Neither names one.
    Nobody,
}

impl Whose {
    /// Of an issue that names this profile, in a workflow with this default.
    pub fn of(own: Option<&String>, default: Option<&String>) -> Self {
        match (own, default) {
            (Some(own), _) => Self::Own(own.clone()),
            (None, Some(default)) => Self::Default(default.clone()),
            (None, None) => Self::Nobody,
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => write!(f, "its profile `{}`", one_line(name, PROFILE_MAX)),
            Self::Default(name) => write!(f, "the workflow's `sandbox.profile`, `{}`,", one_line(name, PROFILE_MAX)),
            Self::Nobody => write!(f, "its sandbox"),
        }
    }
}

/// `sandbox.profiles`, as far as starting runs is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profiles {
    /// The one of an issue that names none.
    pub default: Option<String>,
    /// Each with what is in its way.
    pub listed: IndexMap<String, Option<Refusal>>,
    /// What is in the way of runs without a profile.
    pub unnamed: Option<Refusal>,
}

impl Profiles {
    /// What the workflow lists, for a runtime of this kind and with what a look found.
    pub(super) fn of(workflow: &Workflow, kind: Option<Kind>, stocks: &Stocks) -> Self {
        let found = |name: Option<&String>| stocks.get(&name.cloned()).and_then(Refusal::of);
        let never = |profile: &Profile| kind.and_then(|kind| profile.refused_by(kind)).map(Refusal::Runtime);
        let listed = workflow.sandbox.profiles.iter();
        Self {
            default: workflow.sandbox.profile.clone(),
            listed: listed
                .map(|(name, profile)| (name.clone(), never(profile).or_else(|| found(Some(name)))))
                .collect(),
            unnamed: found(None),
        }
    }

    /// Whether a run of this issue can have what it is to get. Gates starts only: a run keeps what it was dispatched
    /// with.
    pub(super) fn admit(&self, issue: &Issue) -> Result<(), NotNow> {
        let whose = Whose::of(issue.profile.as_ref(), self.default.as_ref());
        let refusal = match &whose {
            Whose::Nobody => self.unnamed.as_ref(),
            Whose::Own(name) | Whose::Default(name) => match self.listed.get(name) {
                Some(refusal) => refusal.as_ref(),
                None => {
                    let listed = self.listed.keys().cloned().collect();
                    return Err(NotNow::UnknownProfile { profile: name.clone(), listed });
                }
            },
        };
        Err(match refusal.cloned() {
            None => return Ok(()),
            Some(Refusal::Runtime(why)) => NotNow::ProfileRefused { whose, why },
            Some(Refusal::Lacking { what, hint }) => NotNow::ImageMissing { whose, what, hint },
            Some(Refusal::Unclear(why)) => NotNow::ImageUnclear { whose, why },
        })
    }
}
