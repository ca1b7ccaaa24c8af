//! Filters of our own: `json`, and those of the standard language that would multiply the lengths of their inputs, or
//! take far more time or memory than these are long.

use std::collections::HashSet;

use liquid_core::error::Result;
use liquid_core::model::DateTime;
use liquid_core::{
    Display_filter, Error, Expression, Filter, FilterParameters, FilterReflection, FromFilterParameters, ParseFilter,
    Runtime, Value, ValueView,
};

use super::bounds::{LOOK, MAX_FILLED, MAX_SPENT};

/// `json`: the value as JSON, keys sorted.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "json", description = "The value as JSON.", parsed(JsonFilter))]
pub(super) struct Json;

#[derive(Debug, Default, Display_filter)]
#[name = "json"]
struct JsonFilter;

impl Filter for JsonFilter {
    fn evaluate(&self, input: &dyn ValueView, _runtime: &dyn Runtime) -> Result<Value> {
        json(input).map(Value::scalar)
    }
}

fn json(value: &dyn ValueView) -> Result<String> {
    let json = serde_json::to_value(value.to_value()).and_then(|mut value| {
        // The engine's objects have no order, and another crate may have asked serde_json to keep theirs.
        value.sort_all_objects();
        serde_json::to_string(&value)
    });
    json.map_err(|error| Error::with_msg(format!("not expressible as JSON: {error}")))
}

/// What has `length` bytes, unless that is more than a prompt may have.
pub(super) fn bounded<T>(length: Option<usize>, made: impl FnOnce() -> T) -> Result<T> {
    if length.is_none_or(|length| length > MAX_FILLED) {
        return Err(Error::with_msg(format!("the result is longer than {MAX_FILLED} bytes")));
    }
    Ok(made())
}

#[derive(Debug, FilterParameters)]
struct JoinArgs {
    #[parameter(description = "What stands between two items; a space when it is left out.", arg_type = "str")]
    separator: Option<Expression>,
}

/// `join`: the items of an array as one text.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "join", description = "The items of an array as one text.", parameters(JoinArgs), parsed(JoinFilter))]
pub(super) struct Join;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "join"]
struct JoinFilter {
    #[parameters]
    args: JoinArgs,
}

impl Filter for JoinFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        let separator = args.separator.unwrap_or_else(|| " ".into());
        let items = input.as_array().ok_or_else(|| Error::with_msg("an array of texts is expected"))?;
        let items: Vec<_> = items.values().map(ValueView::to_kstr).collect();
        let between = items.len().saturating_sub(1).checked_mul(separator.len());
        let length = items.iter().fold(between, |sum, item| sum?.checked_add(item.len()));
        bounded(length, || items.iter().map(|item| item.as_str()).collect::<Vec<_>>().join(separator.as_str()))
            .map(Value::scalar)
    }
}

#[derive(Debug, FilterParameters)]
struct ReplaceArgs {
    #[parameter(description = "The text to look for.", arg_type = "str")]
    search: Expression,
    #[parameter(description = "What stands there instead; nothing when it is left out.", arg_type = "str")]
    replace: Option<Expression>,
}

/// `replace`: another text in each place of one text.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(
    name = "replace",
    description = "Another text in each place of one text.",
    parameters(ReplaceArgs),
    parsed(ReplaceFilter)
)]
pub(super) struct Replace;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "replace"]
struct ReplaceFilter {
    #[parameters]
    args: ReplaceArgs,
}

impl Filter for ReplaceFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        let (input, search) = (input.to_kstr(), args.search);
        let replace = args.replace.unwrap_or_else(|| "".into());
        let places = input.matches(search.as_str()).count();
        // What is taken out counts, too: it only has to be in the right order of size.
        let length = places.checked_mul(replace.len()).and_then(|added| added.checked_add(input.len()));
        bounded(length, || input.replace(search.as_str(), replace.as_str())).map(Value::scalar)
    }
}

#[derive(Debug, FilterParameters)]
struct SplitArgs {
    #[parameter(description = "What stands between two items.", arg_type = "str")]
    pattern: Expression,
}

