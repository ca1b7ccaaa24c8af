//! `symphony log`: what an agent was told, said, thought and did, read from the transcripts of its runs. It asks no running
//! symphony, and changes nothing.
//!
//! Exit codes: 0 shown; 1 cannot be read; 2 wrong usage, or no such run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use symphony_core::ids::RunId;

use super::running::{absolute, refuse};
use crate::agent::readable::{About, Readable, Shown};
use crate::layout::Layout;
use crate::log::harmless;

/// How often a transcript that is followed is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Columns for the kind of a line.
const WORD: usize = 10;
/// Longest first line of a transcript.
const FIRST_MAX: u64 = 64 * 1024;

/// Whose transcript, and how.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 shown; 1 cannot be read; 2 wrong usage, or no such run.")]
pub struct Log {
    /// Identifier or id of the issue; without it, all runs whose transcripts are kept are listed.
    pub issue: Option<String>,
    /// This run instead of the issue's newest.
    #[arg(long, value_name = "N", conflicts_with = "issue")]
    pub run: Option<u64>,
    /// The workflow whose runs they are.
    #[arg(long, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
    /// Waits for more, and goes on with the issue's next run.
    #[arg(short, long)]
    pub follow: bool,
    /// Prompts and outputs are not shortened.
    #[arg(long)]
    pub whole: bool,
}

/// One run whose transcript is kept.
struct Kept {
    run: RunId,
    place: PathBuf,
    /// `None`: an older symphony wrote it.
    about: Option<About>,
}

