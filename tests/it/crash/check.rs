//! What must hold when everything is settled, whatever was killed on the way (DESIGN §4, 9–12).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::Value;

use super::drive::{ENDS, Scene};
use crate::rig::{git, processes_with};

/// Everything that is wrong, in words.
pub(crate) fn all(scene: &Scene) -> Vec<String> {
    let mut wrong = scene.wrong.borrow().clone();
    let db = scene.journal().expect("a journal");
    wrong.extend(files(scene));
    for (issue, end) in ENDS {
        let states = scene.state_of(issue);
        if states != [end] {
            wrong.push(format!("{issue} stands in {states:?}, not in {end}"));
        }
        if end == "Done" {
            wrong.extend(patch(scene, issue));
        }
    }
    wrong.extend(runs(scene, &db));
    wrong.extend(letters(scene, &db));
    wrong.extend(hosts(scene, &db));
    wrong.extend(spent(scene, &db));
    match symphony::journal::inspect::check(&scene.journal_path(), None) {
        Ok(report) => {
            wrong.extend(report.chain.and_then(Result::err).map(|error| format!("the chain: {error}")));
            wrong.extend(report.differences);
        }
        Err(error) => wrong.push(format!("the journal: {error}")),
    }
    wrong.extend(left(scene));
    wrong
}

/// Every decision about a host that was accepted is told, and nobody is asked for a finished issue.
fn hosts(scene: &Scene, db: &Connection) -> Vec<String> {
    let number = |sql: &str, of: i64| db.query_row(sql, [of], |r| r.get::<_, i64>(0)).expect("a number");
    let told = "SELECT count(*) FROM events WHERE kind = 'egress_decided' AND json_extract(body, '$.card') = ?1";
    let hosts = scene.hosts.borrow();
    let lost = hosts.iter().filter(|card| number(told, **card) != 1);
    let mut wrong: Vec<String> = lost.map(|card| format!("what was decided over card {card} is lost")).collect();
    if number("SELECT count(*) FROM egress_asked WHERE id > ?1", 0) != 0 {
        wrong.push("a finished issue still asks for a host".to_owned());
    }
    wrong
}

/// No issue twice, no draft left among them, one note where one belongs.
fn files(scene: &Scene) -> Vec<String> {
    let mut wrong = vec![];
    for state in std::fs::read_dir(scene.project.dir().join("issues")).expect("issues").flatten() {
        for file in std::fs::read_dir(state.path()).expect("a state").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !ENDS.iter().any(|(issue, _)| name == format!("{issue}.md")) {
                wrong.push(format!("{} is nobody's", file.path().display()));
            }
        }
    }
    let parked = scene.project.read("issues/Parked/B-1.md").matches("Parked: ").count();
    if parked != 1 || !scene.is_marked_parked() {
        wrong.push(format!("B-1 has {parked} notes of its parking"));
    }
    wrong
}

/// One patch that applies, with every commit the agent made.
fn patch(scene: &Scene, issue: &str) -> Vec<String> {
    let mut wrong = vec![];
    let dir = scene.project.dir().join(".symphony/patches");
    let names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(issue))
        .collect();
    let name = format!("agent_{issue}.patch");
    if !names.contains(&name) {
        return vec![format!("{issue} has no patch: {names:?}")];
    }
    // Written just before the kill, it is set aside when the next run makes another commit: kept, never overwritten.
    if names.iter().any(|found| *found != name && *found != format!("{name}.1")) {
        wrong.push(format!("{issue} has the patches {names:?}"));
    }
    let clone = scene.project.apply_patch(issue);
    let read = |name: &str| std::fs::read_to_string(clone.join(name)).unwrap_or_default();
    if let Ok(overlap) = std::fs::read_to_string(clone.join("overlap.txt")) {
        wrong.push(format!("{issue} ran twice at once: {overlap}"));
    }
    let turns: u32 = read("end.txt").trim().parse().unwrap_or(0);
    let subjects = git(&clone, &["log", "--format=%s"]);
    let kept: BTreeSet<&str> = subjects.lines().collect();
    let lost: Vec<u32> = (1..=turns).filter(|turn| !kept.contains(format!("Turn {turn}").as_str())).collect();
    if turns == 0 || !lost.is_empty() {
        wrong.push(format!("{issue} made {turns} turns and lost the commits of {lost:?}: {subjects}"));
    }
    if issue == "A-1" && !read("answer.txt").contains("green-") {
        wrong.push("A-1 was done without its answer".to_owned());
    }
    wrong
}

