//! Whether the rows of the present state say what the newest events say of the same things. Only what events that still
//! stand tell can be compared: what went behind a checkpoint is not known any more.

mod egress;
mod standings;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::Value;

use super::state;

/// Differences that are told; more are of no more use.
const MOST: usize = 20;

/// What the events tell. An inner `None` is an event too large to be told whole.
#[derive(Default)]
struct Told {
    /// Of an issue: the event, and its counters.
    counters: BTreeMap<String, (i64, Option<Value>)>,
    /// Of an issue: the event, and why it is parked, if it is.
    parked: BTreeMap<String, (i64, Option<Option<String>>)>,
    /// Of an issue: the event, and when it is tried again, if it is.
    waiting: BTreeMap<String, (i64, Option<Option<String>>)>,
    runs: BTreeMap<i64, Run>,
    questions: BTreeMap<i64, Question>,
    letters: BTreeMap<i64, Letter>,
    /// Of an issue: the event, and what it had used of models by then, in tokens and nano-dollars. Requests are no events,
    /// so the rows may say more.
    spent: BTreeMap<String, (i64, i64, i64)>,
    /// What people allowed, by number: the event, and what it says.
    raises: BTreeMap<i64, (i64, [String; 4])>,
    /// Whether all events ever written are there.
    is_all: bool,
    /// The highest numbers of questions and letters when events were last removed; unknown after an older symphony.
    before: Option<(i64, i64)>,
    /// A question or letter was too large for its event, so that its number is not told.
    untold: bool,
    egress: egress::Told,
    standings: standings::Told,
}

struct Run {
    event: i64,
    issue: String,
    ended: Option<End>,
}

/// What is told of a run's end.
struct End {
    reason: Option<String>,
    /// Its words, and the tokens that the run used.
    words: Option<(String, i64)>,
}

struct Question {
    event: i64,
    issue: String,
    text: Option<String>,
    open: bool,
}

struct Letter {
    event: i64,
    issue: String,
    text: Option<String>,
    handed: Option<i64>,
    taken: bool,
}

impl Told {
    /// The next event.
    fn take(&mut self, seq: i64, kind: &str, run: Option<i64>, issue: Option<String>, body: &Value) {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        if kind == "compacted" {
            self.before = body["questions"].as_i64().zip(body["letters"].as_i64());
        }
        self.egress.take(seq, kind, run, issue.as_deref(), body);
        self.standings.take(seq, kind, issue.as_deref(), body);
        if let Some(id) = body["raise"].as_i64().filter(|_| kind == "raised") {
            let words = ["scope", "name", "unit"].map(|key| text(key).unwrap_or_default());
            let [scope, name, unit] = words;
            self.raises.insert(id, (seq, [scope, name, unit, body["amount"].to_string()]));
        }
        let Some(issue) = issue else { return };
        if let (Some(tokens), Some(nano)) = (body["spent"][0].as_i64(), body["spent"][1].as_i64()) {
            self.spent.insert(issue.clone(), (seq, tokens, nano));
        }
        // What was too large has its size in its place.
        let whole = body.get("sha256").is_none();
        if let Some(counters) = body.get("counters") {
            self.counters.insert(issue.clone(), (seq, Some(counters.clone())));
        } else if matches!(kind, "run_started" | "run_ended" | "turn_began" | "counted" | "parked") {
            self.counters.insert(issue.clone(), (seq, None));
        }
        match kind {
            "run_started" | "parked" => {
                self.parked.insert(issue.clone(), (seq, whole.then(|| text("why"))));
                self.waiting.insert(issue.clone(), (seq, Some(None)));
            }
            "run_ended" => {
                self.waiting.insert(issue.clone(), (seq, whole.then(|| text("due"))));
            }
            _ => {}
        }
        self.words(seq, kind, run, &issue, body);
        match (kind, run) {
            ("run_started", Some(run)) => {
                self.runs.insert(run, Run { event: seq, issue, ended: None });
            }
            ("run_ended" | "run_cut_off", Some(run)) => {
                // The first end counts.
                if let Some(run) = self.runs.get_mut(&run).filter(|run| run.ended.is_none()) {
                    (run.event, run.ended) =
                        (seq, Some(End { reason: text("reason"), words: text("end").zip(body["tokens"].as_i64()) }));
                }
            }
            _ => {}
        }
    }

