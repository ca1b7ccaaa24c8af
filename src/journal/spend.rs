//! What was used of models, what requests under way may still use, and what people allowed beyond the caps.
//!
//! Two writes a request: too many for an event each. The end of a run tells what its issue has used so far, in the chain;
//! in between the rows alone know it. These two are not waited for to reach the disk: a kill loses none of them, a power
//! cut at most those since the last other write.

use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::json;
use symphony_core::broker::Usage;
use symphony_core::ids::IssueId;
use symphony_core::money::Money;
use symphony_core::spend::{Entry as Used, Past, Place, Raise, Reservation, Sums, Unit};
use symphony_core::steering::By;

use super::chain::{self, Entry, signed};
use super::{Journal, Written};

/// Tokens and nano-dollars of an issue, as a run's end tells them.
/// Sums of whole numbers overflow with an error, which would keep a journal shut for ever: these are capped instead.
pub(super) const OF_ISSUE: &str =
    "SELECT CAST(min(total(input) + total(output) + total(cache_read) + total(cache_write),
    1152921504606846976.0) AS INTEGER), CAST(min(total(nano_usd), 1152921504606846976.0) AS INTEGER)
    FROM spend WHERE issue = ?1";

fn day(r: &Row<'_>, at: usize) -> rusqlite::Result<Date> {
    let text: String = r.get(at)?;
    text.parse().map_err(|error: jiff::Error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

fn number(r: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    r.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0))
}

/// Everything that earlier processes left.
pub(super) fn all(db: &Connection) -> rusqlite::Result<Past> {
    let query =
        "SELECT issue, day, provider, model, requests, input, output, cache_read, cache_write, nano_usd, unpriced,
        assumed FROM spend";
    let entry = |r: &Row<'_>| {
        let used = Usage {
            input: number(r, 5)?,
            output: number(r, 6)?,
            cache_read: number(r, 7)?,
            cache_write: number(r, 8)?,
            cache_write_1h: None,
        };
        let cost = Money(number(r, 9)?);
        let sums = Sums { requests: number(r, 4)?, used, cost, unpriced: number(r, 10)?, assumed: number(r, 11)? };
        Ok(Used { issue: IssueId(r.get(0)?), day: day(r, 1)?, provider: r.get(2)?, model: r.get(3)?, sums })
    };
    let raise = |r: &Row<'_>| {
        let (scope, unit): (String, String) = (r.get(0)?, r.get(2)?);
        let place = match scope.as_str() {
            "issue" => Place::Issue(IssueId(r.get(1)?)),
            "day" => Place::Day(day(r, 1)?),
            _ => Place::Workflow,
        };
        let unit = if unit == "tokens" { Unit::Tokens } else { Unit::Money };
        Ok(Raise { place, unit, by: number(r, 3)? })
    };
    Ok(Past {
        entries: db.prepare(query)?.query_map([], entry)?.collect::<rusqlite::Result<_>>()?,
        raises: db
            .prepare("SELECT scope, name, unit, amount FROM raises ORDER BY id")?
            .query_map([], raise)?
            .collect::<rusqlite::Result<_>>()?,
    })
}

fn add(tx: &Transaction<'_>, used: &Used) -> rusqlite::Result<()> {
    let Used { day, issue, provider, model, sums } = used;
    let Sums { requests, used: Usage { input, output, cache_read, cache_write, .. }, cost, unpriced, assumed } = sums;
    // A sum that is beyond all numbers stays there.
    tx.prepare(
        "INSERT INTO spend (issue, day, provider, model, requests, input, output, cache_read, cache_write, nano_usd,
            unpriced, assumed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (issue, day, provider, model) DO UPDATE SET
            requests = min(requests + excluded.requests, 1 << 60), input = min(input + excluded.input, 1 << 60),
            output = min(output + excluded.output, 1 << 60), cache_read = min(cache_read + excluded.cache_read, 1 << 60),
            cache_write = min(cache_write + excluded.cache_write, 1 << 60),
            nano_usd = min(nano_usd + excluded.nano_usd, 1 << 60), unpriced = min(unpriced + excluded.unpriced, 1 << 60),
            assumed = min(assumed + excluded.assumed, 1 << 60)",
    )?
    .execute(params![
        issue.0,
        day.to_string(),
        provider,
        model,
        bounded(*requests),
        bounded(*input),
        bounded(*output),
        bounded(*cache_read),
        bounded(*cache_write),
        bounded(cost.0),
        bounded(*unpriced),
        bounded(*assumed),
    ])?;
    Ok(())
}

