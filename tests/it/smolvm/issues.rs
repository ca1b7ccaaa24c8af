//! An issue from Todo to its patch through the runtime, over the parts that the application joins.

use std::path::Path;
use std::sync::Arc;

use symphony::conductor::{Conductor, Facts, Hands as _};
use symphony::egress::Book;
use symphony::gateway::broker::Broker;
use symphony::gateway::egress::{Egress, Internet};
use symphony::gateway::mcp::{Bearer, Endpoint};
use symphony::git::Git;
use symphony::hands::World;
use symphony::journal::{Journal, Origin};
use symphony::layout::Layout;
use symphony::run::{McpDoor, OpenMcp, Parts};
use symphony::sandbox::Sandbox;
use symphony::sandbox::choose::Sandboxes;
use symphony::workflow_file::{Environment, WorkflowFile};
use symphony_core::board::Settled;
use symphony_core::runtimes::Kind;

use super::bench::{Bench, block_on};
use crate::rig::{FRONT, Project, SOON};

fn open_mcp() -> OpenMcp {
    Arc::new(|identifier, port, calls| {
        let bearer = Bearer::random().map_err(|error| error.to_string())?;
        let secret = bearer.reveal().to_owned();
        let endpoint = Endpoint::new(identifier, bearer, calls);
        let (url, listed) = (endpoint.url(port), endpoint.tools_listed());
        let (serving, taking, closing) = (endpoint.clone(), endpoint.clone(), endpoint);
        let serve: symphony::run::ServeStream = Arc::new(move |stream| {
            let endpoint = serving.clone();
            Box::pin(async move { endpoint.serve(stream).await })
        });
        let take_calls = Arc::new(move || taking.take_calls());
        Ok(McpDoor { url, bearer: secret, listed, serve, take_calls, close: Arc::new(move || closing.close()) })
    })
}

/// Works on everything there is, once, with this sandbox, and no variable of the host.
pub(super) async fn work(dir: &Path, sandbox: Arc<dyn Sandbox>) -> Settled {
    work_in(dir, sandbox, Environment { home: None, variable: Arc::new(|_| None) }).await
}

/// The same in this environment.
pub(super) async fn work_in(dir: &Path, sandbox: Arc<dyn Sandbox>, environment: Environment) -> Settled {
    let path = dir.join("WORKFLOW.md");
    let file = WorkflowFile::load(&path, environment.clone()).expect("a workflow");
    let layout = Layout::of(dir);
    symphony::files::create_private_dir(layout.root()).expect("made");
    let (journal, memory) =
        Journal::open(&layout.journal(), Origin { instance: "of-this-test".into(), last_run: 0 }).expect("a journal");
    let sandboxes = Sandboxes::new([(Kind::Smolvm, sandbox)]);
    sandboxes.settle(&file.workflow(), SOON).await;
    let book = Book::new(journal.clone(), memory.egress.clone());
    let parts = Arc::new(Parts {
        journal: journal.clone(),
        git: Git::new(layout.root()).expect("git"),
        layout,
        instance: memory.instance.clone(),
        sandboxes,
        open_mcp: open_mcp(),
        open_broker: Arc::new(|_, _, _, _| Box::pin(async { Err("there are no models".to_owned()) })),
        open_egress: Egress::new(book.clone(), Arc::new(Internet::default())).opening(),
        ask_credential: Arc::new(|_, _| Box::pin(async { Ok(()) })),
        stage: Broker::new(environment).stage(),
        workflow_path: path.clone(),
    });
    let (_, providers) = tokio::sync::watch::channel(());
    let (world, nudges) = World::new(file, parts, symphony::lock::Roots::default(), providers);
    let first = world.look().await;
    let facts = Facts { workflow_path: path.display().to_string(), once: true, book };
    let metering = symphony::metering::Metering::new(journal.clone(), &memory, &first.workflow.spending);
    let (conductor, _handle) = Conductor::new(Arc::new(world), first, journal, memory, metering, facts);
    conductor.run_until_asked(nudges, std::future::pending::<()>).await.expect("it ends by itself")
}

/// Why it stands where it stands.
pub(super) fn parked(project: &Project, name: &str) -> String {
    std::fs::read_to_string(project.dir().join(format!("issues/Parked/{name}.md"))).unwrap_or_default()
}

#[test]
fn an_issue_goes_from_todo_to_its_patch_in_a_machine() {
    let Some(bench) = Bench::new() else { return };
    let project = Project::new();
    let body = "```sh\necho from a machine > made.txt\nls /work > listed.txt\n```\n";
    project.issue("Todo", "APP-1", body);
    let settled = block_on(work(&project.dir(), Arc::new(bench.runtime())));
    assert_eq!(settled, Settled::Finished, "{}", parked(&project, "APP-1"));
    assert!(project.exists("issues/Done/APP-1.md"), "{}", bench.log());
    let clone = project.apply_patch("APP-1");
    assert_eq!(std::fs::read_to_string(clone.join("made.txt")).expect("in the patch"), "from a machine\n");
    // Its work is out: the machine is gone with the disk.
    assert_eq!((bench.machines(), bench.monitors().len()), (vec![], 0));
}

#[test]
fn a_failed_run_leaves_its_machine_stopped_and_the_next_run_takes_it_up() {
    let Some(bench) = Bench::new() else { return };
    let project = Project::new();
    // The first run fails behind a file that git does not carry; only the same machine still has it.
    let body = "```sh\n[ -e /home/agent/been ] || { echo here > /home/agent/been; exit 1; }\ncp /home/agent/been been.txt\n```\n";
    project.issue("Todo", "APP-2", body);
    let settled = block_on(work(&project.dir(), Arc::new(bench.runtime())));
    assert_eq!(settled, Settled::Finished, "{}", parked(&project, "APP-2"));
    let clone = project.apply_patch("APP-2");
    assert_eq!(std::fs::read_to_string(clone.join("been.txt")).expect("in the patch"), "here\n");
    let log = bench.log();
    let made = log.lines().filter(|line| line.starts_with("machine create --name") && line.contains("issue=APP-2"));
    assert_eq!(made.count(), 1, "{log}");
}

/// Regression: where a project was moved its machines are not found under their names, and an empty one was made in place of
/// the one that held the only copy of some work.
#[test]
fn a_machine_that_is_gone_while_its_work_disk_is_marked_stops_the_run_and_the_mark_stays() {
    let Some(bench) = Bench::new() else { return };
    let project = Project::with(&format!("{FRONT}budget:\n  failures_in_a_row: 1\n"));
    project.issue("Todo", "APP-3", "```sh\necho x > x.txt\n```");
    project.write(".symphony/unexported/APP-3", "smolvm");
    project.write(".symphony/machines/smolvm/APP-3/smolvm/machine", "sy-abcd-app-3-abcdef\n");
    block_on(work(&project.dir(), Arc::new(bench.runtime())));
    let parked = parked(&project, "APP-3");
    assert!(parked.contains("no work tree is on it any more") && parked.contains("unexported/APP-3"), "{parked}");
    assert_eq!(project.read(".symphony/unexported/APP-3"), "smolvm");
    assert!(!project.exists("issues/Done/APP-3.md"), "{}", bench.log());
}