struct Run {
    number: i64,
    issue: String,
    end: Option<String>,
}

/// Numbers, counts, and that no two runs of an issue were alive at once.
fn runs(scene: &Scene, db: &Connection) -> Vec<String> {
    let mut wrong = vec![];
    let mut query = db.prepare("SELECT run, issue, reason FROM runs ORDER BY run").expect("a table");
    let rows = query.query_map([], |r| Ok(Run { number: r.get(0)?, issue: r.get(1)?, end: r.get(2)? })).expect("rows");
    let runs: Vec<Run> = rows.map(|row| row.expect("a run")).collect();
    let started = numbers(db, "SELECT run FROM events WHERE kind = 'run_started' ORDER BY seq");
    if started.windows(2).any(|pair| pair[0] >= pair[1]) || started.len() != runs.len() {
        wrong.push(format!("run numbers do not grow: {started:?} of {} runs", runs.len()));
    }
    let mut alive: BTreeMap<&str, (String, i64)> = BTreeMap::new();
    let (mut sessions, mut own): (BTreeMap<&str, i64>, BTreeMap<&str, i64>) = Default::default();
    for run in &runs {
        *sessions.entry(&run.issue).or_default() += 1;
        let Some(end) = &run.end else {
            wrong.push(format!("run {} has no end", run.number));
            continue;
        };
        let text =
            std::fs::read_to_string(scene.project.dir().join(format!(".symphony/runs/{}/acp.jsonl", run.number)));
        let frames: Vec<Value> =
            text.unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let prompts: Vec<&Value> = frames.iter().filter(|f| f.to_string().contains("session/prompt")).collect();
        let counted =
            numbers(db, &format!("SELECT seq FROM events WHERE kind = 'turn_began' AND run = {}", run.number));
        let (counted, prompted) = (counted.len(), prompts.len());
        // A kill may come between the count and the prompt, and take the last line of a transcript with it.
        let exact = if end == "cut-off" { counted <= prompted + 1 } else { counted == prompted };
        if counted < prompted || !exact {
            wrong.push(format!(
                "run {} of {} ({end}): {counted} turns counted, {prompted} prompts",
                run.number, run.issue
            ));
        }
        // Each session's first prompt is nobody's answer alone, so it counts.
        *own.entry(&run.issue).or_default() += i64::from(prompted > 0);
        let at = |frame: Option<&Value>| frame.and_then(|f| f["at"].as_str()).map(str::to_owned);
        if let (Some(first), Some(last)) = (at(frames.first()), at(frames.last())) {
            if let Some((until, before)) = alive.get(run.issue.as_str()).filter(|(until, _)| *until > first) {
                wrong.push(format!("run {} began at {first}, before run {before} was silent at {until}", run.number));
            }
            alive.insert(&run.issue, (last, run.number));
        }
    }
    for (issue, ran) in sessions {
        let sql = format!("SELECT sessions, turns FROM counters WHERE issue = '{issue}'");
        let (kept, turns): (i64, i64) = db.query_row(&sql, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap_or_default();
        let began =
            numbers(db, &format!("SELECT seq FROM events WHERE kind = 'turn_began' AND issue = '{issue}'")).len();
        // A turn is counted in the transaction of the event that it began.
        let most = i64::try_from(began).expect("few");
        let least = own.get(issue).copied().unwrap_or(0);
        if kept != ran || turns < least || turns > most {
            wrong.push(format!("{issue}: {kept} sessions kept of {ran}, {turns} turns of {least} to {most}"));
        }
    }
    wrong
}

/// Whatever reached a provider is charged, at least with what it told; one that was cut off, with more.
fn spent(scene: &Scene, db: &Connection) -> Vec<String> {
    // One was refused, and used nothing.
    let sent = i64::try_from(scene.models.asked().len() - scene.models.lift()).expect("few");
    let sum = |what: &str| numbers(db, &format!("SELECT coalesce(sum({what}), 0) FROM spend"))[0];
    let (requests, tokens) = (sum("requests"), sum("input + output"));
    let open = numbers(db, "SELECT id FROM reservations");
    let held = numbers(db, "SELECT 1 FROM standings UNION ALL SELECT 1 FROM in_vain");
    if !held.is_empty() {
        return vec![format!("after an answer {} rows still say that there was none", held.len())];
    }
    // One may be set aside and never sent for each issue that ran when it was killed.
    let most = sent + i64::try_from(ENDS.len()).expect("few");
    if sent == 0 || requests < sent || requests > most || tokens < 7 * sent || !open.is_empty() {
        return vec![format!("{sent} requests were sent, {requests} charged, with {tokens} tokens; open: {open:?}")];
    }
    vec![]
}

fn numbers(db: &Connection, sql: &str) -> Vec<i64> {
    let mut query = db.prepare(sql).expect("a query");
    query.query_map([], |r| r.get(0)).expect("rows").map(|row| row.expect("a number")).collect()
}

/// Each accepted answer was taken by exactly one turn that ended.
fn letters(scene: &Scene, db: &Connection) -> Vec<String> {
    let mut wrong = vec![];
    for text in scene.accepted.borrow().iter().chain(scene.said.borrow().iter()) {
        let found = numbers(db, &format!("SELECT id FROM letters WHERE text = '{text}' AND taken_at IS NOT NULL"));
        let [id] = found.as_slice() else {
            wrong.push(format!("{text} was taken by {} letters", found.len()));
            continue;
        };
        let takings = takings(db, *id);
        if takings != 1 {
            wrong.push(format!("{text} was taken {takings} times"));
        }
    }
    let waiting = numbers(db, "SELECT id FROM letters WHERE taken_at IS NULL");
    let open = numbers(db, "SELECT id FROM questions WHERE closed_at IS NULL");
    if !waiting.is_empty() || !open.is_empty() {
        wrong.push(format!("at the end letters {waiting:?} wait and questions {open:?} are open"));
    }
    wrong
}

/// How many turns that ended had this letter.
fn takings(db: &Connection, id: i64) -> usize {
    let mut query =
        db.prepare("SELECT kind, run, body FROM events WHERE kind LIKE 'letters_%' ORDER BY seq").expect("events");
    let rows = query.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?, r.get::<_, String>(2)?)));
    let (mut holder, mut takings) = (None, 0);
    for (kind, run, body) in rows.expect("rows").map(|row| row.expect("an event")) {
        let body: Value = serde_json::from_str(&body).expect("JSON");
        match kind.as_str() {
            "letters_handed" if body["letters"].as_array().is_some_and(|l| l.contains(&id.into())) => {
                holder = Some(run)
            }
            "letters_taken" if holder == Some(run) => (holder, takings) = (None, takings + 1),
            "letters_returned" if holder == Some(run) => holder = None,
            _ => {}
        }
    }
    takings
}

/// Processes and mounts that outlived the program.
fn left(scene: &Scene) -> Vec<String> {
    let place = scene.project.dir().parent().expect("a parent").display().to_string();
    for _ in 0..100 {
        if processes_with(&place).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut wrong: Vec<String> = processes_with(&place).into_iter().map(|line| format!("still runs: {line}")).collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    wrong.extend(mounts.lines().filter(|line| line.contains(&place)).map(|line| format!("still mounted: {line}")));
    // What a kill left half written, wherever that is.
    let mut places = vec![scene.project.dir().join(".symphony")];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                places.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with(".writing-") {
                wrong.push(format!("{} stays", entry.path().display()));
            }
        }
    }
    wrong
}
