//! Which headers pass. Lists of what may: a guest chooses neither who pays nor where an answer goes, and learns nothing
//! of whose credential it uses.

use super::Provider;

/// Whether a request's header goes to the provider. `name` is in lower case. The credential is the host's to add.
pub fn request_header(provider: Provider, name: &str) -> bool {
    match name {
        "accept" | "user-agent" | "x-client-request-id" => true,
        "anthropic-version" | "anthropic-beta" | "x-app" => provider == Provider::Anthropic,
        "openai-beta" | "originator" | "session-id" | "session_id" | "thread-id" | "conversation_id" | "version" => {
            provider == Provider::OpenAi
        }
        _ => provider == Provider::OpenAi && name.starts_with("x-codex-"),
    }
}

/// What Codex shows of its limits, and what it sends back to stay with one server. Plan, credits and offers are its owner's.
const CODEX: [&str; 10] = [
    "x-codex-primary-used-percent",
    "x-codex-primary-window-minutes",
    "x-codex-primary-reset-at",
    "x-codex-primary-reset-after-seconds",
    "x-codex-secondary-used-percent",
    "x-codex-secondary-window-minutes",
    "x-codex-secondary-reset-at",
    "x-codex-secondary-reset-after-seconds",
    "x-codex-primary-over-secondary-limit-percent",
    "x-codex-turn-state",
];

/// Whether an answer's header goes to the agent. `name` is in lower case.
pub fn response_header(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "content-type",
        "content-encoding",
        "cache-control",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "request-id",
        "x-request-id",
        "openai-processing-ms",
        "openai-model",
    ];
    const PREFIXES: [&str; 2] = ["anthropic-ratelimit-", "x-ratelimit-"];
    NAMES.contains(&name) || CODEX.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The betas of an `anthropic-beta` header without the one that goes with a login: which credential is used is not the
/// agent's to say.
pub fn without_login_beta(betas: &str) -> String {
    let betas = betas.split(',').map(str::trim).filter(|beta| !beta.is_empty() && !beta.starts_with("oauth-"));
    betas.collect::<Vec<_>>().join(",")
}
