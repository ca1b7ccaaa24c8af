//! A scenario that comes to every point, and the people in it: one answers, one drops an issue, one cancels one.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::model::server::Server;
use crate::rig::{BODY, Project, Running};

/// Longer than any of it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A project with five issues: A-1 fails once, asks and is answered; B-1 fails until it is parked; T-1 is handed on;
/// C-1 is made over the API; W-1 asks, and a person cancels it.
pub(crate) struct Scene {
    pub(crate) project: Project,
    /// What their agents ask.
    pub(crate) models: Server,
    /// Answers that were accepted, whatever became of the program.
    pub(crate) accepted: RefCell<Vec<String>>,
    /// Words without a question that were accepted.
    pub(crate) said: RefCell<Vec<String>>,
    /// Cards of hosts about which a decision was accepted.
    pub(crate) hosts: RefCell<Vec<i64>>,
    /// Answers and words that were sent.
    sent: RefCell<usize>,
    /// What went wrong meanwhile.
    pub(crate) wrong: RefCell<Vec<String>>,
}

/// Where each issue must end.
pub(crate) const ENDS: [(&str, &str); 5] =
    [("A-1", "Done"), ("B-1", "Parked"), ("C-1", "Done"), ("T-1", "Done"), ("W-1", "Cancelled")];

impl Scene {
    pub(crate) fn new() -> Self {
        let states = "states:\n  Todo: {role: active, allowed_transitions: [Review, Done]}\n  Review: {role: active}\n  \
                      Done: {role: terminal}\n  Cancelled: {role: terminal}\nbudget:\n  failures_in_a_row: 3\n";
        let models = Server::start();
        let url = &models.url;
        let states = format!(
            "{states}providers:\n  hold_ms: 500\n  anthropic:\n    base_url: {url}\n  openai:\n    base_url: {url}/v1\n"
        );
        // T-1 is sent away once, and waits.
        models.limit("/chat/completions", 429, "retry-after: 5\r\n", 1);
        let project = Project::acting(include_str!("agent.sh"), &states);
        let lists = "  active_states: [Todo, In Progress]\n  terminal_states: [Done, Cancelled]\n";
        let workflow = project.read("WORKFLOW.md").replace(lists, "");
        let body = BODY.replace("\n\n{{ issue.desc", " in {{ issue.state }}.\n\n{{ issue.desc");
        project.write("WORKFLOW.md", &workflow.replace(BODY, &body));
        for name in ["A-1", "B-1", "T-1", "W-1"] {
            project.issue("Todo", name, "Do it.");
        }
        Self {
            project,
            models,
            accepted: RefCell::default(),
            said: RefCell::default(),
            hosts: RefCell::default(),
            sent: RefCell::default(),
            wrong: RefCell::default(),
        }
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.project.dir().join(".symphony/journal.db")
    }

