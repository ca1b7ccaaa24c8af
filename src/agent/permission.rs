//! The answer to a permission request: a pure decision (C170).
//!
//! The sandbox is the boundary, so what the agent may do inside it is allowed: once rather than
//! always, because "always" makes real agents write settings into the work tree.

use serde_json::{Value, json};

/// What is answered to `session/request_permission`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The option of this id.
    Select {
        /// `optionId`.
        id: String,
        /// Its name, for the event.
        name: String,
    },
    /// No option approves, or no turn is under way in which anything could be approved.
    Cancel,
}

/// Chooses by kind, `allow_once` before `allow_always`. A reject, or a kind nobody knows, is not an
/// approval. Outside a turn, and in one that is being cancelled, the protocol wants `cancelled`: nothing is left open, and
/// nothing is allowed that no prompt asked for.
pub fn decide(params: &Value, in_turn: bool) -> Decision {
    if !in_turn {
        return Decision::Cancel;
    }
    let options = params.get("options").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of_kind = |kind: &str| {
        options.iter().find_map(|option| {
            let id = option.get("optionId")?.as_str()?;
            (option.get("kind")?.as_str()? == kind)
                .then(|| (id.to_owned(), option.get("name").and_then(Value::as_str).unwrap_or(id).to_owned()))
        })
    };
    match of_kind("allow_once").or_else(|| of_kind("allow_always")) {
        Some((id, name)) => Decision::Select { id, name },
        None => Decision::Cancel,
    }
}

impl Decision {
    /// The result of the JSON-RPC response.
    pub fn to_response(&self) -> Value {
        match self {
            Self::Select { id, .. } => json!({"outcome": {"outcome": "selected", "optionId": id}}),
            Self::Cancel => json!({"outcome": {"outcome": "cancelled"}}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(kinds: &[(&str, &str)]) -> Option<String> {
        let options: Vec<Value> =
            kinds.iter().map(|(id, kind)| json!({"optionId": id, "name": id, "kind": kind})).collect();
        match decide(&json!({"options": options}), true) {
            Decision::Select { id, .. } => Some(id),
            Decision::Cancel => None,
        }
    }

    #[test]
    fn allow_once_is_preferred_wherever_it_stands() {
        assert_eq!(chosen(&[("r", "reject_once"), ("a", "allow_always"), ("o", "allow_once")]).as_deref(), Some("o"));
        assert_eq!(chosen(&[("r", "reject_always"), ("a", "allow_always")]).as_deref(), Some("a"));
    }

    #[test]
    fn a_reject_or_an_unknown_kind_is_never_an_approval() {
        assert_eq!(chosen(&[("r", "reject_once"), ("s", "reject_always")]), None);
        assert_eq!(chosen(&[("x", "allow_everything_forever")]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn options_that_make_no_sense_are_cancelled_not_fatal() {
        for params in
            [json!(null), json!({}), json!({"options": "yes"}), json!({"options": [{"kind": "allow_once"}, 3]})]
        {
            assert_eq!(decide(&params, true), Decision::Cancel, "{params}");
        }
    }

    #[test]
    fn outside_a_turn_every_request_is_answered_cancelled() {
        let params = json!({"options": [{"optionId": "o", "name": "yes", "kind": "allow_once"}]});
        assert_eq!(decide(&params, false).to_response(), json!({"outcome": {"outcome": "cancelled"}}));
    }
}
