//! The host's credential for a provider: a key from the environment, or the login file of Claude Code or Codex.
//!
//! Files are read anew at each request and never written here; an expired login is its owner's to renew, or `renewal.rs`
//! does it where a workflow says so. What is read leaves here only as headers that are marked as secret.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use symphony_core::broker::Provider;
use symphony_core::broker::login::Login;
use symphony_core::workflow::ProviderRule;

use crate::workflow_file::Environment;

/// Longest login file.
const FILE_MAX: u64 = 1024 * 1024;
/// A home on a dead network disk must not hold a request for ever.
const READ: Duration = Duration::from_secs(10);
/// What goes with a login of Claude Code.
const LOGIN_BETA: &str = "oauth-2025-04-20";
/// Where a login with ChatGPT is good for the Responses API.
const CHATGPT: &str = "https://chatgpt.com/backend-api/codex";

/// What authorises a request, and where to.
#[derive(Clone)]
pub(crate) struct Credential {
    /// Marked as secret.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// A value to add to `anthropic-beta`.
    pub(super) beta: Option<&'static str>,
    /// Where its requests go.
    pub(super) base_url: String,
    /// Where it is from.
    pub(crate) source: Source,
}

/// Tells credentials apart, address included. In memory only: the journal has a keyed hash of it.
pub(super) type Fingerprint = [u8; 32];

impl Credential {
    /// Another one has another.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        let parts = self.headers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
        for part in [self.base_url.as_bytes()].into_iter().chain(parts) {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.source)
    }
}

/// Where a credential is from. Its words name places, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A variable of the host.
    Key(String),
    /// Claude Code's login.
    Claude,
    /// Codex' login.
    Codex,
    /// A server on this machine that asks for none.
    Nothing,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => write!(f, "the key in {name}"),
            Self::Claude => f.write_str("the login of Claude Code (~/.claude/.credentials.json)"),
            Self::Codex => f.write_str("the login of Codex (~/.codex/auth.json)"),
            Self::Nothing => f.write_str("no key, for a server on this machine"),
        }
    }
}

impl Source {
    /// What its owner does when it no longer works.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Key(name) => format!("start symphony with a key that works in {name}"),
            Self::Claude => "log in again on the host with `claude` (/login)".to_owned(),
            Self::Codex => "log in again on the host with `codex login`".to_owned(),
            Self::Nothing => "name the variable with its key in `providers.*.api_key_env`".to_owned(),
        }
    }

    /// Whether a file may hold a newer one by now.
    pub(super) fn is_login(&self) -> bool {
        matches!(self, Self::Claude | Self::Codex)
    }
}

/// Why there is no credential to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCredential {
    /// There is none.
    #[error("no credential for {provider} on the host: {}", remedy.say(provider))]
    Absent {
        /// For whom.
        provider: &'static str,
        /// How to have one.
        remedy: Remedy,
    },
    /// A login that is over.
    #[error("{source_} has expired: {}", source_.remedy())]
    Expired {
        /// Which.
        source_: Source,
    },
    /// A login that is over, and was to be renewed.
    #[error("{source_} has expired, and {why}; {}", source_.remedy())]
    NotRenewed {
        /// Which.
        source_: Source,
        /// Without any part of its value.
        why: String,
    },
    /// Something is there that cannot be used.
    #[error("{source_} cannot be used: {why}")]
    Unusable {
        /// Which.
        source_: Source,
        /// Without any part of its value.
        why: String,
    },
}

/// How to have a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Set this variable.
    Set(String),
    /// The same; a login of this provider's is of no use.
    SetNoLogin(String),
    /// The same, or log in with this.
    SetOrLogIn(String, &'static str),
    /// There is a key in this variable, which was not meant for another address by itself.
    Name(String),
}

impl Remedy {
    fn say(&self, provider: &str) -> String {
        match self {
            Self::Set(variable) => format!("set {variable}"),
            Self::SetNoLogin(variable) => {
                format!("set {variable} to a key of the Gemini API; a login of Gemini CLI is not used")
            }
            Self::SetOrLogIn(variable, login) => format!("set {variable}, or log in with `{login}`"),
            Self::Name(variable) => format!(
                "the key in {variable} goes to the `base_url` of another server only when `providers.{provider}.api_key_env: {variable}` stands beside it"
            ),
        }
    }
}

impl NoCredential {
    /// Whether there is nothing at all.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// The credential for `provider`. A key wins over a login. To an address that is not the provider's own, a login goes only
/// when its owner says so, and a key when its variable is named beside that address, or when it is on this machine.
pub(crate) async fn find(
    provider: Provider,
    rule: &ProviderRule,
    environment: &Environment,
) -> Result<Credential, NoCredential> {
    let base_url = rule.base_url.clone().unwrap_or_else(|| provider.base_url().to_owned());
    let key = (environment.variable)(rule.key_variable(provider))
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty());
    let meant = rule.may_send_key();
    let unmeant = key.is_some() && !meant;
    if let Some(key) = key.filter(|_| meant) {
        let source = Source::Key(rule.key_variable(provider).to_owned());
        let headers = vec![key_header(provider, &key, &source)?];
        return Ok(Credential { headers, beta: None, base_url, source });
    }
    // What listens on this machine is a program like any other: it gets a person's login when its owner says so.
    let at_home = rule.base_url.is_none() || rule.login;
    if at_home && let Some((path, source)) = login_file(provider, environment) {
        match read(&path).await {
            Ok(Some(text)) => return login(provider, rule, base_url, source, &text),
            Ok(None) => {}
            Err(why) => return Err(NoCredential::Unusable { source_: source, why }),
        }
    }
    if rule.is_local() {
        return Ok(Credential { headers: vec![], beta: None, base_url, source: Source::Nothing });
    }
    let login = match provider {
        Provider::Anthropic => Some("claude"),
        Provider::OpenAi => Some("codex login"),
        Provider::Google => None,
    };
    let variable = rule.key_variable(provider).to_owned();
    let remedy = match (unmeant, login.filter(|_| at_home)) {
        (true, _) => Remedy::Name(variable),
        (false, Some(login)) => Remedy::SetOrLogIn(variable, login),
        (false, None) if provider == Provider::Google => Remedy::SetNoLogin(variable),
        (false, None) => Remedy::Set(variable),
    };
    Err(NoCredential::Absent { provider: provider.name(), remedy })
}

