//! What a template may cost: how often its loops turn, and how much it may say.
//!
//! The engine lists a range before it walks it, so `(1..9999999999)` would take all memory there is, and the end of a
//! range may be a value that an issue's writer chose. So a range stands between two plain numbers here.

use std::io::{self, Write};

/// Longest prompt, in bytes.
pub const MAX_FILLED: usize = 8 * 1024 * 1024;
/// Most turns of ranges that stand in each other.
const MAX_TURNS: u64 = 10_000;

/// A writer that ends at [`MAX_FILLED`].
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: Vec<u8>,
    /// Whether more was to be written: the engine drops the words of a writer's error.
    pub(super) full: bool,
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > MAX_FILLED {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first loop that may turn too often: where it stands, and what is wrong with it.
pub(super) fn endless(template: &str) -> Option<(u32, String)> {
    let mut open: Vec<u64> = Vec::new();
    for (at, _) in template.match_indices("{%") {
        let rest = &template[at + 2..];
        let tag = &rest[..rest.find("%}").unwrap_or(rest.len())];
        let tag = tag.trim_start_matches('-').trim_start();
        let word = tag.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let turns = match word {
            "for" | "tablerow" => turns(tag),
            "endfor" | "endtablerow" => {
                open.pop();
                continue;
            }
            _ => continue,
        };
        let all = turns.and_then(|turns| open.iter().try_fold(turns, |all, turns| all.checked_mul(*turns)));
        if all.is_none_or(|all| all > MAX_TURNS) {
            let line = template[..at].matches('\n').count() + 1;
            let rule = format!(
                "a range stands between two whole numbers, and ranges in each other turn at most {MAX_TURNS} times"
            );
            return Some((u32::try_from(line).unwrap_or(u32::MAX), rule));
        }
        open.push(turns.unwrap_or(1));
    }
    None
}

/// How often a loop's range turns: 1 for what is no range, nothing for a range whose ends are not plain numbers.
fn turns(tag: &str) -> Option<u64> {
    let Some((before, after)) = tag.split_once("..") else { return Some(1) };
    let from: i64 = before.rsplit('(').next()?.trim().parse().ok()?;
    let to: i64 = after.split(')').next()?.trim().parse().ok()?;
    Some(to.abs_diff(from).saturating_add(1))
}
