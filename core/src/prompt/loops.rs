//! `for` and `tablerow`: over the items of a list, the fields of an object in their alphabetical order, or a range.
//!
//! The engine's own list a range before they walk it, so `(1..9999999999)` would take all memory there is, and they walk
//! an object in another order each time. Here a range has an end that is asked for when it is known, and each turn is
//! paid for before it begins.

use std::collections::HashMap;
use std::io::Write;

use liquid_core::error::Result;
use liquid_core::model::{KString, KStringRef, Scalar, ValueCow};
use liquid_core::parser::{BlockElement, TryMatchToken};
use liquid_core::runtime::{Interrupt, InterruptRegister, StackFrame};
use liquid_core::{
    BlockReflection, Error, Expression, Language, ObjectView, ParseBlock, Renderable, Runtime, TagBlock, TagTokenIter,
    Template, Value, ValueView,
};

use super::bounds::{LOOK, MAX_TURNS, Spent};

/// One of the two loops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum LoopBlock {
    For,
    TableRow,
}

impl BlockReflection for LoopBlock {
    fn start_tag(&self) -> &'static str {
        match self {
            Self::For => "for",
            Self::TableRow => "tablerow",
        }
    }

    fn end_tag(&self) -> &'static str {
        match self {
            Self::For => "endfor",
            Self::TableRow => "endtablerow",
        }
    }

    fn description(&self) -> &'static str {
        ""
    }
}

impl ParseBlock for LoopBlock {
    fn parse(
        &self,
        mut arguments: TagTokenIter<'_>,
        mut block: TagBlock<'_, '_>,
        options: &Language,
    ) -> Result<Box<dyn Renderable>> {
        let name = arguments.expect_next("a name is expected")?.expect_identifier().into_result()?.to_owned();
        arguments.expect_next("`in` is expected")?.expect_str("in").into_result_custom_msg("`in` is expected")?;
        let over = match arguments.expect_next("a list or a range is expected")?.expect_value() {
            TryMatchToken::Matches(list) => Over::List(list),
            TryMatchToken::Fails(token) => match token.expect_range() {
                TryMatchToken::Matches((from, to)) => Over::Range(from, to),
                TryMatchToken::Fails(token) => return Err(token.raise_error()),
            },
        };
        if let Over::Range(Expression::Literal(from), Expression::Literal(to)) = &over
            && let Err(why) = between(from, to)
        {
            return Err(arguments.raise_error(&why));
        }
        let (mut limit, mut offset, mut columns, mut reversed) = (None, None, None, false);
        while let Some(token) = arguments.next() {
            let set = match (token.as_str(), self) {
                ("limit", _) => &mut limit,
                ("offset", _) => &mut offset,
                ("cols", Self::TableRow) => &mut columns,
                ("reversed", Self::For) => {
                    reversed = true;
                    continue;
                }
                (_, Self::For) => return Err(token.raise_custom_error("`limit`, `offset` or `reversed` is expected")),
                (_, Self::TableRow) => return Err(token.raise_custom_error("`cols`, `limit` or `offset` is expected")),
            };
            arguments.expect_next("`:` is expected")?.expect_str(":").into_result_custom_msg("`:` is expected")?;
            *set = Some(arguments.expect_next("a number is expected")?.expect_value().into_result()?);
        }
        let (mut inside, mut otherwise) = (Vec::new(), None);
        while let Some(element) = block.next()? {
            match element {
                BlockElement::Tag(mut tag) if tag.name() == "else" && *self == Self::For => {
                    tag.tokens().expect_nothing()?;
                    otherwise = Some(Template::new(block.parse_all(options)?));
                    break;
                }
                element => inside.push(element.parse(&mut block, options)?),
            }
        }
        block.assert_empty();
        let inside = Template::new(inside);
        Ok(Box::new(Loop { kind: *self, name: name.into(), over, limit, offset, columns, reversed, inside, otherwise }))
    }

    fn reflection(&self) -> &dyn BlockReflection {
        self
    }
}

#[derive(Debug)]
enum Over {
    List(Expression),
    Range(Expression, Expression),
}

#[derive(Debug)]
struct Loop {
    kind: LoopBlock,
    name: KString,
    over: Over,
    limit: Option<Expression>,
    offset: Option<Expression>,
    columns: Option<Expression>,
    reversed: bool,
    inside: Template,
    otherwise: Option<Template>,
}

/// The whole numbers of a range, unless there are too many.
fn between(from: &dyn ValueView, to: &dyn ValueView) -> std::result::Result<(i64, i64), String> {
    let whole = |end: &dyn ValueView| end.as_scalar().and_then(|end| end.to_integer());
    let (Some(from), Some(to)) = (whole(from), whole(to)) else {
        return Err("a range stands between two whole numbers; ask first whether there is one, with `if`".to_owned());
    };
    if from <= to && to.abs_diff(from) >= MAX_TURNS {
        return Err(format!("a range turns at most {MAX_TURNS} times"));
    }
    Ok((from, to))
}

fn number(of: Option<&Expression>, runtime: &dyn Runtime) -> Result<Option<usize>> {
    let Some(of) = of else { return Ok(None) };
    let number = of.evaluate(runtime)?.as_scalar().and_then(|number| number.to_integer());
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.map(Some).ok_or_else(|| Error::with_msg("a loop's numbers are whole and not negative"))
}

/// Pays before it is too late.
fn spend(cost: u64, runtime: &dyn Runtime) -> Result<()> {
    let mut spent = runtime.registers().get_mut::<Spent>();
    spent.spend(cost);
    spent.over().map_or(Ok(()), |why| Err(Error::with_msg(why)))
}

