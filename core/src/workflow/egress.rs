//! `egress.allow`: each entry read on its own, so that every mistake is told with its place.

use super::problem::{Code, Problem};
use super::read::{Reader, Section, shortened};
use crate::egress::{AllowList, Entry};

pub(super) fn allowed(reader: &mut Reader<'_>, section: &Section<'_>) -> AllowList {
    let mut entries: Vec<Entry> = vec![];
    for (text, place) in reader.strings(section, "allow", true).unwrap_or_default() {
        let problem = match Entry::parse(&text) {
            Ok(entry) if entries.contains(&entry) => {
                Problem::warning(Code::InvalidValue, place, format!("`egress.allow` has `{entry}` twice"))
                    .hint("remove one")
            }
            Ok(entry) => {
                entries.push(entry);
                continue;
            }
            Err(bad) => {
                let message = format!("`egress.allow`: `{}` {bad}", shortened(&text));
                Problem::error(Code::InvalidValue, place, message).hint(bad.hint())
            }
        };
        reader.note(problem.about("egress.allow"));
    }
    AllowList(entries)
}
