//! Which runtime isolates the runs of a workflow on this machine, and why: a decision over the results of real trials.
//!
//! Never a silent downgrade: what the workflow forbids is not chosen, and what is chosen says why.

use std::collections::{BTreeMap, BTreeSet};

use crate::workflow::{Minimum, Runtime, Workflow};

#[cfg(test)]
mod tests;

/// A way to isolate a run, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A microVM under smolvm.
    Smolvm,
    /// A microVM under QEMU with hardware support.
    QemuKvm,
    /// A machine that QEMU emulates: no security boundary, and slow.
    QemuTcg,
    /// Namespaces on the host's kernel.
    Jail,
}

impl Kind {
    /// All of them, strongest first.
    pub const ALL: [Self; 4] = [Self::Smolvm, Self::QemuKvm, Self::QemuTcg, Self::Jail];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smolvm => "smolvm",
            Self::QemuKvm => "qemu-kvm",
            Self::QemuTcg => "qemu-tcg",
            Self::Jail => "jail",
        }
    }

    /// The word in `sandbox.runtime`, which also names whose a work disk is: with and without KVM it is the same.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Smolvm => "smolvm",
            Self::QemuKvm | Self::QemuTcg => "qemu",
            Self::Jail => "jail",
        }
    }

    /// Whether the guest has a kernel of its own.
    pub fn is_microvm(self) -> bool {
        self != Self::Jail
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a runtime that this symphony has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Nobody asked.
    Untried,
    /// It is being tried.
    Running,
    /// It booted.
    Passed,
    /// It did not.
    Failed {
        /// Why, a sentence without its end.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// What is known of each runtime; one that this symphony does not have is missing.
pub type Trials = BTreeMap<Kind, Trial>;

/// What runs get, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What isolates them.
    pub kind: Kind,
    /// Why it is this one, a sentence without its end.
    pub reason: String,
}

/// Why there is no choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// One that may be chosen is still being tried.
    Trying(Kind),
    /// None that the workflow allows works here; the sentence says what each of them said.
    Nothing(String),
}

/// What `auto` tries, strongest first. Emulation is no security boundary: it has to be named.
const AUTO: [Kind; 3] = [Kind::Smolvm, Kind::QemuKvm, Kind::Jail];

/// What the workflow allows, in the order in which it is preferred.
fn allowed(workflow: &Workflow) -> &'static [Kind] {
    match (workflow.sandbox.runtime, demand(workflow)) {
        (Runtime::Auto, None) => &AUTO,
        (Runtime::Auto, Some(_)) => &AUTO[..2],
        // Emulation is no security boundary, and who asks for a microVM asks for one.
        (Runtime::Qemu, _) if workflow.sandbox.minimum == Minimum::Microvm => &[Kind::QemuKvm],
        (Runtime::Qemu, _) => &[Kind::QemuKvm, Kind::QemuTcg],
        (Runtime::Smolvm, _) => &[Kind::Smolvm],
        (Runtime::Jail, None) => &[Kind::Jail],
        // A workflow that says so does not pass its checks.
        (Runtime::Jail, Some(_)) => &[],
    }
}

/// What forbids the jail, and how to allow it.
fn demand(workflow: &Workflow) -> Option<(&'static str, &'static str)> {
    if workflow.sandbox.minimum == Minimum::Microvm {
        return Some(("sandbox.minimum is microvm", "remove sandbox.minimum to accept a jail"));
    }
    let keys = ("the workflow has smolvm.* keys, which ask for a microVM", "remove them to accept a jail");
    workflow.smolvm.present.then_some(keys)
}

/// Those whose trial the choice needs and nobody began. What runs beside others is tried beside them; what only
/// replaces another is tried when that one failed.
pub fn untried(workflow: &Workflow, trials: &Trials) -> Vec<Kind> {
    let is_new = |kind: &&Kind| trials.get(kind) == Some(&Trial::Untried);
    let wanted = allowed(workflow);
    match workflow.sandbox.runtime {
        Runtime::Qemu if matches!(choose(workflow, trials), Err(NoChoice::Trying(Kind::QemuTcg))) => {
            wanted.iter().filter(is_new).copied().collect()
        }
        Runtime::Qemu => wanted.iter().take(1).filter(is_new).copied().collect(),
        _ => wanted.iter().filter(is_new).copied().collect(),
    }
}