/// What is walked, in order.
fn items(list: &dyn ValueView) -> Result<Vec<ValueCow<'_>>> {
    if let Some(items) = list.as_array() {
        return Ok(items.values().map(ValueCow::Borrowed).collect());
    }
    if let Some(object) = list.as_object() {
        let mut fields: Vec<(String, Value)> =
            object.iter().map(|(name, value)| (name.into_string(), value.to_value())).collect();
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        let pair = |(name, value)| ValueCow::Owned(Value::Array(vec![Value::scalar(name), value]));
        return Ok(fields.into_iter().map(pair).collect());
    }
    if list.is_state() || list.is_nil() {
        return Ok(vec![]);
    }
    Err(Error::with_msg(format!("a loop walks a list, and this is a {}", list.type_name())))
}

impl Renderable for Loop {
    fn render_to(&self, writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        match &self.over {
            Over::List(list) => {
                let list = list.evaluate(runtime)?;
                self.walk(items(list.as_view())?, writer, runtime)
            }
            Over::Range(from, to) => {
                let (from, to) = (from.evaluate(runtime)?, to.evaluate(runtime)?);
                let (from, to) = between(from.as_view(), to.as_view()).map_err(Error::with_msg)?;
                self.walk((from..=to).map(|number| Value::scalar(number).into()).collect(), writer, runtime)
            }
        }
    }
}

impl Loop {
    fn walk(&self, items: Vec<ValueCow<'_>>, writer: &mut dyn Write, runtime: &dyn Runtime) -> Result<()> {
        let offset = number(self.offset.as_ref(), runtime)?.unwrap_or(0);
        let limit = number(self.limit.as_ref(), runtime)?.unwrap_or(usize::MAX);
        let columns = number(self.columns.as_ref(), runtime)?;
        let mut items: Vec<_> = items.into_iter().skip(offset).take(limit).collect();
        if self.reversed {
            items.reverse();
        }
        if let (true, Some(otherwise)) = (items.is_empty(), &self.otherwise) {
            return otherwise.render_to(writer, runtime);
        }
        let columns = columns.unwrap_or(items.len()).max(1);
        let around = match self.kind {
            LoopBlock::For => runtime.try_get(&[Scalar::new("forloop")]),
            LoopBlock::TableRow => None,
        };
        let length = items.len();
        for (at, item) in items.iter().enumerate() {
            spend(LOOK, runtime)?;
            let place = Place::new(at, length);
            let column = at % columns;
            let (for_loop, table_row);
            let mut names: HashMap<KStringRef<'_>, &dyn ValueView> = HashMap::new();
            match self.kind {
                LoopBlock::For => {
                    for_loop = ForLoop::new(place, around.as_ref().map(ValueCow::as_view));
                    names.insert("forloop".into(), &for_loop);
                }
                LoopBlock::TableRow => {
                    table_row = TableRow::new(place, column, columns);
                    names.insert("tablerow".into(), &table_row);
                    if column == 0 {
                        put(writer, format_args!("<tr class=\"row{}\">", at / columns + 1))?;
                    }
                    put(writer, format_args!("<td class=\"col{}\">", column + 1))?;
                }
            }
            names.insert(self.name.as_ref(), item);
            let scope = StackFrame::new(runtime, &names);
            self.inside.render_to(writer, &scope)?;
            if self.kind == LoopBlock::TableRow {
                put(writer, format_args!("</td>"))?;
                if column + 1 == columns || at + 1 == length {
                    put(writer, format_args!("</tr>"))?;
                }
            } else if let Some(Interrupt::Break) = runtime.registers().get_mut::<InterruptRegister>().reset() {
                break;
            }
        }
        Ok(())
    }
}

fn put(writer: &mut dyn Write, text: std::fmt::Arguments<'_>) -> Result<()> {
    writer.write_fmt(text).map_err(|_| Error::with_msg("Failed to render"))
}

/// Where a turn is among the others.
#[derive(Clone, Copy)]
struct Place {
    at: i64,
    length: i64,
}

impl Place {
    fn new(at: usize, length: usize) -> Self {
        let whole = |number| i64::try_from(number).unwrap_or(i64::MAX);
        Self { at: whole(at), length: whole(length) }
    }
}

/// What a turn of `for` knows of itself.
#[derive(Debug, Clone, liquid_core::ValueView, liquid_core::ObjectView)]
struct ForLoop<'p> {
    length: i64,
    parentloop: Option<&'p dyn ValueView>,
    index0: i64,
    index: i64,
    rindex0: i64,
    rindex: i64,
    first: bool,
    last: bool,
}

impl<'p> ForLoop<'p> {
    fn new(Place { at, length }: Place, parentloop: Option<&'p dyn ValueView>) -> Self {
        let left = length - at;
        let (first, last) = (at == 0, left == 1);
        Self { length, parentloop, index0: at, index: at + 1, rindex0: left - 1, rindex: left, first, last }
    }
}

/// What a turn of `tablerow` knows of itself.
#[derive(Debug, Clone, liquid_core::ValueView, liquid_core::ObjectView)]
struct TableRow {
    length: i64,
    index0: i64,
    index: i64,
    rindex0: i64,
    rindex: i64,
    first: bool,
    last: bool,
    col0: i64,
    col: i64,
    col_first: bool,
    col_last: bool,
}

impl TableRow {
    fn new(Place { at, length }: Place, column: usize, columns: usize) -> Self {
        let left = length - at;
        let Place { at: col0, length: columns } = Place::new(column, columns);
        Self {
            length,
            index0: at,
            index: at + 1,
            rindex0: left - 1,
            rindex: left,
            first: at == 0,
            last: left == 1,
            col0,
            col: col0 + 1,
            col_first: col0 == 0,
            col_last: col0 + 1 == columns || left == 1,
        }
    }
}
