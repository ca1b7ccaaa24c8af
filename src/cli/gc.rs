//! `symphony gc`: lists what stands below `.symphony/`, and removes what nobody needs any more. While a symphony runs on
//! the workflow it does nothing: only the holder of the lock may look and remove.
//!
//! Exit codes: 0 done; 1 nothing was removed because something was not known, or a removal failed; 2 wrong usage, or no
//! workflow file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use symphony_core::retention::{Item, Verdict, plan};

use super::running::{Whose, refuse};
use crate::git::Git;
use crate::journal::{self, Memory};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::log::harmless;
use crate::sandbox::choose::Sandboxes;
use crate::storage::Keeper;
use crate::tracker::Tracker as _;
use crate::tracker::markdown::MarkdownTracker;
use crate::workflow_file::{Environment, WorkflowFile};
use crate::workspace::Workspaces;

/// What to clean, and how much to say.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 nothing was removed because something was not known, or a removal failed;\n2 wrong usage, or no workflow file."
)]
pub struct Gc {
    /// Of which workflow.
    #[command(flatten)]
    pub whose: Whose,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Lists each thing that stays, too, instead of summing them up.
    #[arg(short, long)]
    pub verbose: bool,
    /// The answer as JSON, with each thing.
    #[arg(long)]
    pub json: bool,
}

impl Gc {
    /// Looks, removes, prints, and says how it went.
    pub async fn run(&self) -> ExitCode {
        let said = |error: &dyn std::fmt::Display| refuse(1, &error.to_string(), None);
        let path = match self.whose.path() {
            Ok(path) => path,
            Err(why) => return refuse(2, &why, None),
        };
        let file = match WorkflowFile::load(&path, Environment::of_process()) {
            Ok(file) => file,
            Err(error) => return refuse(error.exit_code(), &error.to_string(), None),
        };
        let workflow = file.workflow();
        let layout = Layout::of(&workflow.dir);
        if !layout.root().is_dir() {
            return refuse(1, &format!("{} is not there: nothing ran here yet", layout.root().display()), None);
        }
        // Whoever holds it is the only one that may use any of this.
        let _lock = match Lock::take(&layout) {
            Ok(lock) => lock,
            Err(error) => return refuse(1, &error, Some("nothing was looked at and nothing was removed")),
        };
        let mut errors = vec![];
        let memory = match std::fs::metadata(layout.journal()).map_or(0, |about| about.len()) {
            // An empty one would be taken for a new one.
            0 => Err("there is no journal, so nothing is known to be ours".to_owned()),
            _ => journal::recall(&layout.journal()).map_err(|error| error.to_string()),
        };
        let memory = memory.unwrap_or_else(|error| {
            errors.push(error);
            Memory::default()
        });
        let git = match Git::new(layout.root()) {
            Ok(git) => git,
            Err(error) => return said(&error),
        };
        let exe = match std::env::current_exe() {
            Ok(exe) => exe,
            Err(error) => return said(&error),
        };
        let sandboxes = Sandboxes::of_this_machine(&exe, &layout, &memory.instance, &workflow);
        let workspaces = match workflow.workspace.root.is_dir() {
            false => None,
            true => match Workspaces::new(&workflow.workspace.root, &memory.instance, git) {
                Ok(workspaces) => Some(workspaces),
                Err(error) => {
                    errors.push(error.to_string());
                    None
                }
            },
        };
        let tracker = MarkdownTracker::after(workflow.tracker.root.clone(), vec![]);
        let scan = tracker.scan().await.map_err(|error| error.to_string());
        let keeper = Keeper {
            layout: &layout,
            workflow: &workflow,
            workflow_path: &path,
            instance: &memory.instance,
            next_run: memory.next_run,
            sandboxes: &sandboxes,
            workspaces: workspaces.as_ref(),
        };
        let mut stock = keeper.look(scan).await;
        stock.inventory.errors.extend(errors);
        let verdicts = plan(&stock.inventory, &workflow.retention);
        let mut outcomes = vec![];
        for (at, verdict) in verdicts.iter().enumerate() {
            outcomes.push(match verdict {
                Ok(_) if !self.dry_run => Some(keeper.remove(&stock, at).await),
                _ => None,
            });
        }
        let failed = outcomes.iter().flatten().any(Result::is_err);
        self.print(&layout, &stock.inventory.items, &stock.inventory.errors, &verdicts, &outcomes);
        ExitCode::from(u8::from(failed || !stock.inventory.errors.is_empty()))
    }

    fn print(
        &self,
        layout: &Layout,
        items: &[Item],
        errors: &[String],
        verdicts: &[Verdict],
        outcomes: &[Option<Result<(), String>>],
    ) {
        let (mut lines, mut rows, mut total, mut freed) = (vec![], vec![], 0_u64, 0_u64);
        let mut staying: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        for ((item, verdict), outcome) in items.iter().zip(verdicts).zip(outcomes) {
            let bytes = item.bytes.unwrap_or(0);
            total = total.saturating_add(bytes);
            let (word, code, reason) = match (verdict, outcome) {
                (Ok(due), None) => ("would go", due.code(), due.to_string()),
                (Ok(due), Some(Ok(()))) => ("removed", due.code(), due.to_string()),
                (Ok(_), Some(Err(error))) => ("failed", "removal-failed", error.clone()),
                (Err(kept), _) => ("kept", kept.code(), kept.to_string()),
            };
            if matches!(word, "would go" | "removed") {
                freed = freed.saturating_add(bytes);
            }
            let place = Path::new(&item.place).strip_prefix(layout.root()).unwrap_or(Path::new(&item.place));
            let size = item.bytes.map_or_else(|| "?".to_owned(), shown);
            let is_told = self.verbose || !matches!(verdict, Err(kept) if !kept.is_worth_a_look());
            if !is_told {
                let (count, size) = staying.entry(item.kind.as_str()).or_default();
                (*count, *size) = (*count + 1, size.saturating_add(bytes));
            }
            lines
                .extend(is_told.then(|| {
                    format!("{:<14} {size:>9}  {word:<8}  {}: {reason}", item.kind.as_str(), place.display())
                }));
            rows.push(json!({
                "kind": item.kind.as_str(), "path": item.place, "bytes": item.bytes, "idle_ms": item.idle_ms,
                "verdict": word.replace(' ', "-"), "reason_code": code, "reason": reason,
            }));
        }
        if self.json {
            let report = json!({
                "dry_run": self.dry_run, "items": rows, "errors": errors, "bytes": total, "freed_bytes": freed,
            });
            lines = vec![format!("{report:#}")];
        } else {
            let sum = |(kind, (count, size)): (&&str, &(u64, u64))| format!("{count} {kind} ({})", shown(*size));
            let kept: Vec<String> = staying.iter().map(sum).collect();
            if !kept.is_empty() {
                lines.push(format!("kept, as it should be: {}; --verbose lists them", kept.join(", ")));
            }
            lines.extend(errors.iter().map(|error| format!("nothing is removed: {error}")));
            let word = if self.dry_run { "would be freed" } else { "freed" };
            lines.push(format!("{} in all, {} {word}", shown(total), shown(freed)));
        }
        let text: String = lines.iter().flat_map(|text| text.lines()).map(|line| harmless(line) + "\n").collect();
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

/// Bytes as a person says them.
fn shown(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}
