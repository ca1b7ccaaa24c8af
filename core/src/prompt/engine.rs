//! The Liquid engine, made strict.
//!
//! The engine itself reports unknown names everywhere but in a bare `{% if name %}` or
//! `{% unless name %}`, where it takes them for false. So these two blocks see the scope through
//! [`Strict`], which notes every name that was not found; the note fails the block.

use std::io::Write;

use liquid_core::error::Result;
use liquid_core::model::{KString, KStringCow, KStringRef, ScalarCow, ValueCow};
use liquid_core::parser::{ParseBlock, ParseTag, TagReflection};
use liquid_core::runtime::{PartialStore, Registers};
use liquid_core::{
    BlockReflection, Display_filter, Error, Filter, FilterReflection, Language, ParseFilter, Renderable, Runtime,
    TagBlock, TagTokenIter, Value, ValueView,
};
use liquid_lib::stdlib::{IfBlock, UnlessBlock};

use crate::workflow::problem::nearest;

/// The standard language without files, with strict conditions and `json`.
pub(super) fn parser() -> Result<liquid::Parser> {
    let refused = |name| Box::new(Refused(name)) as Box<dyn ParseTag>;
    liquid::ParserBuilder::with_stdlib()
        .block(Box::new(StrictBlock(IfBlock)) as Box<dyn ParseBlock>)
        .block(Box::new(StrictBlock(UnlessBlock)) as Box<dyn ParseBlock>)
        .tag(refused("include"))
        .tag(refused("render"))
        .filter(Json)
        .build()
}

/// The engine's report as a line of the template and one sentence.
pub(super) fn explain(report: &str, template: &str) -> (u32, String) {
    let report = report.trim_start_matches("liquid:");
    let value = |name: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='));
    let marked = |mark: &str| report.lines().find_map(|line| line.trim_start().strip_prefix(mark));
    let first = report.lines().next().unwrap_or_default().trim();
    let asked = match (value("variable"), value("requested index"), value("requested variable")) {
        (Some(parent), Some(index), _) => Some(format!("{parent}.{index}")),
        (_, _, Some(name)) => Some(name.to_owned()),
        _ => None,
    };
    let mut sentence = match (&asked, value("requested filter"), marked("= ")) {
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

/// Names that conditions asked for in vain.
#[derive(Default)]
struct Missed(Option<String>);

/// A scope that notes failed optional lookups.
struct Strict<'r>(&'r dyn Runtime);

impl Runtime for Strict<'_> {
    fn partials(&self) -> &dyn PartialStore {
        self.0.partials()
    }

    fn name(&self) -> Option<KStringRef<'_>> {
        self.0.name()
    }

    fn roots(&self) -> std::collections::BTreeSet<KStringCow<'_>> {
        self.0.roots()
    }

    fn try_get(&self, path: &[ScalarCow<'_>]) -> Option<ValueCow<'_>> {
        match self.0.get(path) {
            Ok(value) => Some(value),
            Err(_) => {
                let name = path.iter().map(|part| part.to_kstr().into_string()).collect::<Vec<_>>().join(".");
                // A loop asks for the loop around it, and there need not be one.
                if name != "forloop" {
                    self.0.registers().get_mut::<Missed>().0.get_or_insert(name);
                }
                None
            }
        }
    }

    fn get(&self, path: &[ScalarCow<'_>]) -> Result<ValueCow<'_>> {
        self.0.get(path)
    }

    fn set_global(&self, name: KString, value: Value) -> Option<Value> {
        self.0.set_global(name, value)
    }

    fn set_index(&self, name: KString, value: Value) -> Option<Value> {
        self.0.set_index(name, value)
    }

    fn get_index<'a>(&'a self, name: &str) -> Option<ValueCow<'a>> {
        self.0.get_index(name)
    }

    fn registers(&self) -> &Registers {
        self.0.registers()
    }
}

/// A block whose conditions are strict.
#[derive(Clone)]
struct StrictBlock<B>(B);

impl<B: ParseBlock + Clone + 'static> ParseBlock for StrictBlock<B> {
    fn parse(
        &self,
        arguments: TagTokenIter<'_>,
        block: TagBlock<'_, '_>,
        options: &Language,
    ) -> Result<Box<dyn Renderable>> {
        Ok(Box::new(StrictRender(self.0.parse(arguments, block, options)?)))
    }

    fn reflection(&self) -> &dyn BlockReflection {
        self.0.reflection()
    }
}

#[derive(Debug)]
struct StrictRender(Box<dyn Renderable>);

impl Renderable for StrictRender {
    fn render_to(&self, writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        self.0.render_to(writer, &Strict(runtime))?;
        match runtime.registers().get_mut::<Missed>().0.take() {
            Some(name) => Err(Error::with_msg("Unknown variable").context("requested variable", name)),
            None => Ok(()),
        }
    }
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

/// `json`: the value as JSON, keys sorted.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "json", description = "The value as JSON.", parsed(JsonFilter))]
struct Json;

#[derive(Debug, Default, Display_filter)]
#[name = "json"]
struct JsonFilter;

impl Filter for JsonFilter {
    fn evaluate(&self, input: &dyn ValueView, _runtime: &dyn Runtime) -> Result<Value> {
        let json = serde_json::to_value(input.to_value()).and_then(|mut value| {
            // The engine's objects have no order, and another crate may have asked serde_json to keep theirs.
            value.sort_all_objects();
            serde_json::to_string(&value)
        });
        json.map(Value::scalar).map_err(|error| Error::with_msg(format!("not expressible as JSON: {error}")))
    }
}
