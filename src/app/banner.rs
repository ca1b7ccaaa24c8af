//! What a person reads on the terminal when symphony has started: where everything is, what to do next, and what is amiss.

use std::io::Write as _;
use std::path::Path;

use symphony_core::broker::Provider;
use symphony_core::workflow::{Role, Workflow};

use crate::conductor::Chosen;
use crate::layout::Layout;
use crate::log::harmless;
use crate::workspace::Begin;

/// What there is to tell.
pub(super) struct Told<'a> {
    pub(super) workflow: &'a Workflow,
    pub(super) path: &'a Path,
    pub(super) sandbox: &'a Chosen,
    /// The login link: a secret, for the terminal and not for the log.
    pub(super) login: Option<&'a str>,
    /// What work starts from, if that could be told.
    pub(super) begin: Option<&'a Begin>,
    /// Why nothing starts.
    pub(super) closed: Option<String>,
    pub(super) warnings: &'a [String],
}

/// Prints it.
pub(super) fn show(told: &Told<'_>) {
    let _ = std::io::stdout().write_all(text(told).as_bytes());
}

/// Where new issues go, for examples.
pub(super) fn first_active(workflow: &Workflow) -> String {
    workflow.states.with_role(Role::Active).next().map_or_else(|| "Todo".to_owned(), |state| state.0.clone())
}

fn text(told: &Told<'_>) -> String {
    let Told { workflow, path, sandbox, .. } = told;
    let names = |role| workflow.states.with_role(role).map(|s| s.0.clone()).collect::<Vec<_>>().join(", ");
    let root = workflow.tracker.root.display();
    let mut lines = vec![];
    let mut fact = |name: &str, value: &str| lines.push(format!("  {name:<9}  {}\n", harmless(value)));
    fact("workflow", &path.display().to_string());
    fact("issues", &format!("{root} (active: {}; finished: {})", names(Role::Active), names(Role::Terminal)));
    let nowhere = match told.begin {
        Some(Begin::Nothing(dir)) => {
            let dir = dir.display();
            fact(
                "work from",
                &format!("nothing: {dir} is in no git repository; hooks.after_create can put files there"),
            );
            true
        }
        _ => false,
    };
    // Why there is none stands below.
    match sandbox.kind {
        Some(_) => fact("sandbox", &format!("{}: {}", sandbox.label, sandbox.reason)),
        None => fact("sandbox", &sandbox.label),
    }
    let renewed = Provider::ALL.into_iter().filter(|provider| workflow.models.of(*provider).refresh);
    let renewed: Vec<_> = renewed.map(Provider::name).collect();
    if !renewed.is_empty() {
        fact("logins", &format!("of {}: symphony renews them and replaces their files", renewed.join(" and ")));
    }
    fact("dashboard", told.login.unwrap_or("none (set server.port or pass --port)"));
    let take = if nowhere { "unpack agent_<issue>.tar" } else { "apply it with git am" };
    let patches = Layout::of(&workflow.dir).patches();
    fact(
        "next",
        &format!(
            "drop a Markdown file into {root}/{}/; finished work is in {}/, {take}",
            first_active(workflow),
            patches.display()
        ),
    );
    told.closed.iter().chain(told.warnings).for_each(|what| fact("attention", what));
    format!("symphony {}\n{}", env!("CARGO_PKG_VERSION"), lines.concat())
}