/// The login file for `provider` as it stands; `None`: there is none.
///
/// # Errors
/// Why it cannot be read, in words without any part of it.
pub(super) async fn login_text(provider: Provider, environment: &Environment) -> Result<Option<Vec<u8>>, String> {
    match login_file(provider, environment) {
        Some((path, _)) => read(&path).await,
        None => Ok(None),
    }
}

pub(super) fn login_file(provider: Provider, environment: &Environment) -> Option<(PathBuf, Source)> {
    let (variable, dir, file, source) = match provider {
        Provider::Anthropic => ("CLAUDE_CONFIG_DIR", ".claude", ".credentials.json", Source::Claude),
        Provider::OpenAi => ("CODEX_HOME", ".codex", "auth.json", Source::Codex),
        Provider::Google => return None,
    };
    let named = (environment.variable)(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let dir = named.or_else(|| environment.home.as_ref().map(|home| home.join(dir)))?;
    Some((dir.join(file), source))
}

/// `None`: there is no such file.
pub(super) async fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&path));
    match tokio::time::timeout(READ, read).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err("reading it crashed".to_owned()),
        Err(_) => Err("the disk does not answer".to_owned()),
    }
}

/// What was opened is what is looked at and read, whatever stands at that path by then; a pipe holds nobody up, and a file
/// that grows is read no further than the cap.
pub(super) fn read_now(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file of a login".to_owned());
    }
    let mut text = vec![];
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_MAX {
        return Err("it is no file of a login".to_owned());
    }
    Ok(Some(text))
}

fn login(
    provider: Provider,
    rule: &ProviderRule,
    base_url: String,
    source: Source,
    text: &[u8],
) -> Result<Credential, NoCredential> {
    // Its parser's words would quote it.
    let broken = |why: &str| NoCredential::Unusable { source_: source.clone(), why: why.to_owned() };
    let file: Value = serde_json::from_slice(text).map_err(|_| broken("the file is not JSON"))?;
    let word = |place: &str| file.pointer(place).and_then(Value::as_str).filter(|word| !word.is_empty());
    let is_over = |login: Login| login.is_over(&file, jiff::Timestamp::now());
    match provider {
        Provider::Anthropic => {
            let token = word("/claudeAiOauth/accessToken").ok_or_else(|| broken("the file holds no login"))?;
            if is_over(Login::Claude) {
                return Err(NoCredential::Expired { source_: source });
            }
            let headers = vec![bearer(token, &source)?];
            Ok(Credential { headers, beta: Some(LOGIN_BETA), base_url, source })
        }
        Provider::OpenAi => {
            let Some(token) = word("/tokens/access_token") else {
                let key = word("/OPENAI_API_KEY").ok_or_else(|| broken("the file holds no login"))?;
                let headers = vec![bearer(key, &source)?];
                return Ok(Credential { headers, beta: None, base_url, source });
            };
            if is_over(Login::Codex) {
                return Err(NoCredential::Expired { source_: source });
            }
            let mut headers = vec![bearer(token, &source)?];
            if let Some(account) = word("/tokens/account_id") {
                headers.push((HeaderName::from_static("chatgpt-account-id"), secret(account, &source)?));
            }
            let base_url = if rule.base_url.is_some() { base_url } else { CHATGPT.to_owned() };
            Ok(Credential { headers, beta: None, base_url, source })
        }
        Provider::Google => Err(broken("no login of this provider is used")),
    }
}

fn key_header(provider: Provider, key: &str, source: &Source) -> Result<(HeaderName, HeaderValue), NoCredential> {
    match provider {
        Provider::Anthropic => Ok((HeaderName::from_static("x-api-key"), secret(key, source)?)),
        Provider::OpenAi => bearer(key, source),
        Provider::Google => Ok((HeaderName::from_static("x-goog-api-key"), secret(key, source)?)),
    }
}

fn bearer(token: &str, source: &Source) -> Result<(HeaderName, HeaderValue), NoCredential> {
    Ok((header::AUTHORIZATION, secret(&format!("Bearer {token}"), source)?))
}

fn secret(value: &str, source: &Source) -> Result<HeaderValue, NoCredential> {
    let unusable =
        |_| NoCredential::Unusable { source_: source.clone(), why: "it holds characters that no key has".to_owned() };
    let mut value = HeaderValue::from_str(value).map_err(unusable)?;
    value.set_sensitive(true);
    Ok(value)
}