/// So that two of them, and the four kinds of tokens, can be added.
fn bounded(number: u64) -> i64 {
    signed(number.min(1 << 60))
}

/// Requests that were under way when their process ended are charged what was set aside for them.
pub(super) fn charge_what_was_cut_off(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch(
        "INSERT INTO spend (issue, day, provider, model, requests, input, output, cache_read, cache_write, nano_usd,
            unpriced, assumed)
         SELECT issue, day, provider, model, count(*), CAST(min(total(input), 1152921504606846976.0) AS INTEGER),
            CAST(min(total(output), 1152921504606846976.0) AS INTEGER), 0, 0,
            CAST(min(total(nano_usd), 1152921504606846976.0) AS INTEGER),
            CAST(min(total(CASE WHEN nano_usd IS NULL THEN input ELSE 0 END)
                + total(CASE WHEN nano_usd IS NULL THEN output ELSE 0 END), 1152921504606846976.0) AS INTEGER),
            CAST(min(total(input) + total(output), 1152921504606846976.0) AS INTEGER)
         FROM reservations WHERE true GROUP BY issue, day, provider, model
         ON CONFLICT (issue, day, provider, model) DO UPDATE SET
            requests = min(requests + excluded.requests, 1 << 60), input = min(input + excluded.input, 1 << 60),
            output = min(output + excluded.output, 1 << 60), nano_usd = min(nano_usd + excluded.nano_usd, 1 << 60),
            unpriced = min(unpriced + excluded.unpriced, 1 << 60), assumed = min(assumed + excluded.assumed, 1 << 60);
         DELETE FROM reservations;",
    )
}

/// What an issue has used so far, for the event of its run's end.
pub(super) fn told(db: &Connection, issue: &IssueId) -> rusqlite::Result<serde_json::Value> {
    let sums = db.query_row(OF_ISSUE, [&issue.0], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))).optional()?;
    let (tokens, nano) = sums.unwrap_or_default();
    Ok(json!([tokens, nano]))
}

impl Journal {
    /// A request is about to be sent: so much is set aside for it.
    ///
    /// # Errors
    /// The journal cannot be written: the request must not be sent.
    pub fn reserved(&self, reservation: Reservation) -> Written<()> {
        self.write_soon("reserved", move |tx| {
            let Reservation { id, of, cost, model } = reservation;
            tx.prepare(
                "INSERT INTO reservations (id, at, day, run, issue, provider, model, input, output, nano_usd)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                signed(id),
                Timestamp::now().to_string(),
                of.day.to_string(),
                signed(of.run.0),
                of.issue.0,
                of.provider.name(),
                model,
                bounded(of.most.input),
                bounded(of.most.output),
                cost.map(|cost| bounded(cost.0)),
            ])
            .map(drop)
        })
    }

    /// A request is over, and this was charged for it; `None`: nothing.
    ///
    /// # Errors
    /// The journal cannot be written: at the next start it is charged what was set aside.
    pub fn settled(&self, id: u64, used: Option<Used>) -> Written<()> {
        self.write_soon("settled", move |tx| {
            // Without what was set aside it was charged already.
            let open = tx.prepare("DELETE FROM reservations WHERE id = ?1")?.execute([signed(id)])?;
            match used {
                Some(used) if open > 0 => add(tx, &used),
                _ => Ok(()),
            }
        })
    }

    /// A person allowed more.
    ///
    /// # Errors
    /// The journal cannot be written: nothing more is allowed.
    pub fn raised(&self, raise: Raise, by: By) -> Written<()> {
        self.write("raised", move |tx| {
            let Raise { place, unit, by: amount } = raise;
            let (scope, name, issue) = match &place {
                Place::Issue(issue) => ("issue", issue.0.clone(), Some(issue)),
                Place::Day(day) => ("day", day.to_string(), None),
                Place::Workflow => ("workflow", String::new(), None),
            };
            let unit = if unit == Unit::Tokens { "tokens" } else { "nano_usd" };
            tx.execute(
                "INSERT INTO raises (scope, name, unit, amount, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![scope, name, unit, bounded(amount), Timestamp::now().to_string()],
            )?;
            let body = json!({"raise": tx.last_insert_rowid(), "scope": scope, "name": name, "unit": unit,
                "amount": bounded(amount), "by": by.as_str()});
            chain::append(tx, &Entry { kind: "raised", run: None, issue, body })
        })
    }
}
