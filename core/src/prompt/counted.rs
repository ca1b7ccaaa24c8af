//! Every filter there is, each counted: what goes in costs, and what comes out has an end.
//!
//! A filter of the engine bounds nothing. Here each pays for its input and for the plain values that stand beside it
//! before it is asked, and looks names up through [`Scope`], which counts those. What it answers is the next one's
//! input, or is written or kept, and so is paid for there.

use std::fmt;

use liquid_core::error::Result;
use liquid_core::parser::{FilterArguments, FilterReflection};
use liquid_core::{Error, Expression, Filter, ParseFilter, Runtime, Value, ValueView};
use liquid_lib::stdlib::{
    Abs, Append, AtLeast, AtMost, Capitalize, Ceil, Compact, Concat, Default as DefaultTo, DividedBy, Downcase, Escape,
    EscapeOnce, First, Floor, Last, Lstrip, Map, Minus, Modulo, NewlineToBr, Plus, Prepend, Remove, RemoveFirst,
    ReplaceFirst, Reverse, Round, Rstrip, Size, Slice, Sort, SortNatural, Strip, StripHtml, StripNewlines, Times,
    Truncate, TruncateWords, Upcase, UrlDecode, UrlEncode, Where,
};

use super::bounds::{self, Spent};
use super::filters::{Date, Join, Json, Replace, Split, Uniq, bounded};
use super::watched::Scope;

/// The filters of the standard language, some in a form of our own, and `json`.
pub(super) fn all() -> Vec<Counted> {
    fn one(filter: impl ParseFilter + 'static) -> Counted {
        Counted(Box::new(filter))
    }
    vec![
        one(Abs),
        one(Append),
        one(AtLeast),
        one(AtMost),
        one(Capitalize),
        one(Ceil),
        one(Compact),
        one(Concat),
        one(Date),
        one(DefaultTo),
        one(DividedBy),
        one(Downcase),
        one(Escape),
        one(EscapeOnce),
        one(First),
        one(Floor),
        one(Join),
        one(Json),
        one(Last),
        one(Lstrip),
        one(Map),
        one(Minus),
        one(Modulo),
        one(NewlineToBr),
        one(Plus),
        one(Prepend),
        one(Remove),
        one(RemoveFirst),
        one(Replace),
        one(ReplaceFirst),
        one(Reverse),
        one(Round),
        one(Rstrip),
        one(Size),
        one(Slice),
        one(Sort),
        one(SortNatural),
        one(Split),
        one(Strip),
        one(StripHtml),
        one(StripNewlines),
        one(Times),
        one(Truncate),
        one(TruncateWords),
        one(Uniq),
        one(Upcase),
        one(UrlDecode),
        one(UrlEncode),
        one(Where),
    ]
}

/// A filter that is counted.
#[derive(Clone)]
pub(super) struct Counted(Box<dyn ParseFilter>);

impl ParseFilter for Counted {
    fn parse(&self, arguments: FilterArguments<'_>) -> Result<Box<dyn Filter>> {
        let positional: Vec<Expression> = arguments.positional.collect();
        let keyword: Vec<(&str, Expression)> = arguments.keyword.collect();
        let plain = |argument: &Expression| match argument {
            Expression::Literal(value) => bounds::cost(value),
            Expression::Variable(_) => 0,
        };
        let beside = positional.iter().chain(keyword.iter().map(|(_, argument)| argument)).map(plain).sum();
        let arguments =
            FilterArguments { positional: Box::new(positional.into_iter()), keyword: Box::new(keyword.into_iter()) };
        Ok(Box::new(CountedFilter { inner: self.0.parse(arguments)?, beside }))
    }

    fn reflection(&self) -> &dyn FilterReflection {
        self.0.reflection()
    }
}

#[derive(Debug)]
struct CountedFilter {
    inner: Box<dyn Filter>,
    /// What the plain values beside it cost.
    beside: u64,
}

impl fmt::Display for CountedFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Filter for CountedFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let cost = bounds::cost(input).saturating_add(self.beside);
        let over = {
            let mut spent = runtime.registers().get_mut::<Spent>();
            spent.spend(cost);
            spent.over()
        };
        if let Some(why) = over {
            return Err(Error::with_msg(why));
        }
        let value = self.inner.evaluate(input, &Scope(runtime))?;
        match value.as_scalar() {
            Some(text) => bounded(Some(text.to_kstr().len()), || ()).map(|()| value),
            None => Ok(value),
        }
    }
}
