//! Composition: builds the parts, starts them in order, stops them in order, and picks the exit code.

mod banner;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use symphony_core::board::{NotNow, Settled};
use symphony_core::workflow::{Auth, Workflow};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::Arguments;
use crate::conductor::{Conductor, Facts, Hands as _};
use crate::egress::Book;
use crate::gateway::broker::{Broker, Purse};
use crate::gateway::egress::{Egress, Internet};
use crate::gateway::mcp::{Bearer, Endpoint};
use crate::git::Git;
use crate::hands::World;
use crate::journal::{Journal, Origin};
use crate::layout::Layout;
use crate::lock::{Lock, Roots};
use crate::metering::Metering;
use crate::operator::{self, Place};
use crate::run::models::{ModelDoor, OpenBroker, Watch};
use crate::run::{McpDoor, OpenMcp, Parts};
use crate::sandbox::choose::Sandboxes;
use crate::storage::{Upkeep, remove_drafts};
use crate::web::{self, Door, OperatorToken};
use crate::workflow_file::{Environment, WorkflowFile};
use crate::workspace;

/// The start waits so long for trials; what takes longer goes on beside the dashboard.
const TRIAL_PATIENCE: Duration = Duration::from_secs(15);

/// Why the program did not start, and the exit code that says so (0.1.0 §1.1).
struct Refused {
    code: u8,
    message: String,
}