    /// The journal as another reader sees it; none while there is none.
    pub(crate) fn journal(&self) -> Option<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = Connection::open_with_flags(self.journal_path(), flags).ok()?;
        db.busy_timeout(Duration::from_secs(5)).ok()?;
        Some(db)
    }

    fn is_asked(&self, issue: &str) -> bool {
        let sql = "SELECT count(*) FROM questions WHERE issue = ?1 AND closed_at IS NULL";
        self.journal().and_then(|db| db.query_row(sql, [issue], |r| r.get::<_, i64>(0)).ok()).unwrap_or(0) > 0
    }

    /// The first number that this finds.
    fn number(&self, sql: &str) -> Option<i64> {
        self.journal()?.query_row(sql, [], |r| r.get(0)).ok()
    }

    pub(crate) fn state_of(&self, issue: &str) -> Vec<String> {
        let states = std::fs::read_dir(self.project.dir().join("issues")).expect("issues").flatten();
        let found = states.filter(|state| state.path().join(format!("{issue}.md")).exists());
        found.map(|state| state.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether the journal knows why B-1 is parked.
    pub(crate) fn is_marked_parked(&self) -> bool {
        let sql = "SELECT count(*) FROM parked WHERE issue = 'B-1'";
        self.journal().and_then(|db| db.query_row(sql, [], |r| r.get::<_, i64>(0)).ok()) == Some(1)
    }

    fn is_settled(&self) -> bool {
        let settled = ENDS.iter().all(|(issue, end)| self.state_of(issue) == [*end]);
        let parked = || self.project.read("issues/Parked/B-1.md").contains("Parked: ") && self.is_marked_parked();
        let open = "SELECT count(*) FROM runs WHERE ended_at IS NULL";
        let idle = || self.journal().and_then(|db| db.query_row(open, [], |r| r.get::<_, i64>(0)).ok()) == Some(0);
        let asks = "SELECT count(*) FROM egress_asked";
        let quiet = || self.journal().and_then(|db| db.query_row(asks, [], |r| r.get::<_, i64>(0)).ok()) == Some(0);
        // Of a cancelled one the workspace goes, too; its disk stays while its work is nowhere else.
        let left =
            || ENDS.iter().any(|(i, e)| *e != "Parked" && self.project.exists(&format!(".symphony/workspaces/{i}")));
        settled && parked() && idle() && quiet() && !left()
    }

    /// Runs until everything has its end, or until it dies; whether it died.
    pub(crate) fn run(&self, env: &[(&str, &str)]) -> bool {
        let env: Vec<_> =
            env.iter().copied().chain([("ANTHROPIC_API_KEY", "a key"), ("OPENAI_API_KEY", "a key")]).collect();
        let mut running = self.project.start_in(&["WORKFLOW.md", "--port", "0"], &env);
        let started = Instant::now();
        loop {
            if running.ended() {
                let killed = running.killed();
                assert!(killed, "it ended by itself: {}", running.log());
                return true;
            }
            if self.is_settled() {
                break;
            }
            if started.elapsed() > PATIENCE {
                let states: Vec<_> = ENDS.iter().map(|(issue, _)| (issue, self.state_of(issue))).collect();
                panic!("not settled after {PATIENCE:?}: {states:?}\n{}", running.log());
            }
            self.people(&running);
            std::thread::sleep(Duration::from_millis(50));
        }
        running.signal(rustix::process::Signal::TERM);
        running.killed()
    }

    /// One round of what people do.
    fn people(&self, running: &Running) {
        let Some(client) = running.client_if_any() else { return };
        if self.state_of("C-1").is_empty() {
            let new =
                json!({"identifier": "C-1", "title": "The title of C-1", "description": "Do it.", "state": "Todo"});
            let _ = client.try_post_json("/api/v1/issues", &new);
        }
        // It is never done before its answer, so a turn for this comes.
        if self.said.borrow().is_empty() && self.accepted.borrow().is_empty() {
            *self.sent.borrow_mut() += 1;
            let text = format!("mind-{}", self.sent.borrow());
            let words = json!({"text": text, "when": "next_turn"});
            let told = client.try_post_json("/api/v1/issues/A-1/message", &words);
            if told.is_ok_and(|told| told.status == 202) {
                self.said.borrow_mut().push(text);
            }
        }
        if self.is_asked("A-1") {
            if !self.accepted.borrow().is_empty() {
                self.wrong.borrow_mut().push("an accepted answer was needed again".to_owned());
            }
            *self.sent.borrow_mut() += 1;
            let text = format!("green-{}", self.sent.borrow());
            let answer = client.try_post_json("/api/v1/issues/A-1/steering-reply", &json!({"text": text}));
            if answer.is_ok_and(|answer| answer.status == 202) {
                self.accepted.borrow_mut().push(text);
            }
        }
        if let Some(card) = self.number("SELECT id FROM egress_asked WHERE host = 'decided.example'") {
            let path = format!("/api/v1/egress/{card}/decide");
            let decided = client.try_post_json(&path, &json!({"verb": "never"}));
            if decided.is_ok_and(|decided| decided.status == 200) {
                self.hosts.borrow_mut().push(card);
            }
        }
        if let Some(decision) = self.number("SELECT id FROM egress_decided") {
            let _ = client.try_post_json(&format!("/api/v1/egress/{decision}/forget"), &json!({}));
        }
        if self.is_asked("W-1") && self.state_of("W-1") == ["Todo"] {
            let (from, to) =
                (self.project.dir().join("issues/Todo/W-1.md"), self.project.dir().join("issues/Cancelled"));
            std::fs::create_dir_all(&to).expect("made");
            std::fs::rename(from, to.join("W-1.md")).expect("moved");
        }
    }
}
