//! `retention.*`: how long things stay that nobody needs any more.

use super::read::{Reader, Section};

/// A hundred years; more is a typing mistake.
const MAX_DAYS: i64 = 36_500;
const MAX_NUMBER: i64 = 1 << 30;

/// `retention.*`. A 0 anywhere is no bound: nothing goes because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Days that the workspace of a finished issue stays after its last use, where it could not be removed at once.
    pub workspaces_days: u64,
    /// The same for work disks, those that were put aside too.
    pub work_disks_days: u64,
    /// Machines saved after their boot.
    pub templates: Bounds,
    /// Directories of runs: frames and logs.
    pub transcripts: Transcripts,
    /// Copies of the journal from before it was changed.
    pub journal_backups: Bounds,
    /// Events that stay in the journal; older ones go behind a signed checkpoint.
    pub journal_events: u64,
}

/// How many of a kind stay, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At most so many, the ones used last.
    pub max: u64,
    /// Days since the last use.
    pub days: u64,
}

/// `retention.transcripts`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transcripts {
    /// Days since the run's last line.
    pub days: u64,
    /// MiB of all together; the oldest go first.
    pub max_mib: u64,
}

pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Retention {
    let section = reader.section(root, "retention", "retention");
    let days = |reader: &mut Reader<'_>, section: &Section<'_>, key: &str, default| {
        u64::try_from(reader.number(section, key, default, 0..=MAX_DAYS)).unwrap_or(0)
    };
    let number = |reader: &mut Reader<'_>, section: &Section<'_>, key: &str, default| {
        u64::try_from(reader.number(section, key, default, 0..=MAX_NUMBER)).unwrap_or(0)
    };
    let workspaces_days = days(reader, &section, "workspaces_days", 7);
    let work_disks_days = days(reader, &section, "work_disks_days", 7);
    let templates = reader.section(&section, "templates", "retention.templates");
    let templates = Bounds { max: number(reader, &templates, "max", 8), days: days(reader, &templates, "days", 30) };
    let transcripts = reader.section(&section, "transcripts", "retention.transcripts");
    let transcripts = Transcripts {
        days: days(reader, &transcripts, "days", 30),
        max_mib: number(reader, &transcripts, "max_mib", 2048),
    };
    let backups = reader.section(&section, "journal_backups", "retention.journal_backups");
    let journal_backups = Bounds { max: number(reader, &backups, "max", 5), days: days(reader, &backups, "days", 0) };
    let journal_events = number(reader, &section, "journal_events", 50_000);
    Retention { workspaces_days, work_disks_days, templates, transcripts, journal_backups, journal_events }
}