    /// The same for questions and letters, which have numbers of their own.
    fn words(&mut self, seq: i64, kind: &str, run: Option<i64>, issue: &str, body: &Value) {
        let text = body["text"].as_str().map(str::to_owned);
        // The number of one that was too large to be told stands nowhere in its event.
        let whole = body.get("sha256").is_none();
        if whole && matches!(kind, "asked" | "answered" | "withdrawn") {
            let id = body["question"].as_i64().unwrap_or(0);
            for question in self.questions.values_mut().filter(|q| q.issue == issue && q.open) {
                (question.open, question.event) = (false, seq);
            }
            if kind == "asked" {
                let question = Question { event: seq, issue: issue.to_owned(), text: text.clone(), open: true };
                self.questions.insert(id, question);
            }
        } else if !whole && matches!(kind, "asked" | "answered" | "said") {
            self.untold = true;
            if kind != "said" {
                self.questions.retain(|_, question| question.issue != issue);
            }
        }
        match (kind, body["letter"].as_i64(), run) {
            ("answered" | "said", Some(id), _) => {
                let letter = Letter { event: seq, issue: issue.to_owned(), text, handed: None, taken: false };
                self.letters.insert(id, letter);
            }
            ("letters_handed", _, Some(_)) if !whole => {
                self.untold = true;
                self.letters.retain(|_, letter| letter.issue != issue);
            }
            ("letters_handed", _, Some(run)) => {
                for id in body["letters"].as_array().into_iter().flatten().filter_map(Value::as_i64) {
                    if let Some(letter) = self.letters.get_mut(&id).filter(|letter| !letter.taken) {
                        letter.handed = Some(run);
                    }
                }
            }
            ("letters_taken" | "letters_returned", _, Some(run)) => {
                // The end of a run may take some of what was handed to it.
                let only: Option<BTreeSet<i64>> =
                    body["only"].as_array().map(|ids| ids.iter().filter_map(Value::as_i64).collect());
                let meant = |id: &i64| only.as_ref().is_none_or(|only| only.contains(id));
                let handed = self.letters.iter_mut().filter(|(id, l)| l.handed == Some(run) && !l.taken && meant(id));
                for (_, letter) in handed {
                    letter.taken = kind == "letters_taken";
                    letter.handed = letter.handed.filter(|_| letter.taken);
                    letter.event = seq;
                }
            }
            _ => {}
        }
    }
}

fn read(db: &Connection) -> rusqlite::Result<Told> {
    let mut told = Told::default();
    let removed: bool = db.query_row("SELECT EXISTS (SELECT 1 FROM checkpoints)", [], |r| r.get(0))?;
    // Letters began with the chain, and a question of before it is not open.
    told.before = (!removed).then_some((0, 0));
    told.is_all = !removed;
    let mut query = db.prepare("SELECT seq, kind, run, issue, body FROM events ORDER BY seq")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, body): (String, String) = (row.get(1)?, row.get(4)?);
        let body = serde_json::from_str(&body).unwrap_or(Value::Null);
        told.take(row.get(0)?, &kind, row.get(2)?, row.get(3)?, &body);
    }
    Ok(told)
}

/// What is different, each with its place; none is agreement.
///
/// # Errors
/// The database cannot be read, or a row is not what symphony writes.
pub(super) fn differences(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let told = read(db)?;
    let mut found = vec![];
    issues(db, &told, &mut found)?;
    runs(db, &told, &mut found)?;
    words(db, &told, &mut found)?;
    told.egress.differences(db, &mut found)?;
    told.standings.differences(db, told.is_all, &mut found)?;
    spent(db, &told, &mut found)?;
    found.truncate(MOST);
    Ok(found)
}

fn issues(db: &Connection, told: &Told, found: &mut Vec<String>) -> rusqlite::Result<()> {
    let counters = state::rows(db, state::COUNTERS, |r| {
        Ok((symphony_core::ids::IssueId(r.get(0)?), state::told(&state::counters(r)?)))
    })?;
    for (issue, (event, wanted)) in &told.counters {
        let row = counters.get(&symphony_core::ids::IssueId(issue.clone()));
        if wanted.as_ref().is_some_and(|wanted| row != Some(wanted)) || row.is_none() {
            found.push(format!("the counters of {issue} are not those of event {event}"));
        }
    }
    for (what, sql, wanted) in [
        ("why it is parked", "SELECT issue, kind FROM parked", &told.parked),
        ("when it is tried again", "SELECT issue, until FROM waiting", &told.waiting),
    ] {
        let rows = pairs(db, sql)?;
        for (issue, (event, wanted)) in wanted {
            if wanted.as_ref().is_some_and(|wanted| rows.get(issue) != wanted.as_ref()) {
                found.push(format!("{issue}: {what} is not what event {event} says"));
            }
        }
    }
    Ok(())
}

fn pairs(db: &Connection, sql: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    db.prepare(sql)?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
}