/// `split`: a text as an array of texts.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "split", description = "A text as an array.", parameters(SplitArgs), parsed(SplitFilter))]
pub(super) struct Split;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "split"]
struct SplitFilter {
    #[parameters]
    args: SplitArgs,
}

impl Filter for SplitFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        let input = input.to_kstr();
        // Nothing could be done with more, and each takes far more memory than its text.
        if input.matches(args.pattern.as_str()).count() as u64 > MAX_SPENT / LOOK {
            return Err(Error::with_msg(format!("the result has more than {} items", MAX_SPENT / LOOK)));
        }
        let items = input.split(args.pattern.as_str()).map(|item| Value::scalar(item.to_owned()));
        Ok(Value::Array(if input.is_empty() { vec![] } else { items.collect() }))
    }
}

/// `uniq`: each item of an array once, where it stands first.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "uniq", description = "Each item of an array once.", parsed(UniqFilter))]
pub(super) struct Uniq;

#[derive(Debug, Default, Display_filter)]
#[name = "uniq"]
struct UniqFilter;

impl Filter for UniqFilter {
    fn evaluate(&self, input: &dyn ValueView, _runtime: &dyn Runtime) -> Result<Value> {
        let items = input.as_array().ok_or_else(|| Error::with_msg("an array is expected"))?;
        // The engine's own compares each item with each; as JSON, two that are the same say the same.
        let mut seen = HashSet::new();
        let mut kept = Vec::new();
        for item in items.values() {
            if seen.insert(json(item)?) {
                kept.push(item.to_value());
            }
        }
        Ok(Value::Array(kept))
    }
}

/// Widest field of a date, in characters.
const MAX_WIDTH: usize = 999;
/// Longest that a field of a date is by itself, in bytes.
const MAX_FIELD: usize = 64;

#[derive(Debug, FilterParameters)]
struct DateArgs {
    #[parameter(description = "How the date is written.", arg_type = "str")]
    format: Expression,
}

/// `date`: an instant in another form; what is no instant stays as it is.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "date", description = "A date in another form.", parameters(DateArgs), parsed(DateFilter))]
pub(super) struct Date;

#[derive(Debug, FromFilterParameters, Display_filter)]
#[name = "date"]
struct DateFilter {
    #[parameters]
    args: DateArgs,
}

impl Filter for DateFilter {
    fn evaluate(&self, input: &dyn ValueView, runtime: &dyn Runtime) -> Result<Value> {
        let args = self.args.evaluate(runtime)?;
        let format = args.format.as_str();
        let date = input.as_scalar().and_then(|scalar| scalar.to_date_time().or_else(|| instant(&scalar.to_kstr())));
        let Some(date) = date.filter(|_| !format.is_empty()) else { return Ok(input.to_value()) };
        bounded(Some(longest_date(format)?), || date.format(format))?
            .map(Value::scalar)
            .map_err(|_| Error::with_msg(format!("the date format `{}` is wrong", shortened(format))))
    }
}

/// An instant as an issue has it, which the engine does not read.
fn instant(text: &str) -> Option<DateTime> {
    let at: jiff::Timestamp = text.parse().ok()?;
    DateTime::from_str(&at.strftime("%Y-%m-%d %H:%M:%S +0000").to_string())
}

/// At most how long a date in this format is: the engine fills a field of any width.
fn longest_date(format: &str) -> Result<usize> {
    let mut length = format.len();
    for field in format.split('%').skip(1) {
        let digits: String = field
            .trim_start_matches(|c: char| !c.is_ascii_alphanumeric() || c == '0')
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let width = if digits.is_empty() { Ok(0) } else { digits.parse::<usize>() };
        let width = width.ok().filter(|width| *width <= MAX_WIDTH);
        let said = || format!("a field of the date format `{}` is wider than {MAX_WIDTH}", shortened(format));
        length += width.ok_or_else(|| Error::with_msg(said()))? + MAX_FIELD;
    }
    Ok(length)
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