impl Refused {
    /// The start failed.
    fn start(message: impl ToString) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

/// Runs until stopped; the exit code is the program's.
pub async fn run(arguments: Arguments) -> ExitCode {
    match start(arguments).await {
        Ok(code) => code,
        Err(refused) => {
            let _ = writeln!(std::io::stderr(), "symphony: {}", refused.message);
            ExitCode::from(refused.code)
        }
    }
}

async fn start(arguments: Arguments) -> Result<ExitCode, Refused> {
    let file = WorkflowFile::load(&arguments.workflow, Environment::of_process())
        .map_err(|error| Refused { code: error.exit_code(), message: error.to_string() })?;
    let workflow = file.workflow();
    let path = file.path().to_owned();
    check_root(&workflow)?;
    let port = match arguments.port {
        Some(port) => Some(
            u16::try_from(port).map_err(|_| Refused::start(format!("cannot bind port {port}: ports end at 65535")))?,
        ),
        None => workflow.server.port,
    };

    let layout = Layout::of(&workflow.dir);
    crate::files::create_private_dir(layout.root())
        .map_err(|error| Refused::start(format!("cannot create {}: {error}", layout.root().display())))?;
    keep_private(&layout);
    keep_out_of_git(&layout);
    let _lock = Lock::take(&layout).map_err(Refused::start)?;
    let mut roots = Roots::default();
    roots.hold(&workflow.tracker.root, true).map_err(Refused::start)?;
    remove_drafts(&layout, &workflow);
    let origin = origin(&layout).map_err(Refused::start)?;
    let (journal, memory) = Journal::open(&layout.journal(), origin).map_err(Refused::start)?;
    keep_instance(&layout, &memory.instance);
    let git = Git::new(layout.root()).map_err(Refused::start)?;
    let exe =
        std::env::current_exe().map_err(|error| Refused::start(format!("cannot find the running program: {error}")))?;
    let sandboxes = Sandboxes::of_this_machine(&exe, &layout, &memory.instance, &workflow);

    // Bound before anything runs: a port that is taken is a start that failed, not a surprise later.
    let listener = match port {
        Some(port) => Some(web::bind(&workflow.server.host, port).await.map_err(Refused::start)?),
        None => None,
    };
    sandboxes.sweep().await;
    sandboxes.settle(&workflow, TRIAL_PATIENCE).await;
    let (templates, instance, next_run) = (sandboxes.templates().cloned(), memory.instance.clone(), memory.next_run);
    let metering = Metering::new(journal.clone(), &memory, &workflow.spending);
    let broker = Broker::recalled(Environment::of_process(), &journal, &memory.told);
    let renewing = broker.clone();
    let book = Book::new(journal.clone(), memory.egress.clone());
    let parts = Arc::new(Parts {
        journal: journal.clone(),
        layout: layout.clone(),
        instance: instance.clone(),
        git: git.clone(),
        sandboxes,
        open_mcp: open_mcp(),
        open_broker: open_broker(broker.clone(), metering.clone()),
        open_egress: Egress::new(book.clone(), Arc::new(Internet::default())).opening(),
        ask_credential: broker.asked(),
        stage: broker.stage(),
        workflow_path: path.clone(),
    });
    let (world, nudges) = World::new(file, parts, roots, broker.changes());
    let first = world.look().await;
    let (tracker, in_force) = (world.tracker(), Arc::new(world.in_force()));
    let begin = workspace::soon(workspace::begin(&git, &workflow)).await.and_then(Result::ok);
    let facts = Facts { workflow_path: path.display().to_string(), once: arguments.once, book };
    let (no_sandbox, sandbox, warnings) = (first.closed.clone(), first.sandbox.clone(), first.warnings.clone());
    let kept = journal.clone();
    let (conductor, handle) = Conductor::new(Arc::new(world), first, journal, memory, metering, facts);

    let (snapshots, layout_of) = (handle.watch(), layout.clone());
    let upkeep = Upkeep { layout: layout_of, journal: kept, instance, templates, next_run, snapshots, in_force };
    tokio::spawn(upkeep.run());
    let doors = CancellationToken::new();
    let local =
        open_socket(&workflow.dir).map(|socket| tokio::spawn(operator::serve(socket, handle.clone(), doors.clone())));
    let mut login = None;
    let web = match listener {
        None => None,
        Some((listener, address)) => {
            let token = OperatorToken::load_or_create(&layout.operator_token()).map_err(Refused::start)?;
            login = Some(match workflow.server.auth {
                Auth::Token => token.login_link(&shown(&listener, &workflow.server.host)),
                Auth::None => format!("http://{}/", shown(&listener, &workflow.server.host)),
            });
            tracing::info!(host = %address.ip(), port = address.port(), "http server listening");
            let door = Door { handle, tracker, token, auth: workflow.server.auth, host: workflow.server.host.clone() };
            let stop = doors.clone();
            Some(tokio::spawn(async move {
                if let Err(error) = web::serve(listener, door, stop).await {
                    tracing::error!(%error, "the dashboard stopped; runs go on");
                }
            }))
        }
    };
    // Whoever reads that symphony started may stop it at once, and in order; until here a signal simply ends it.
    let listen = |kind| signal(kind).map_err(|error| Refused::start(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    banner::show(&banner::Told {
        workflow: &workflow,
        path: &path,
        sandbox: &sandbox,
        login: login.as_deref(),
        begin: begin.as_ref(),
        closed: no_sandbox.map(|closed| NotNow::Closed(closed).to_string()),
        warnings: &warnings,
    });
    tracing::info!(workflow = %path.display(), sandbox = %sandbox.label, reason = %sandbox.reason, "symphony started");

    let asked = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let settled = conductor.run_until_asked(nudges, asked).await;
    doors.cancel();
    renewing.end().await;
    // Their streams end with the token; what does not is cut off with the process.
    for door in [web, local].into_iter().flatten() {
        let _ = tokio::time::timeout(Duration::from_secs(5), door).await;
    }
    Ok(match settled {
        Some(Settled::NeedsHuman) => ExitCode::from(3),
        Some(Settled::Finished) => ExitCode::SUCCESS,
        None => ExitCode::from(1),
    })
}

/// What a new journal has to be told: the mark of what this installation made before, and the numbers that are taken.
/// A journal that was moved away must neither make our own workspaces strangers nor number two runs alike.
pub(crate) fn origin(layout: &Layout) -> Result<Origin, String> {
    let path = layout.instance();
    let refused = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
    let kept = match std::fs::read_to_string(&path) {
        Ok(kept) => Some(kept.trim().to_owned()).filter(|kept| !kept.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused(error)),
    };
    let instance = match kept {
        Some(kept) => kept,
        None => crate::random::token(16).map_err(|error| error.to_string())?,
    };
    let numbers = std::fs::read_dir(layout.runs()).into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(Origin { instance, last_run: numbers.max().unwrap_or(0) })
}

/// Keeps the mark beside the journal, which knows it best.
fn keep_instance(layout: &Layout, instance: &str) {
    let path = layout.instance();
    if std::fs::read_to_string(&path).is_ok_and(|kept| kept.trim() == instance) {
        return;
    }
    if let Err(error) = crate::files::write_atomically(&path, instance.as_bytes()) {
        tracing::warn!(path = %path.display(), %error, "cannot write; should the journal be lost, what is ours could not be told");
    }
}

/// The door for local commands. Nothing depends on it, so its trouble is said and no reason not to start.
fn open_socket(workflow_dir: &Path) -> Option<operator::Socket> {
    let canonical = workflow_dir.canonicalize().unwrap_or_else(|_| workflow_dir.to_owned());
    match Place::of(&canonical).listen() {
        Ok(socket) => Some(socket),
        Err(error) => {
            tracing::warn!(%error, "no socket for local commands: `symphony explain` and its like will not reach this symphony");
            None
        }
    }
}

/// Of an older symphony, or of somebody else's making: nobody but us reads words in it, or holds its locks.
fn keep_private(layout: &Layout) {
    let journal = layout.journal();
    let log = |end: &str| journal.with_file_name(format!("journal.db{end}"));
    for path in [layout.root().to_owned(), layout.lock(), journal.clone(), log("-wal"), log("-shm")] {
        if let Err(error) = crate::files::withhold(&path) {
            tracing::warn!(path = %path.display(), %error, "other users may read this; see to it yourself");
        }
    }
}

/// The directory holds a secret and stands in a repository: `git add -A` must not pick it up.
fn keep_out_of_git(layout: &Layout) {
    let ignore = layout.root().join(".gitignore");
    if !ignore.exists()
        && let Err(error) = std::fs::write(&ignore, "*\n")
    {
        tracing::warn!(path = %ignore.display(), %error, "cannot write; keep the directory out of your repository yourself");
    }
}

fn check_root(workflow: &Workflow) -> Result<(), Refused> {
    let root = &workflow.tracker.root;
    match std::fs::metadata(root) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Refused::start(format!("tracker.root {} is not a directory", root.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let make = crate::log::typed(&root.join(banner::first_active(workflow)));
            Err(Refused::start(format!("there is no issue directory {}\n  make one: mkdir -p {make}", root.display())))
        }
        Err(error) => Err(Refused::start(format!("tracker.root {} cannot be used: {error}", root.display()))),
    }
}

/// The door of the floor above, handed down to runs.
fn open_mcp() -> OpenMcp {
    Arc::new(|identifier, port, calls| {
        let bearer = Bearer::random().map_err(|error| error.to_string())?;
        let secret = bearer.reveal().to_owned();
        let endpoint = Endpoint::new(identifier, bearer, calls);
        let (url, listed) = (endpoint.url(port), endpoint.tools_listed());
        let (serving, taking, closing) = (endpoint.clone(), endpoint.clone(), endpoint);
        Ok(McpDoor {
            url,
            bearer: secret,
            listed,
            serve: Arc::new(move |stream| {
                let endpoint = serving.clone();
                Box::pin(async move { endpoint.serve(stream).await })
            }),
            take_calls: Arc::new(move || taking.take_calls()),
            close: Arc::new(move || closing.close()),
        })
    })
}

/// The same for models.
fn open_broker(broker: Broker, metering: Metering) -> OpenBroker {
    Arc::new(move |workflow, port, payer, reports| {
        let (broker, metering) = (broker.clone(), metering.clone());
        Box::pin(async move {
            let purse = Purse { metering, payer };
            let door = broker.open(workflow.models.clone(), purse, reports).map_err(|error| error.to_string())?;
            let (ways, token) = (door.ways(port).await, door.token().to_owned());
            let ending = door.clone();
            let turn_over = Arc::new(move || ending.turn_over());
            let watch = Watch { held: door.held(), over: door.over(), turn_over };
            let (seen, serving, closing) = (door.seen(), door.clone(), door);
            Ok(ModelDoor {
                watch,
                ways,
                token,
                learned: broker.learned().clone(),
                seen,
                serve: Arc::new(move |stream| {
                    let door = serving.clone();
                    Box::pin(async move { door.serve(stream).await })
                }),
                close: Arc::new(move || closing.close()),
            })
        })
    })
}

/// The address as a browser on this machine reaches it.
fn shown(listener: &TcpListener, host: &str) -> String {
    let port = listener.local_addr().map(|a| a.port()).unwrap_or_default();
    let host = match host {
        "0.0.0.0" | "::" | "" => "127.0.0.1",
        other => other,
    };
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
