//! What providers said last of each credential, and how often issues were sent away without an answer: a restart must ask
//! nobody who asked to wait, and must not begin to count anew.
//!
//! A credential stands here under a keyed hash of its fingerprint, never as itself. None of it is waited for to reach the
//! disk: a kill loses nothing, and what a power cut loses is one request.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use symphony_core::broker::Provider;
use symphony_core::broker::quota::Pause;
use symphony_core::ids::IssueId;

use super::chain::{self, Entry, hex};
use super::{Journal, Written, key, state};

/// What a provider said last of one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// To wait.
    Wait {
        /// Until then, on the clock of the world.
        until: Timestamp,
        /// Why.
        pause: Pause,
        /// Refusals in a row.
        in_a_row: u32,
    },
    /// That it takes no such credential.
    Refused,
}

impl Said {
    fn kind(&self) -> &'static str {
        match self {
            Self::Wait { pause, .. } => pause.as_str(),
            Self::Refused => REFUSED,
        }
    }
}

/// One credential, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The keyed hash of its fingerprint.
    pub credential: [u8; 32],
    /// By whom.
    pub provider: Provider,
    /// What.
    pub said: Said,
}

/// What earlier processes were told.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The key under which credentials are hashed; a secret. `None` in a journal that has none.
    pub key: Option<[u8; 32]>,
    /// Of each credential.
    pub standings: Vec<Standing>,
    /// How often issues were sent away since they were answered last.
    pub in_vain: BTreeMap<IssueId, u32>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told")
            .field("standings", &self.standings)
            .field("in_vain", &self.in_vain)
            .finish_non_exhaustive()
    }
}

const REFUSED: &str = "refused";

/// Everything that earlier processes left. A row that this program cannot read tells it nothing: one request finds it out.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Told> {
    let secret: Option<String> =
        db.query_row("SELECT value FROM about WHERE key = 'credential_key'", [], |r| r.get(0)).optional()?;
    let mut query = db.prepare("SELECT credential, provider, kind, until, in_a_row FROM standings ORDER BY rowid")?;
    let mut rows = query.query([])?;
    let mut standings = vec![];
    while let Some(row) = rows.next()? {
        let (credential, provider, kind): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let until: Option<String> = row.get(3)?;
        let read = until.map(|text| text.parse::<Timestamp>()).transpose();
        let until = read.map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, error.into()))?;
        let said = match (Pause::parse(&kind), until) {
            (Some(pause), Some(until)) => Some(Said::Wait { until, pause, in_a_row: row.get(4)? }),
            _ if kind == REFUSED => Some(Said::Refused),
            _ => None,
        };
        let provider = Provider::ALL.into_iter().find(|known| known.name() == provider);
        if let (Some(credential), Some(provider), Some(said)) = (key::parse(&credential), provider, said) {
            standings.push(Standing { credential, provider, said });
        }
    }
    let in_vain = state::rows(db, "SELECT issue, times FROM in_vain", |r| Ok((IssueId(r.get(0)?), r.get(1)?)))?;
    Ok(Told { key: secret.and_then(|text| key::parse(&text)), standings, in_vain })
}

impl Journal {
    /// What a provider says of a credential from now on.
    ///
    /// # Errors
    /// The journal cannot be written: a restart does not know it.
    pub fn standing(&self, standing: Standing) -> Written<()> {
        self.write_soon("standing", move |tx| {
            let Standing { credential, provider, said } = standing;
            let (credential, kind) = (hex(&credential), said.kind());
            let (until, in_a_row) = match said {
                Said::Wait { until, in_a_row, .. } => (Some(until.to_string()), in_a_row),
                Said::Refused => (None, 1),
            };
            tx.execute(
                "INSERT OR REPLACE INTO standings (credential, provider, kind, until, in_a_row)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![credential, provider.name(), kind, until, in_a_row],
            )?;
            let body = json!({"credential": credential, "provider": provider.name(), "kind": kind, "until": until,
                "in_a_row": in_a_row});
            chain::append(tx, &Entry { kind: "provider_refused", run: None, issue: None, body })
        })
    }

    /// Nothing is held against this credential any more, or it is not remembered any longer.
    ///
    /// # Errors
    /// The journal cannot be written: a restart holds it against it still, until it is answered.
    pub fn standing_over(&self, credential: [u8; 32]) -> Written<()> {
        self.write_soon("standing", move |tx| {
            let credential = hex(&credential);
            if tx.execute("DELETE FROM standings WHERE credential = ?1", [&credential])? == 0 {
                return Ok(());
            }
            let body = json!({"credential": credential});
            chain::append(tx, &Entry { kind: "provider_answered", run: None, issue: None, body })
        })
    }

    /// How often an issue was sent away since it was answered last; 0 forgets it.
    ///
    /// # Errors
    /// The journal cannot be written: a restart counts fewer.
    pub fn in_vain(&self, issue: IssueId, times: u32) -> Written<()> {
        self.write_soon("in_vain", move |tx| {
            match times {
                0 => tx.execute("DELETE FROM in_vain WHERE issue = ?1", [&issue.0])?,
                _ => tx.execute(
                    "INSERT OR REPLACE INTO in_vain (issue, times) VALUES (?1, ?2)",
                    params![issue.0, times],
                )?,
            };
            chain::append(tx, &Entry { kind: "in_vain", run: None, issue: Some(&issue), body: json!({"times": times}) })
        })
    }
}
