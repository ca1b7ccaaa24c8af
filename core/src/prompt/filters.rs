//! Filters of our own: `json`, and the two that multiply the lengths of their inputs, which are bounded here.

use liquid_core::error::Result;
use liquid_core::{
    Display_filter, Error, Expression, Filter, FilterParameters, FilterReflection, FromFilterParameters, ParseFilter,
    Runtime, Value, ValueView,
};

use super::bounds::MAX_FILLED;

/// `json`: the value as JSON, keys sorted.
#[derive(Clone, ParseFilter, FilterReflection)]
#[filter(name = "json", description = "The value as JSON.", parsed(JsonFilter))]
pub(super) struct Json;

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

/// The text that has `length` bytes, unless that is more than a prompt may have.
fn bounded(length: Option<usize>, text: impl FnOnce() -> String) -> Result<Value> {
    if length.is_none_or(|length| length > MAX_FILLED) {
        return Err(Error::with_msg(format!("the result is longer than {MAX_FILLED} bytes")));
    }
    Ok(Value::scalar(text()))
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
        bounded(length, || input.replace(search.as_str(), replace.as_str()))
    }
}
