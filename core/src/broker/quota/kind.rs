//! What kind of error a provider's words name, by their own fields: the status that an error within a stream would have had
//! as an answer, and whether it says that there is no such model.

use serde_json::Value;

use super::{OF_A_MODEL, Refused, read};

/// The status of each kind, as the providers document them.
const STATUS: [(u16, &[&str]); 9] = [
    (400, &["invalid_request_error", "invalid_prompt", "context_length_exceeded", "INVALID_ARGUMENT"]),
    (
        401,
        &[
            "authentication_error",
            "invalid_api_key",
            "token_expired",
            "token_revoked",
            "token_invalidated",
            "account_deactivated",
            "UNAUTHENTICATED",
        ],
    ),
    (402, &["billing_error", "insufficient_quota", "billing_not_active", "billing_hard_limit_reached"]),
    (403, &["permission_error", "PERMISSION_DENIED"]),
    (404, &["not_found_error", "model_not_found", "NOT_FOUND"]),
    (413, &["request_too_large"]),
    (
        429,
        &[
            "rate_limit_error",
            "rate_limit_exceeded",
            "usage_limit_reached",
            "usage_limit_exceeded",
            "usage_not_included",
            "too_many_requests",
            "RESOURCE_EXHAUSTED",
        ],
    ),
    (503, &["UNAVAILABLE"]),
    (529, &["overloaded_error", "server_is_overloaded", "slow_down", "engine_overloaded"]),
];

/// The status that an error within a stream stands for; 500 for one that names no kind.
pub fn status(words: &str) -> u16 {
    let words = read(words);
    let said = |name: &str| words.pointer(&format!("/error/{name}")).and_then(Value::as_str);
    // A code is narrower than a type.
    let of = |word: &str| STATUS.iter().find(|(_, kinds)| kinds.contains(&word)).map(|(status, _)| *status);
    let named = ["code", "type", "status"].into_iter().filter_map(said).find_map(of);
    let number = || words.pointer("/error/code").and_then(Value::as_u64).filter(|code| (400..600).contains(code));
    named.or_else(|| number().and_then(|code| u16::try_from(code).ok())).unwrap_or(500)
}

/// Whether a refusal says that there is no such model, by its own kind: a path that is not there says nothing of one.
pub fn is_unknown_model(refused: &Refused<'_>) -> bool {
    let words = read(refused.words);
    let said = |name: &str| words.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
    let is = |kind: &str| said("type") == kind || said("code") == kind;
    let [of_a_model, of_anything] = OF_A_MODEL;
    let named = || !refused.model.is_empty() && said("message").contains(refused.model);
    match refused.status {
        400 | 404 if is(of_a_model) => true,
        404 => (is(of_anything) || said("status") == "NOT_FOUND") && named(),
        _ => false,
    }
}
