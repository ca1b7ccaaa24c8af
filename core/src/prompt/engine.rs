//! The Liquid engine, made strict.
//!
//! What loops, conditions and assignments may is in `watched.rs`, what filters may in `counted.rs` and `filters.rs`.

use liquid_core::error::Result;
use liquid_core::parser::{self, ParseBlock, ParseTag, TagReflection};
use liquid_core::runtime::RuntimeBuilder;
use liquid_core::{Error, Language, ObjectView, ParseFilter, Renderable, Runtime, TagTokenIter, Template};
use liquid_lib::stdlib::{
    AssignTag, BreakTag, CaseBlock, CommentBlock, ContinueTag, CycleTag, DecrementTag, IfBlock, IncrementTag, RawBlock,
    UnlessBlock,
};

use super::bounds::{Page, Spent};
use super::counted;
use super::loops::LoopBlock;
use super::watched::{CaptureBlock, IfChangedBlock, Scope, Watched};
use crate::spelling::nearest;

/// Reads a template of the standard language without files, with strict conditions, bounded work and `json`.
pub(super) fn parse(template: &str) -> Result<Template> {
    parser::parse(template, &language()).map(Template::new)
}

fn language() -> Language {
    let blocks: [Box<dyn ParseBlock>; 9] = [
        Watched::block(CaptureBlock),
        Watched::block(CaseBlock),
        Box::new(CommentBlock),
        Watched::block(LoopBlock::For),
        Watched::block(IfBlock),
        Watched::block(IfChangedBlock),
        Box::new(RawBlock),
        Watched::block(LoopBlock::TableRow),
        Watched::block(UnlessBlock),
    ];
    let tags: [Box<dyn ParseTag>; 8] = [
        Watched::tag(AssignTag),
        Box::new(BreakTag),
        Box::new(ContinueTag),
        Watched::tag(CycleTag),
        Watched::tag(DecrementTag),
        Box::new(Refused("include")),
        Watched::tag(IncrementTag),
        Box::new(Refused("render")),
    ];
    let mut language = Language::empty();
    for block in blocks {
        language.blocks.register(block.reflection().start_tag().to_owned(), block);
    }
    for tag in tags {
        language.tags.register(tag.reflection().tag().to_owned(), tag);
    }
    for filter in counted::all() {
        language.filters.register(filter.reflection().name().to_owned(), Box::new(filter));
    }
    language
}

/// Fills a template in whose longest tag has so many bytes, and says what that cost.
pub(super) fn fill(
    template: &Template,
    longest_tag: usize,
    names: &dyn ObjectView,
    page: &mut Page,
) -> (u64, Result<()>) {
    let runtime = RuntimeBuilder::new().set_globals(names).build();
    runtime.registers().get_mut::<Spent>().begin(longest_tag);
    let done = template.render_to(page, &Scope(&runtime));
    let cost = runtime.registers().get_mut::<Spent>().all();
    (cost, done)
}

/// The engine's report as a line of the template and one sentence.
pub(super) fn explain(report: &str, template: &str) -> (u32, String) {
    let report = report.trim_start_matches("liquid:");
    // A filter's input is told in full: it may be long, and it says what an issue's writer likes.
    let report = report.find("\n    input=").map_or(report, |end| &report[..end]);
    let value = |name: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='));
    let marked = |mark: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(mark));
    let first = report.lines().next().unwrap_or_default().trim();
    let asked = match (value("variable"), value("requested index"), value("requested variable")) {
        (Some(parent), Some(index), _) => Some(format!("{parent}.{index}")),
        (_, _, Some(name)) => Some(name.to_owned()),
        _ => None,
    };
    // A list that has items says which numbers they have.
    let empty = asked.is_some() && value("available indexes") == Some("first, last");
    let mut sentence = match (&asked, value("requested filter"), marked("= ")) {
        (Some(name), ..) if empty => {
            let list = value("variable").unwrap_or_default();
            format!("there is no `{name}`: the list is empty; ask first, `{{% if {list}.size > 0 %}}`")
        }
        (Some(name), ..) => format!("there is no `{name}`"),
        (_, Some(name), _) => format!("there is no filter `{name}`"),
        (_, _, Some(expected)) => expected.trim_end_matches('.').to_owned(),
        _ => first.to_owned(),
    };
    for detail in [value("requested"), value("cause"), value("filter")].into_iter().flatten() {
        sentence.push_str(&format!(": {detail}"));
    }
    // The engine lists names in a random order, and tags and blocks apart.
    let mut known: Vec<&str> =
        ["available variables", "available indexes", "available filters", "available tags", "available blocks"]
            .into_iter()
            .filter_map(value)
            .filter(|_| !empty)
            .flat_map(|names| names.split(", "))
            .filter(|name| !name.is_empty() && *name != "include" && *name != "render")
            .collect();
    known.sort_unstable();
    let wrong = [value("requested index"), value("requested variable"), value("requested filter"), value("requested")];
    if let Some(meant) = wrong.into_iter().flatten().find_map(|name| nearest(name, known.iter().copied())) {
        sentence.push_str(&format!(" (did you mean `{meant}`?)"));
    }
    if !known.is_empty() {
        sentence.push_str(&format!("; known are {}", known.join(", ")));
    }
    let shown = marked("--> ").and_then(|place| place.split(':').next()?.parse().ok());
    let line = shown.unwrap_or_else(|| {
        // Most reports have no place: the first line of the template that mentions what is wrong.
        let last = value("requested index").filter(|_| asked.is_some());
        let filter = value("filter").and_then(|filter| filter.split([' ', ':']).next());
        let tag = first.strip_prefix("`{% ").and_then(|rest| rest.split(' ').next());
        let needles = [asked.as_deref(), last, value("requested filter"), filter, tag];
        needles.into_iter().flatten().find_map(|needle| line_of(template, needle)).unwrap_or(1)
    });
    (line, sentence)
}

/// The 1-based line of the first tag or output that mentions `needle`.
fn line_of(template: &str, needle: &str) -> Option<u32> {
    let index = template.lines().position(|line| line.contains('{') && line.contains(needle))?;
    u32::try_from(index).ok()?.checked_add(1)
}

/// A tag of the standard language that would read files.
#[derive(Clone)]
struct Refused(&'static str);

impl ParseTag for Refused {
    fn parse(&self, _arguments: TagTokenIter<'_>, _options: &Language) -> Result<Box<dyn Renderable>> {
        Err(Error::with_msg(format!("`{{% {} %}}` is not available: a prompt stands in WORKFLOW.md alone", self.0)))
    }

    fn reflection(&self) -> &dyn TagReflection {
        self
    }
}

impl TagReflection for Refused {
    fn tag(&self) -> &'static str {
        self.0
    }

    fn description(&self) -> &'static str {
        ""
    }
}
