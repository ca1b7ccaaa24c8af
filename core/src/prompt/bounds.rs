//! What a template may cost: how often its loops turn, how much it looks at, and how much it may say.
//!
//! The texts, lists and numbers of an issue are its writer's: what is done with them again and again is counted.

use std::io::{self, Write};

use liquid_core::error::Result;
use liquid_core::runtime::Registers;
use liquid_core::{Error, Renderable, Runtime, Template, ValueView};

/// Longest prompt, in bytes.
pub const MAX_FILLED: usize = 8 * 1024 * 1024;
/// Most turns of one range.
pub(super) const MAX_TURNS: u64 = 10_000;
/// What looking at a value costs, however small it is, and so what a turn costs; a byte of text costs 1.
pub(super) const LOOK: u64 = 128;
/// Most that a rendering may cost: 524,288 turns, or 64 MiB of text looked at.
pub(super) const MAX_SPENT: u64 = 64 * 1024 * 1024;
/// Most that a value with a name may cost.
const MAX_KEPT: u64 = MAX_FILLED as u64 + LOOK;
/// Said of a text that has no end.
pub(super) const TOO_LONG: &str = "a text or list in it grows beyond 8 MiB";

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

/// A page that is filled aside, and paid for while it grows: pages stand in each other, and nothing of one is seen
/// before it ends.
pub(super) struct Aside<'r> {
    page: Page,
    registers: &'r Registers,
}

impl<'r> Aside<'r> {
    pub(super) fn new(registers: &'r Registers) -> Self {
        Self { page: Page::default(), registers }
    }

    /// Fills it.
    pub(super) fn filled(mut self, inside: &Template, runtime: &dyn Runtime) -> Result<String> {
        let done = inside.render_to(&mut self, runtime);
        if self.page.full {
            return Err(Error::with_msg(TOO_LONG));
        }
        // The engine drops the words of a writer's error.
        if let Some(why) = self.registers.get_mut::<Spent>().over() {
            return Err(Error::with_msg(why));
        }
        done?;
        Ok(String::from_utf8_lossy(&self.page.text).into_owned())
    }
}

impl Write for Aside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut spent = self.registers.get_mut::<Spent>();
        spent.spend(bytes.len() as u64);
        if spent.over().is_some() { Err(io::ErrorKind::FileTooLarge.into()) } else { self.page.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a value costs: a look for each item in it, and each byte of its texts.
pub(super) fn cost(value: &dyn ValueView) -> u64 {
    let inside = if let Some(items) = value.as_array() {
        items.values().map(cost).sum()
    } else if let Some(fields) = value.as_object() {
        fields.values().map(cost).sum()
    } else {
        value.as_scalar().map_or(0, |scalar| scalar.to_kstr().len() as u64)
    };
    inside.saturating_add(LOOK)
}

/// What a rendering has cost so far.
#[derive(Default)]
pub(super) struct Spent {
    all: u64,
    over: Option<&'static str>,
    looking: bool,
    /// What each tag costs for the plain values in it.
    tag: u64,
}

impl Spent {
    /// For a template whose longest tag has so many bytes: to compare two texts takes a fraction of looking at one.
    pub(super) fn begin(&mut self, longest_tag: usize) {
        self.tag = LOOK + longest_tag as u64 / 16;
    }

    /// Enters a tag.
    pub(super) fn tag(&mut self) {
        self.spend(self.tag);
    }

    /// What was spent so far.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn spend(&mut self, cost: u64) {
        self.all = self.all.saturating_add(cost);
        if self.all > MAX_SPENT {
            self.over.get_or_insert("it takes too much work: it looks at long texts and lists too often");
        }
    }

    /// Keeps a value of this cost under a name.
    pub(super) fn assign(&mut self, cost: u64) {
        if cost > MAX_KEPT {
            self.over.get_or_insert(TOO_LONG);
        }
        self.spend(cost);
    }

    /// Begins a lookup; false when it is part of another one.
    pub(super) fn enter(&mut self) -> bool {
        !std::mem::replace(&mut self.looking, true)
    }

    pub(super) fn leave(&mut self, cost: u64) {
        self.looking = false;
        self.spend(cost);
    }

    /// Why the rendering ends here, if it does.
    pub(super) fn over(&self) -> Option<&'static str> {
        self.over
    }
}
