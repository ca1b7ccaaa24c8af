//! `credentials`, `providers.*` and `egress.provider_tools`: how agents reach models, and with whose key.

use super::parse::is_loopback;
use super::problem::{Code, Problem};
use super::read::{Reader, Section};
use crate::broker::login::Login;
use crate::broker::{Provider, Rules};

/// Long enough for limits that count minutes.
const HOLD_MS: i64 = 90_000;
/// Clients of agents take a connection for dead after five minutes.
const HOLD_MOST_MS: i64 = 240_000;

/// How agents reach models.
#[derive(Clone, Debug, PartialEq)]
pub struct Models {
    /// `providers.anthropic`
    pub anthropic: ProviderRule,
    /// `providers.openai`
    pub openai: ProviderRule,
    /// `providers.google`
    pub google: ProviderRule,
    /// `providers.hold_ms`: how long a request is held for a provider that asked to wait, or for room in a budget; after
    /// that its run ends.
    pub hold_ms: u64,
    /// `credentials: stage`: whether logins are copied into sandboxes.
    pub staged: bool,
    /// `egress.provider_tools`: whether requests may use what the provider runs, fetches or keeps.
    pub provider_tools: bool,
}

/// One entry of `providers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderRule {
    /// Where its API is, without a slash at the end; `None`: the provider's own address.
    pub base_url: Option<String>,
    /// The variable of the host that holds its key; `None`: the provider's usual one, for itself and for this machine.
    pub api_key_env: Option<String>,
    /// The only models that may be asked; `None` is any.
    pub models: Option<Vec<String>>,
    /// Whether a login of Claude Code or Codex may go to a `base_url` that is not the provider's own.
    pub login: bool,
    /// Whether a login that ends is renewed here, which replaces its file.
    pub refresh: bool,
}

impl ProviderRule {
    /// The variable in which a key is looked for.
    pub fn key_variable(&self, provider: Provider) -> &str {
        self.api_key_env.as_deref().unwrap_or(provider.api_key_env())
    }

    /// Whether that key may go to `base_url`: one that stands in the environment for its own provider is not meant for
    /// whatever address a workflow names.
    pub fn may_send_key(&self) -> bool {
        self.base_url.is_none() || self.api_key_env.is_some() || self.is_local()
    }

    /// Whether `base_url` is on this machine.
    pub fn is_local(&self) -> bool {
        self.base_url.as_deref().and_then(host_of).is_some_and(is_loopback)
    }
}

impl Models {
    /// The entry of `provider`.
    pub fn of(&self, provider: Provider) -> &ProviderRule {
        match provider {
            Provider::Anthropic => &self.anthropic,
            Provider::OpenAi => &self.openai,
            Provider::Google => &self.google,
        }
    }

    /// What requests to `provider` may hold.
    pub fn rules(&self, provider: Provider) -> Rules<'_> {
        let rule = self.of(provider);
        Rules {
            provider_tools: self.provider_tools,
            models: rule.models.as_deref(),
            elsewhere: rule.base_url.is_some(),
        }
    }
}

/// Whether credentials are staged, for readers of other sections.
pub(super) fn is_staged(root: &Section<'_>) -> bool {
    root.get("credentials").and_then(|node| node.as_str()).is_some_and(|word| word.trim() == "stage")
}

pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>, egress: &Section<'_>) -> Models {
    let staged = reader.word(root, "credentials", &[("broker", false), ("stage", true)]) == Some(true);
    if staged {
        let message = "`credentials: stage` copies logins and the variables of `smolvm.forward_env` into every sandbox, where \
                       the agent and all that it runs can read them, and send them to each host of `egress.allow`";
        let problem = Problem::warning(Code::Staged, root.place_of("credentials"), message).about("credentials");
        reader.note(
            problem.hint("remove it, if you can: through the broker no key enters a sandbox, and use is counted"),
        );
    }
    let providers = reader.section(root, "providers", "providers");
    let anthropic = provider(reader, &providers, Provider::Anthropic);
    let openai = provider(reader, &providers, Provider::OpenAi);
    let google = provider(reader, &providers, Provider::Google);
    if staged && (anthropic.refresh || openai.refresh) {
        let message = "`credentials: stage` copies logins into sandboxes, where agents renew them by themselves; with \
                       `refresh: true` symphony would renew the same login, and each would log the other out";
        let problem = Problem::error(Code::Conflict, root.place_of("credentials"), message).about("credentials");
        reader.note(problem.hint("remove one of the two"));
    }
    let hold_ms = reader.number(&providers, "hold_ms", HOLD_MS, 0..=HOLD_MOST_MS).unsigned_abs();
    let provider_tools = reader.boolean(egress, "provider_tools", false);
    Models { anthropic, openai, google, hold_ms, staged, provider_tools }
}

fn provider(reader: &mut Reader<'_>, providers: &Section<'_>, provider: Provider) -> ProviderRule {
    let name = provider.name();
    let section = reader.section(providers, name, &format!("providers.{name}"));
    let base_url = reader.filled(&section, "base_url").map(|url| url.trim().trim_end_matches('/').to_owned());
    if let Some(url) = &base_url
        && let Err(what) = usable(url)
    {
        reader.invalid(&section, "base_url", what, &format!("the provider's own is {}", provider.base_url()));
    }
    let api_key_env = reader.filled(&section, "api_key_env").map(|name| name.trim().to_owned());
    let is_name = |name: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    if api_key_env.as_deref().is_some_and(|name| !is_name(name)) {
        let hint = "write the name of an environment variable, without `$`; a key itself never stands in this file";
        reader.invalid(&section, "api_key_env", "is no name of a variable", hint);
    }
    let models = reader.strings(&section, "models", true);
    if models.as_ref().is_some_and(Vec::is_empty) {
        reader.invalid(&section, "models", "is empty: no model could be asked", "list models, or remove the line");
    }
    // No login of Google's is used.
    let login = provider != Provider::Google && reader.boolean(&section, "login", false);
    let refresh = Login::of(provider).is_some() && reader.boolean(&section, "refresh", false);
    ProviderRule {
        base_url,
        login,
        refresh,
        api_key_env,
        models: models.map(|models| models.into_iter().map(|(model, _)| model).collect()),
    }
}

/// The host in a URL, without its port.
fn host_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host),
        None => authority.split(':').next(),
    }
}

/// A base URL as it may stand in a file: nothing secret in it, and nothing that would travel unprotected.
fn usable(url: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c);
    let Some((scheme, rest)) = url.split_once("://") else { return Err("must start with https://") };
    if !rest.chars().all(plain) {
        return Err("must be scheme, host, port and path only: no user, query or fragment");
    }
    let host = host_of(url).filter(|host| !host.is_empty()).ok_or("names no host")?;
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        "http" => Err("must start with https://: only this machine is reached without"),
        _ => Err("must start with https://"),
    }
}
