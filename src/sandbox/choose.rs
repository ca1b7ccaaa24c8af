//! Which sandbox a workflow gets, or the sentence that says why it gets none. Never a silent downgrade.

use symphony_core::workflow::{Minimum, Runtime, Workflow};

use super::{BootError, TrialReport};

/// Whether the jail may run this workflow's issues, given how its trial went.
///
/// # Errors
/// A sentence for the operator: what the workflow asks for, and what this machine has.
pub fn jail_for(workflow: &Workflow, trial: &Result<TrialReport, BootError>) -> Result<(), String> {
    let sandbox = &workflow.sandbox;
    match sandbox.runtime {
        Runtime::Qemu | Runtime::Smolvm => {
            let name = if sandbox.runtime == Runtime::Qemu { "qemu" } else { "smolvm" };
            return Err(format!(
                "sandbox.runtime is {name}, which this version does not have yet (hint: set sandbox.runtime: jail, or auto)"
            ));
        }
        Runtime::Auto | Runtime::Jail => {}
    }
    if sandbox.minimum == Minimum::Microvm {
        return Err("sandbox.minimum is microvm, and this version only has the jail (hint: remove sandbox.minimum to accept a jail)".into());
    }
    if workflow.smolvm.present {
        return Err("the workflow has smolvm.* keys, which ask for a microVM, and this version only has the jail (hint: remove them to accept a jail)".into());
    }
    trial.as_ref().map(drop).map_err(ToString::to_string)
}