impl Log {
    /// Shows it, and says how it went.
    pub fn run(&self) -> ExitCode {
        let workflow = match absolute(&self.workflow) {
            Ok(workflow) => workflow,
            Err(error) => return refuse(2, &format!("cannot use {}: {error}", self.workflow.display()), None),
        };
        let layout = Layout::of(workflow.parent().unwrap_or(Path::new("/")));
        let kept = match kept(&layout) {
            Ok(kept) => kept,
            Err(error) => return refuse(1, &format!("cannot list {}: {error}", layout.runs().display()), None),
        };
        let found = match (&self.issue, self.run) {
            (None, None) if self.follow => return refuse(2, "whom to follow? Name an issue, or --run N", None),
            (None, None) => return list(&kept),
            (None, Some(run)) => kept.iter().rfind(|one| one.run.0 == run).ok_or_else(|| format!("run {run}")),
            (Some(issue), _) => kept.iter().rfind(|one| one.is_of(issue)).ok_or_else(|| issue.clone()),
        };
        let first = match found {
            Ok(first) => first,
            Err(whose) => {
                let message = format!("no transcript of {whose} in {}", layout.runs().display());
                let hint = "`symphony log` lists those that are kept; a run has one from the start of its agent on";
                return refuse(2, &message, Some(hint));
            }
        };
        let mut showing = Showing::of(first, self.whole);
        loop {
            let before = showing.read;
            let shown = showing.step().and_then(|()| match showing.read == before {
                // Nothing more came: what was said so far is worth seeing.
                true => showing.flush(),
                false => Ok(()),
            });
            if let Err(error) = shown {
                return match error.kind() {
                    // Who reads on has gone.
                    std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
                    _ => refuse(1, &format!("cannot read {}: {error}", showing.place.display()), None),
                };
            }
            if !self.follow {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
            if let Some(issue) = &self.issue
                && let Ok(all) = self::kept(&layout)
                && let Some(newest) = all.iter().rfind(|one| one.is_of(issue))
                && newest.run > showing.run
            {
                let _ = showing.step().and_then(|()| showing.end());
                showing = Showing::of(newest, self.whole);
            }
        }
        match showing.end() {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => refuse(1, &error.to_string(), None),
            _ => ExitCode::SUCCESS,
        }
    }
}

impl Kept {
    fn is_of(&self, issue: &str) -> bool {
        self.about.as_ref().is_some_and(|about| about.issue == issue || about.identifier.eq_ignore_ascii_case(issue))
    }
}

/// All transcripts, oldest run first.
fn kept(layout: &Layout) -> std::io::Result<Vec<Kept>> {
    let entries = match std::fs::read_dir(layout.runs()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry?;
        let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let place = entry.path().join("acp.jsonl");
        let Ok(file) = std::fs::File::open(&place) else { continue };
        let mut first = String::new();
        let read = BufReader::new(file.take(FIRST_MAX)).read_line(&mut first);
        let about = read.ok().and_then(|_| About::of(&first));
        found.push(Kept { run: RunId(run), place, about });
    }
    found.sort_by_key(|one| one.run);
    Ok(found)
}

fn list(kept: &[Kept]) -> ExitCode {
    let mut text = String::new();
    for one in kept {
        let (name, title) = one.about.as_ref().map_or(("?", ""), |about| (&*about.identifier, &*about.title));
        text.push_str(&harmless(&format!("run {:<5} {name}  {title}", one.run.0)));
        text.push('\n');
    }
    if kept.is_empty() {
        text.push_str("no transcripts are kept: no agent has run yet\n");
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// One transcript on its way to the terminal.
struct Showing {
    run: RunId,
    place: PathBuf,
    read: u64,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
    readable: Readable,
}

impl Showing {
    fn of(kept: &Kept, whole: bool) -> Self {
        let Kept { run, place, about } = kept;
        let whose = about.as_ref().map_or(String::new(), |about| format!(" of {}: {}", about.identifier, about.title));
        let mut head = String::new();
        put(&mut head, &format!("run {run}{whose}"));
        put(&mut head, &format!("{}", place.display()));
        let _ = std::io::stdout().write_all(head.as_bytes());
        Self { run: *run, place: place.clone(), read: 0, begun: vec![], readable: Readable::new(whole) }
    }

    /// Shows what is new in the file.
    fn step(&mut self) -> std::io::Result<()> {
        use std::io::Seek as _;
        let mut file = std::fs::File::open(&self.place)?;
        file.seek(std::io::SeekFrom::Start(self.read))?;
        let mut reader = BufReader::new(file);
        let mut text = String::new();
        loop {
            let read = reader.read_until(b'\n', &mut self.begun)?;
            self.read += read as u64;
            if self.begun.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            let line = std::mem::take(&mut self.begun);
            for shown in self.readable.line(&String::from_utf8_lossy(&line)) {
                show(&mut text, &shown);
            }
            // A long file is shown in parts.
            if text.len() > 64 * 1024 {
                std::io::stdout().write_all(std::mem::take(&mut text).as_bytes())?;
            }
        }
        std::io::stdout().write_all(text.as_bytes())?;
        std::io::stdout().flush()
    }

    /// Shows what was gathered.
    fn flush(&mut self) -> std::io::Result<()> {
        let mut text = String::new();
        if let Some(shown) = self.readable.flush() {
            show(&mut text, &shown);
        }
        std::io::stdout().write_all(text.as_bytes())?;
        std::io::stdout().flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.flush()?;
        let mut text = String::new();
        if let Some(used) = self.readable.used() {
            put(&mut text, &format!("used: {used}"));
        }
        if let Some(hidden) = self.readable.hidden() {
            put(&mut text, &format!("not shown: {hidden}"));
        }
        std::io::stdout().write_all(text.as_bytes())
    }
}

/// What the agent wrote is in it: nothing of it may reach the terminal as an instruction.
fn put(text: &mut String, line: &str) {
    text.push_str(&harmless(line.trim_end()));
    text.push('\n');
}

fn show(text: &mut String, shown: &Shown) {
    let at = match shown.at.parse::<Timestamp>() {
        Ok(at) => at.strftime("%H:%M:%SZ").to_string(),
        Err(_) => " ".repeat(9),
    };
    let mut lines = shown.text.lines();
    put(text, &format!("{at}  {:<WORD$}  {}", shown.what, lines.next().unwrap_or_default()));
    for line in lines {
        put(text, &format!("{:9}  {:WORD$}  {line}", "", ""));
    }
}