fn runs(db: &Connection, told: &Told, found: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT run, issue, ended_at IS NOT NULL, reason, end, tokens FROM runs")?;
    let mut rows = query.query([])?;
    let mut there = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let (run, issue): (i64, String) = (row.get(0)?, row.get(1)?);
        let (ended, reason, end): (bool, Option<String>, Option<String>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let tokens: i64 = row.get(5)?;
        there.insert(run);
        let Some(wanted) = told.runs.get(&run) else {
            // Numbers only grow.
            if told.runs.first_key_value().is_some_and(|(first, _)| run > *first) {
                found.push(format!("run {run} stands in no event"));
            }
            continue;
        };
        let as_told = match &wanted.ended {
            None => !ended,
            Some(End { reason: told_reason, words: told_end }) => {
                ended
                    && told_reason.as_ref().is_none_or(|told| reason.as_ref() == Some(told))
                    && told_end.as_ref().is_none_or(|(told, n)| end.as_ref() == Some(told) && tokens == *n)
            }
        };
        if !as_told || wanted.issue != issue {
            found.push(format!("run {run} is not what event {} says", wanted.event));
        }
    }
    for (run, wanted) in told.runs.iter().filter(|(run, _)| !there.contains(run)) {
        found.push(format!("run {run} of event {} is missing", wanted.event));
    }
    Ok(())
}

fn words(db: &Connection, told: &Told, found: &mut Vec<String>) -> rusqlite::Result<()> {
    let before = told.before.filter(|_| !told.untold);
    let mut open = BTreeMap::new();
    let mut query = db.prepare("SELECT id, issue, question FROM questions WHERE closed_at IS NULL")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, issue, text): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !told.questions.contains_key(&id) && before.is_some_and(|(last, _)| id > last) {
            found.push(format!("question {id} of {issue} stands in no event"));
        }
        open.insert(id, (issue, text));
    }
    for (id, wanted) in &told.questions {
        let row = open.get(id);
        let as_told = match wanted.open {
            false => row.is_none(),
            true => row.is_some_and(|(issue, text)| {
                *issue == wanted.issue && wanted.text.as_ref().is_none_or(|told| told == text)
            }),
        };
        if !as_told {
            found.push(format!("question {id} of {} is not what event {} says", wanted.issue, wanted.event));
        }
    }
    let mut there = BTreeSet::new();
    let mut query = db.prepare("SELECT id, issue, text, taken_at IS NOT NULL FROM letters")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, issue, text, taken): (i64, String, String, bool) =
            (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        there.insert(id);
        match told.letters.get(&id) {
            None if before.is_some_and(|(_, last)| id > last) => {
                found.push(format!("letter {id} of {issue} stands in no event"));
            }
            Some(l) if l.issue != issue || l.taken != taken || l.text.as_ref().is_some_and(|told| *told != text) => {
                found.push(format!("letter {id} of {} is not what event {} says", l.issue, l.event));
            }
            _ => {}
        }
    }
    for (id, letter) in told.letters.iter().filter(|(id, letter)| !letter.taken && !there.contains(id)) {
        found.push(format!("letter {id} of event {} is missing", letter.event));
    }
    Ok(())
}

fn spent(db: &Connection, told: &Told, found: &mut Vec<String>) -> rusqlite::Result<()> {
    for (issue, (event, tokens, nano)) in &told.spent {
        let (of_tokens, of_nano): (i64, i64) =
            db.query_row(super::spend::OF_ISSUE, [issue], |r| Ok((r.get(0)?, r.get(1)?)))?;
        if of_tokens < *tokens || of_nano < *nano {
            found.push(format!("{issue} has used less of models than event {event} says"));
        }
    }
    let mut query = db.prepare("SELECT id, scope, name, unit, amount FROM raises")?;
    let mut rows = query.query([])?;
    let mut there = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let (id, amount): (i64, i64) = (row.get(0)?, row.get(4)?);
        there.insert(id);
        let says = [row.get(1)?, row.get(2)?, row.get(3)?, amount.to_string()];
        // Numbers only grow.
        let behind = !told.is_all && told.raises.first_key_value().is_none_or(|(first, _)| id < *first);
        match told.raises.get(&id) {
            Some((event, wanted)) if *wanted != says => {
                found.push(format!("raise {id} is not what event {event} says"))
            }
            None if !behind => found.push(format!("raise {id} stands in no event")),
            _ => {}
        }
    }
    for (id, (event, _)) in told.raises.iter().filter(|(id, _)| !there.contains(id)) {
        found.push(format!("raise {id} of event {event} is missing"));
    }
    Ok(())
}
