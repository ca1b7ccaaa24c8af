//! Blocks and tags of the standard language that see the scope through [`Scope`], which is strict and counts.
//!
//! The engine itself reports unknown names everywhere but in a bare `{% if name %}` or `{% unless name %}`, where it
//! takes them for false: every name that was not found is noted, and the note fails the block. And it bounds nothing:
//! what is looked up, assigned and walked is counted against one budget of a whole rendering ([`Spent`]).

use std::io::Write;

use liquid_core::error::Result;
use liquid_core::model::{KString, KStringCow, KStringRef, ScalarCow, ValueCow};
use liquid_core::parser::{ParseBlock, ParseTag, TagReflection};
use liquid_core::runtime::{PartialStore, Registers};
use liquid_core::{
    BlockReflection, Error, Language, Renderable, Runtime, TagBlock, TagTokenIter, Template, Value, ValueView,
};

use super::bounds::{self, Aside, Spent};

/// Names that conditions asked for in vain.
#[derive(Default)]
struct Missed(Option<String>);

/// A scope that notes failed optional lookups, and what everything costs.
pub(super) struct Scope<'r>(pub(super) &'r dyn Runtime);

impl Scope<'_> {
    /// Looks up through the scopes around this one, of which none may count again.
    fn counted<T>(&self, look: impl FnOnce() -> T, cost: impl FnOnce(&T) -> u64) -> T {
        let first = self.0.registers().get_mut::<Spent>().enter();
        let found = look();
        if first {
            self.0.registers().get_mut::<Spent>().leave(cost(&found));
        }
        found
    }

    fn is_over(&self) -> bool {
        self.0.registers().get_mut::<Spent>().over().is_some()
    }
}

impl Runtime for Scope<'_> {
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
        match self.get(path) {
            Ok(value) => Some(value),
            Err(_) => {
                let name = path.iter().map(|part| part.to_kstr().into_string()).collect::<Vec<_>>().join(".");
                // A loop asks for the loop around it, and there need not be one.
                if name != "forloop" && !self.is_over() {
                    self.0.registers().get_mut::<Missed>().0.get_or_insert(name);
                }
                None
            }
        }
    }

    fn get(&self, path: &[ScalarCow<'_>]) -> Result<ValueCow<'_>> {
        let found = self.counted(
            || self.0.get(path),
            |found| found.as_ref().map_or(bounds::LOOK, |value| bounds::cost(value.as_view())),
        );
        match self.0.registers().get_mut::<Spent>().over() {
            Some(why) => Err(Error::with_msg(why)),
            None => found,
        }
    }

    fn set_global(&self, name: KString, value: Value) -> Option<Value> {
        let cost = bounds::cost(&value);
        self.0.registers().get_mut::<Spent>().assign(cost);
        if self.is_over() { None } else { self.0.set_global(name, value) }
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

/// A block or a tag that is watched.
#[derive(Clone)]
pub(super) struct Watched<B>(B);

impl<B: ParseBlock + Clone + 'static> Watched<B> {
    pub(super) fn block(inner: B) -> Box<dyn ParseBlock> {
        Box::new(Self(inner))
    }
}

impl<T: ParseTag + Clone + 'static> Watched<T> {
    pub(super) fn tag(inner: T) -> Box<dyn ParseTag> {
        Box::new(Self(inner))
    }
}

impl<B: ParseBlock + Clone + 'static> ParseBlock for Watched<B> {
    fn parse(
        &self,
        arguments: TagTokenIter<'_>,
        block: TagBlock<'_, '_>,
        options: &Language,
    ) -> Result<Box<dyn Renderable>> {
        Ok(Box::new(WatchedRender(self.0.parse(arguments, block, options)?)))
    }

    fn reflection(&self) -> &dyn BlockReflection {
        self.0.reflection()
    }
}

impl<T: ParseTag + Clone + 'static> ParseTag for Watched<T> {
    fn parse(&self, arguments: TagTokenIter<'_>, options: &Language) -> Result<Box<dyn Renderable>> {
        Ok(Box::new(WatchedRender(self.0.parse(arguments, options)?)))
    }

    fn reflection(&self) -> &dyn TagReflection {
        self.0.reflection()
    }
}

#[derive(Debug)]
struct WatchedRender(Box<dyn Renderable>);

impl Renderable for WatchedRender {
    fn render_to(&self, writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        let registers = runtime.registers();
        let over = || registers.get_mut::<Spent>().over().map(Error::with_msg);
        registers.get_mut::<Spent>().tag();
        over().map_or(Ok(()), Err)?;
        self.0.render_to(writer, &Scope(runtime))?;
        over().map_or(Ok(()), Err)?;
        match registers.get_mut::<Missed>().0.take() {
            Some(name) => Err(Error::with_msg("Unknown variable").context("requested variable", name)),
            None => Ok(()),
        }
    }
}

/// `capture`, into a page that ends: the engine's own grows for ever.
#[derive(Clone)]
pub(super) struct CaptureBlock;

impl BlockReflection for CaptureBlock {
    fn start_tag(&self) -> &'static str {
        "capture"
    }

    fn end_tag(&self) -> &'static str {
        "endcapture"
    }

    fn description(&self) -> &'static str {
        ""
    }
}

impl ParseBlock for CaptureBlock {
    fn parse(
        &self,
        mut arguments: TagTokenIter<'_>,
        mut block: TagBlock<'_, '_>,
        options: &Language,
    ) -> Result<Box<dyn Renderable>> {
        let name = arguments.expect_next("Identifier expected")?.expect_identifier().into_result()?.to_owned();
        arguments.expect_nothing()?;
        let inside = Template::new(block.parse_all(options)?);
        Ok(Box::new(Capture { name: name.into(), inside }))
    }

    fn reflection(&self) -> &dyn BlockReflection {
        self
    }
}

#[derive(Debug)]
struct Capture {
    name: KString,
    inside: Template,
}

impl Renderable for Capture {
    fn render_to(&self, _writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        let text = Aside::new(runtime.registers()).filled(&self.inside, runtime)?;
        runtime.set_global(self.name.clone(), Value::scalar(text));
        Ok(())
    }
}

/// `ifchanged`, into a page that ends: the engine's own grows for ever.
#[derive(Clone)]
pub(super) struct IfChangedBlock;

impl BlockReflection for IfChangedBlock {
    fn start_tag(&self) -> &'static str {
        "ifchanged"
    }

    fn end_tag(&self) -> &'static str {
        "endifchanged"
    }

    fn description(&self) -> &'static str {
        ""
    }
}

impl ParseBlock for IfChangedBlock {
    fn parse(
        &self,
        mut arguments: TagTokenIter<'_>,
        mut block: TagBlock<'_, '_>,
        options: &Language,
    ) -> Result<Box<dyn Renderable>> {
        arguments.expect_nothing()?;
        Ok(Box::new(IfChanged(Template::new(block.parse_all(options)?))))
    }

    fn reflection(&self) -> &dyn BlockReflection {
        self
    }
}

#[derive(Debug)]
struct IfChanged(Template);

/// What the last `ifchanged` said.
#[derive(Default)]
struct Last(Option<String>);

impl Renderable for IfChanged {
    fn render_to(&self, writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        let text = Aside::new(runtime.registers()).filled(&self.0, runtime)?;
        let last = runtime.registers().get_mut::<Last>().0.replace(text.clone());
        if last.as_ref() == Some(&text) {
            return Ok(());
        }
        let written = writer.write_all(text.as_bytes());
        written.map_err(|_| Error::with_msg("Failed to render"))
    }
}
