//! `symphony journal check|export|compact`: the record of what symphony did, looked at from outside. The first two also
//! while symphony runs; they change nothing.
//!
//! Exit codes: 0 fine; 1 damaged, not all readable, in use, or not there; 2 wrong usage.

use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::running::{Whose, refuse};
use crate::journal::inspect::{self, Report, fingerprint};
use crate::journal::{JournalError, key};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::log::harmless;

/// What to do with the journal.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 fine; 1 damaged, not all readable, in use, or not there; 2 wrong usage."
)]
pub struct Journal {
    /// The one thing.
    #[command(subcommand)]
    pub deed: Deed,
}

/// One thing to do with the journal.
#[derive(Debug, Subcommand)]
pub enum Deed {
    /// Says whether it is whole, from where on, and what is in it; also while symphony runs.
    Check {
        /// Of which workflow.
        #[command(flatten)]
        whose: Whose,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Writes all that can be read, one JSON object a line; also while symphony runs.
    Export {
        /// Of which workflow.
        #[command(flatten)]
        whose: Whose,
        /// A new file, instead of stdout.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Removes old events and leaves a signed checkpoint in their place; symphony must not run.
    Compact {
        /// Of which workflow.
        #[command(flatten)]
        whose: Whose,
        /// How many of the newest events stay.
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        keep: u64,
        /// The key that signed is lost: checks by the checkpoint's own key, and signs anew with the one that is here, or
        /// a new one.
        #[arg(long)]
        new_key: bool,
    },
}

impl Journal {
    /// Does it, and says how it went.
    pub fn run(&self) -> ExitCode {
        let (Deed::Check { whose, .. } | Deed::Export { whose, .. } | Deed::Compact { whose, .. }) = &self.deed;
        let layout = match whose.path() {
            Ok(workflow) => Layout::of(workflow.parent().unwrap_or(Path::new("/"))),
            Err(why) => return refuse(2, &why, None),
        };
        match &self.deed {
            Deed::Check { json, .. } => check(&layout, *json),
            Deed::Export { output, .. } => export(&layout, output.as_deref()),
            Deed::Compact { keep, new_key, .. } => compact(&layout, *keep, *new_key),
        }
        .unwrap_or_else(|message| refuse(1, &message, None))
    }
}

fn said(error: &JournalError) -> String {
    error.to_string()
}

fn print(lines: &[String]) {
    let text: String = lines.iter().map(|line| harmless(line) + "\n").collect();
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn check(layout: &Layout, json: bool) -> Result<ExitCode, String> {
    let path = layout.journal();
    let pinned = key::pinned(&layout.journal_key()).map_err(|e| said(&e))?;
    let report = match inspect::check(&path, pinned.as_ref()) {
        Ok(report) => report,
        Err(error) => {
            if json {
                let value = json!({"journal": path, "sound": false, "problem": said(&error)});
                print(&[value.to_string()]);
            }
            return Err(said(&error));
        }
    };
    let problem = report.chain.as_ref().and_then(|chain| chain.as_ref().err().cloned());
    let problem = problem.or_else(|| (!report.differences.is_empty()).then(|| report.differences.join("; ")));
    let problem = problem.map(|message| said(&JournalError::Broken { path: path.clone(), message }));
    if json {
        print(&[as_json(&path, &report, pinned.as_ref(), problem.as_deref()).to_string()]);
    } else {
        print(&as_text(&path, &report, pinned.as_ref()));
    }
    problem.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn as_text(path: &Path, report: &Report, pinned: Option<&[u8; 32]>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut fact = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    fact("journal", path.display().to_string());
    fact("format", report.format.to_string());
    fact("instance", report.instance.clone());
    match &report.chain {
        None => fact("chain", "none yet: symphony begins it when it next starts here".to_owned()),
        Some(Err(fault)) => fact("chain", format!("broken: {fault}")),
        Some(Ok(chain)) => {
            fact("events", format!("{} (the last is number {})", chain.events, chain.head.seq));
            fact(
                "chain",
                match &chain.checkpoint {
                    None => "whole from the beginning".to_owned(),
                    Some(checkpoint) => format!(
                        "whole from the checkpoint at event {} ({}), signed by key {}",
                        checkpoint.upto.seq,
                        checkpoint.at,
                        checkpoint.fingerprint()
                    ),
                },
            );
            let state = match report.differences.len() {
                0 => "as the events that stand say".to_owned(),
                _ => format!("not as the events say: {}", report.differences.join("; ")),
            };
            fact("state", state);
            // One line, so that nobody takes "whole" for more than it is.
            fact(
                "unproven",
                format!(
                    "that nothing came after event {}, and rows of which no event stands: who may write the file can cut its end off",
                    chain.head.seq
                ),
            );
        }
    }
    fact("key", pinned.map_or("none here to compare with".to_owned(), fingerprint));
    let rows: Vec<String> = report.rows.iter().map(|(table, count)| format!("{table} {count}")).collect();
    fact("rows", rows.join(", "));
    lines
}

fn as_json(path: &Path, report: &Report, pinned: Option<&[u8; 32]>, problem: Option<&str>) -> serde_json::Value {
    let chain = report.chain.as_ref().and_then(|chain| chain.as_ref().ok());
    let checkpoint = chain.and_then(|chain| chain.checkpoint.as_ref());
    json!({
        "journal": path,
        "sound": problem.is_none(),
        "problem": problem,
        "format": report.format,
        "instance": report.instance,
        "events": chain.map(|chain| chain.events),
        "last_event": chain.map(|chain| chain.head.seq),
        "checkpoint": checkpoint.map(|c| json!({"event": c.upto.seq, "at": c.at, "key": c.fingerprint()})),
        "key": pinned.map(fingerprint),
        "differences": report.differences,
        "rows": report.rows.iter().map(|(table, count)| ((*table).to_owned(), json!(count))).collect::<serde_json::Map<_, _>>(),
    })
}

fn export(layout: &Layout, output: Option<&Path>) -> Result<ExitCode, String> {
    let path = layout.journal();
    let (lines, unread) = match output {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            inspect::export(&path, &mut out).and_then(|done| out.flush().map(|()| done).map_err(JournalError::Output))
        }
        Some(file) => {
            let refused = |error: std::io::Error| format!("cannot write {}: {error}", file.display());
            // Never over what is there: it may be the only other copy.
            let file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(refused)?;
            let mut out = BufWriter::new(file);
            inspect::export(&path, &mut out).and_then(|done| {
                out.flush().and_then(|()| out.get_ref().sync_all()).map(|()| done).map_err(JournalError::Output)
            })
        }
    }
    .map_err(|e| said(&e))?;
    let read = format!("{lines} rows of {} exported", path.display());
    if unread.is_empty() {
        let _ = writeln!(std::io::stderr(), "symphony: {}", harmless(&read));
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!("{read}; not readable: {}", unread.join("; ")))
}

fn compact(layout: &Layout, keep: u64, new_key: bool) -> Result<ExitCode, String> {
    let path = layout.journal();
    if !path.exists() {
        return Err(said(&JournalError::Missing(path)));
    }
    let _lock = Lock::take(layout)?;
    let secret = key::load_or_create(&layout.journal_key()).map_err(|e| said(&e))?;
    let deed = if new_key { inspect::sign_anew } else { inspect::compact_file };
    let (removed, no_room) = deed(&path, keep, &secret).map_err(|e| said(&e))?;
    let key = fingerprint(&inspect::public(&secret));
    let mut lines = vec![match removed.events {
        0 if new_key && removed.upto > 0 => {
            format!("no event was removed; the checkpoint at event {} is signed by key {key}", removed.upto)
        }
        0 => format!("nothing to remove: there are no more than {keep} events"),
        events => format!(
            "{events} events removed; a checkpoint at event {}, signed by key {key}, stands for them",
            removed.upto
        ),
    }];
    lines.extend(no_room.map(|why| format!("the file did not become smaller: {why}; its free room is used again")));
    print(&lines);
    Ok(ExitCode::SUCCESS)
}
