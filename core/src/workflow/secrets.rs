//! Keys and passwords that stand in the file itself (C233): the agent can read the repository.
//!
//! A warning names the place and never the value.

use super::expand::variable;
use super::problem::{Code, Problem};
use super::read::Reader;
use crate::yaml::{Kind, Node};

/// How well-known tokens start; each is followed by a long run of token characters.
const PREFIXES: [&str; 12] =
    ["sk-", "sk_live_", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "lin_api_", "xoxb-", "xoxp-", "AKIA", "AIza"];
/// Names whose value is a secret.
const NAMES: [&str; 5] = ["api_key", "apikey", "secret", "password", "token"];

/// Looks at every string of the file, keys we do not know included. Depth is bounded by the parser.
pub(super) fn warn(reader: &mut Reader<'_>, root: &Node) {
    look(reader, root, "");
}

fn look(reader: &mut Reader<'_>, node: &Node, path: &str) {
    match &node.kind {
        Kind::Map(entries) => {
            for entry in entries {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                look(reader, &entry.value, &path);
            }
        }
        Kind::Seq(items) => items.iter().for_each(|item| look(reader, item, path)),
        Kind::Str(text) => {
            let name = path.rsplit('.').next().unwrap_or_default().to_lowercase();
            let named = NAMES.iter().any(|part| name == *part || name.ends_with(&format!("_{part}")));
            let literal = !text.trim().is_empty() && variable(text.trim()).is_none();
            if (named && literal) || looks_like_a_token(text) {
                let message = format!("`{path}` holds what looks like a key or a password");
                let problem = Problem::warning(Code::LiteralSecret, (node.line, node.column), message).about(path);
                reader
                    .note(problem.hint("agents can read this file: take it from the environment and revoke this one"));
            }
        }
        _ => {}
    }
}

fn looks_like_a_token(text: &str) -> bool {
    let token_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.contains("PRIVATE KEY-----")
        || text.split(|c: char| !token_character(c)).any(|word| {
            let rest = PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.len() >= 16 && rest.bytes().any(|b| b.is_ascii_digit()))
        })
}