/// Those that failed and would be taken if they worked: worth another trial now and then, since what was missing may
/// have come. Strongest first.
pub fn worth_another_trial(workflow: &Workflow, trials: &Trials) -> Vec<Kind> {
    let better = allowed(workflow).iter().take_while(|kind| trials.get(kind) != Some(&Trial::Passed));
    better.filter(|kind| matches!(trials.get(kind), Some(Trial::Failed { .. }))).copied().collect()
}

/// What the runs of this workflow get.
///
/// # Errors
/// When nothing that is allowed works here, or when that is not known yet.
pub fn choose(workflow: &Workflow, trials: &Trials) -> Result<Choice, NoChoice> {
    let (mut said, mut hints) = (Vec::new(), Vec::new());
    // Who names one runtime knows whose words these are.
    let is_auto = workflow.sandbox.runtime == Runtime::Auto;
    for kind in allowed(workflow) {
        match trials.get(kind) {
            Some(Trial::Passed) => return Ok(Choice { kind: *kind, reason: reason(workflow, *kind, &said) }),
            Some(Trial::Untried | Trial::Running) => return Err(NoChoice::Trying(*kind)),
            Some(Trial::Failed { why, hint }) => {
                said.push(if is_auto { attributed(*kind, why) } else { why.clone() });
                hints.extend(hint.clone());
            }
            None => said.push(format!("this symphony has no {}", kind.runtime())),
        }
    }
    // With and without KVM, qemu may lack the same.
    said.dedup();
    let said = said.join("; ");
    let name = workflow.sandbox.runtime.as_str();
    let sentence = match (demand(workflow), workflow.sandbox.runtime) {
        (Some((demand, _)), Runtime::Auto) => format!("{demand}, and no microVM works here: {said}"),
        (None, Runtime::Auto) => format!("nothing works here: {said}"),
        (Some((demand, _)), Runtime::Qemu) if workflow.sandbox.minimum == Minimum::Microvm => {
            format!("{demand}, which emulation is not, and KVM does not work here: {said}")
        }
        _ => format!("sandbox.runtime is {name}: {said}"),
    };
    // What mends the runtime comes first; to take another is second best.
    hints.extend(way_out(workflow).map(str::to_owned));
    let mut seen = BTreeSet::new();
    hints.retain(|hint| seen.insert(hint.clone()));
    let hint = if hints.is_empty() { String::new() } else { format!(" (hint: {})", hints.join("; or ")) };
    Err(NoChoice::Nothing(sentence + &hint))
}

/// What else the workflow could allow, and what that means.
fn way_out(workflow: &Workflow) -> Option<&'static str> {
    match (workflow.sandbox.runtime, demand(workflow)) {
        (Runtime::Auto, demand) => demand.map(|(_, hint)| hint),
        (Runtime::Jail, _) => None,
        (Runtime::Qemu, _) if workflow.sandbox.minimum == Minimum::Microvm => {
            Some("remove sandbox.minimum to accept emulation")
        }
        (Runtime::Qemu | Runtime::Smolvm, Some(_)) => Some("sandbox.runtime: auto takes any microVM that works here"),
        (Runtime::Qemu | Runtime::Smolvm, None) => {
            Some("sandbox.runtime: auto may take a jail, which shares this machine's kernel")
        }
    }
}

/// Says who said it, unless that is said.
fn attributed(kind: Kind, why: &str) -> String {
    let name = kind.runtime();
    if why.to_lowercase().contains(name) { why.to_owned() } else { format!("{name}: {why}") }
}

fn reason(workflow: &Workflow, kind: Kind, failed: &[String]) -> String {
    let failed = failed.join("; ");
    match (workflow.sandbox.runtime, kind) {
        (Runtime::Auto, Kind::Jail) => format!("no microVM here: {failed}"),
        (Runtime::Auto, _) if failed.is_empty() => "the strongest, and it works here".to_owned(),
        (Runtime::Auto, _) => format!("the strongest that works here: {failed}"),
        (Runtime::Qemu, Kind::QemuTcg) => format!("sandbox.runtime is qemu, and KVM does not work here: {failed}"),
        (runtime, _) => format!("sandbox.runtime is {}", runtime.as_str()),
    }
}
