//! The words both ends of a channel share: requests, replies, frames and their limits.
//!
//! One byte stream carries many multiplexed streams (`mux`). The host opens one stream per request and sends a single
//! length-prefixed JSON [`Request`]; everything after that is a sequence of small typed [`Frame`]s. The only streams
//! a guest opens are relayed connections, which begin with a [`RelayHeader`] and then carry raw bytes.
//! This module never allocates what a peer merely announces: every length is checked against a cap first.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The protocol version. A peer of another version is refused.
pub const VERSION: u32 = 1;
/// Bytes of one request header. Seeds and exports name commits (43 bytes each): room for about 6000.
pub const MAX_HEADER: usize = 256 * 1024;
/// Bytes of one frame's payload.
pub const MAX_FRAME: usize = 64 * 1024;
/// Bytes of stdin the host may send beyond what the guest has confirmed as written to the child.
pub const STDIN_CREDIT: usize = 256 * 1024;
/// Bytes of an opaque marker.
pub const MAX_MARKER: usize = 16 * 1024;
/// Bytes of text in a [`Refusal`].
pub const MAX_MESSAGE: usize = 4 * 1024;
/// Bytes of the line a machine is woken with.
pub const MAX_WAKE: usize = 64 * 1024;
/// Simultaneous relayed connections of one listener; more wait in the guest's accept queue.
pub const MAX_RELAYS_PER_LISTENER: usize = 64;
/// Of all listeners together: fewer than a peer may hold open, for one too many ends the channel.
pub const MAX_RELAYS: usize = 128;
/// Of those, what each listener has for itself: our tools must answer however many connections the others hold.
pub const RELAYS_RESERVED: usize = 8;
/// Listeners of one channel.
pub const MAX_LISTENERS: usize = 4;

/// What the host asks for; the first thing on each stream it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Opens the conversation; anything else before it is refused.
    Hello(Hello),
    /// Starts a program; its stdio and exit are framed on the stream.
    Spawn(SpawnRequest),
    /// Listens on the guest's loopback until the stream closes.
    Listen(ListenRequest),
    /// Builds the work tree from a bundle that follows as data.
    Seed(SeedRequest),
    /// Answers with the commits the host lacks, as a bundle.
    Export(ExportRequest),
    /// Runs a command to its end and answers with its exit and capped output.
    Check(CheckRequest),
    /// Stores an opaque text on the work disk, read back in a later hello.
    Marker {
        /// At most [`MAX_MARKER`] bytes.
        text: String,
    },
    /// Answers at once.
    Ping,
    /// Kills every process of the sandbox but the guest program: what an agent left running must not
    /// stand in the way of the last export.
    Clear,
    /// Kills everything that was spawned, syncs, and exits.
    Shutdown,
}

/// The host's greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The host's [`VERSION`].
    pub version: u32,
    /// Chosen by the host for this opening and echoed: an answer left over from an earlier boot is not taken for ours.
    pub token: String,
}

/// The guest's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloInfo {
    /// The guest's [`VERSION`].
    pub version: u32,
    /// The token of the greeting.
    pub token: String,
    /// The guest program's own version, for people.
    pub program: String,
    /// Whether the work disk holds a tree that was built completely.
    pub tree: bool,
    /// The marker last stored on the work disk.
    pub marker: Option<String>,
}

/// What the first process of a microVM says when it can be woken, when it is awake, and when its work disk is usable: one
/// line of JSON each, before the channel proper begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReady {
    /// The guest's [`VERSION`].
    pub version: u32,
    /// Why it cannot go on, in words for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What the host answers a machine that is ready: one line of JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineOrder {
    /// Make ready what any machine will need, then say ready again. Only for a template.
    Warm {
        /// Run for nothing but to have their pages in memory.
        commands: Vec<Vec<String>>,
        /// The size that a work disk will most likely have, in MiB.
        disk_mib: u64,
    },
    /// Begin. The channel proper follows.
    Wake(Wake),
}

/// What a machine learns when it begins and must not know before: templates are saved ahead of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// At least 32 characters nobody else knows.
    pub entropy: String,
    /// The host's clock, in nanoseconds since 1970.
    pub unix_nanos: u64,
    /// MiB the work disk may grow to.
    pub disk_mib: u64,
    /// Processes and threads the guest may have; 0 is no limit.
    pub pids: u64,
    /// MiB that one file of the guest may grow to; 0 is no limit.
    pub file_size_mib: u64,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A program and its arguments; looked up in the `PATH` of the given environment.
    Argv(Vec<String>),
    /// The agent built into the guest program.
    ScriptAgent,
}

/// Starts a program with pipes for stdio and exactly the given environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRequest {
    /// What to run.
    pub program: Program,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory; the work tree when absent.
    pub cwd: Option<String>,
}

/// Listens on `127.0.0.1:port` inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenRequest {
    /// The port; 0 lets the guest's kernel choose.
    pub port: u16,
}

/// The answer to a [`ListenRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The port that is bound.
    pub port: u16,
}

/// The first thing on a stream opened by the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayHeader {
    /// The guest port a program connected to.
    pub listen: u16,
}

/// Who the work tree's commits are by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `user.name`
    pub name: String,
    /// `user.email`
    pub email: String,
}

/// Builds the work tree. A bundle with `refs/symphony/{head,wip,extra}` follows as data frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedRequest {
    /// The commit the branch starts at.
    pub head: String,
    /// The branch to work on, such as `agent/ABC-1`.
    pub branch: String,
    /// A commit on `head` whose tree is laid over it uncommitted: changes, deletions and untracked files.
    pub wip: Option<String>,
    /// A commit whose tree holds untracked or ignored files to lay into the tree once, uncommitted.
    pub extra: Option<String>,
    /// The commits whose parents the bundle lacks: the content of git's `shallow` file.
    pub shallow: Vec<String>,
    /// Who commits.
    pub identity: Identity,
    /// Replaces a tree that is already there; without it such a tree is a refusal.
    pub wipe: bool,
    /// Bytes of bundle the guest takes.
    pub max_bytes: u64,
    /// For the whole operation.
    pub timeout_ms: u64,
}

/// Asks for what the work tree holds beyond `have`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// Commits the host has; commits the guest never saw are ignored.
    pub have: Vec<String>,
    /// The base commit.
    pub base: String,
    /// Bytes of bundle the host takes; more is a refusal.
    pub max_bytes: u64,
    /// The last export of an issue: uncommitted work becomes a commit when `commit_message` is given.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The message of that commit.
    pub commit_message: Option<String>,
    /// For the whole operation.
    pub timeout_ms: u64,
}

/// What an export holds; the bundle's bytes follow as data frames unless `empty`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The commit HEAD names.
    pub head: String,
    /// A commit of the uncommitted work, when there is any. Its parent is `head`.
    pub wip: Option<String>,
    /// There is nothing the host lacks, so no bundle follows.
    pub empty: bool,
    /// The branch HEAD is on; absent when detached.
    pub branch: Option<String>,
}

/// Runs a command to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// A program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory; the work tree when absent.
    pub cwd: Option<String>,
    /// After which the whole process group is killed.
    pub timeout_ms: u64,
    /// Bytes of output kept: the first and last halves.
    pub max_output: usize,
}

/// How a check went; its output precedes this as data frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// How the command ended.
    pub exit: Exit,
    /// It was killed at its deadline.
    pub timed_out: bool,
    /// Output was left out because of `max_output`.
    pub truncated: bool,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// Why the guest did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The peers speak different versions.
    Version,
    /// The request is unknown, malformed or out of order.
    BadRequest,
    /// A program could not be started.
    Spawn,
    /// The port could not be bound.
    Listen,
    /// A cap would be exceeded.
    TooLarge,
    /// The operation's deadline passed.
    Timeout,
    /// The work tree is not in a state the operation can work with.
    Tree,
    /// git failed; the message holds its words.
    Git,
    /// The guest's own disk or kernel failed.
    Io,
}

/// A refusal, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// At most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Refusal {
    /// A refusal whose text is cut to [`MAX_MESSAGE`].
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE - 3;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        Self { kind, message }
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// JSON: the answer to the request.
    Reply = 0,
    /// Bytes: stdin towards the guest, stdout or a bundle from it.
    Data = 1,
    /// Bytes of stderr.
    Stderr = 2,
    /// No more data in this direction.
    End = 3,
    /// JSON number: bytes of stdin that reached the child.
    Credit = 4,
    /// JSON [`Exit`]: after all output.
    Exit = 5,
    /// JSON [`Refusal`]: the last frame.
    Error = 6,
    /// Kill the process group; its exit is still reported.
    Kill = 7,
}

/// One unit on a request's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// At most [`MAX_FRAME`] bytes.
    pub payload: Vec<u8>,
}

/// Why bytes from the peer could not be read as this protocol.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),
    /// A length beyond its cap was announced.
    #[error("the peer announced {length} bytes where at most {cap} are allowed")]
    TooLong {
        /// What was announced.
        length: usize,
        /// What is allowed.
        cap: usize,
    },
    /// No such frame.
    #[error("the peer sent a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Not the JSON that belongs here.
    #[error("the peer sent a message that is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

impl Frame {
    /// A frame with a JSON payload.
    ///
    /// # Errors
    /// The value does not fit a frame.
    pub fn json<T: Serialize>(kind: FrameKind, value: &T) -> Result<Self, WireError> {
        let payload = serde_json::to_vec(value)?;
        check_length(payload.len(), MAX_FRAME)?;
        Ok(Self { kind, payload })
    }

    /// The payload as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        Ok(serde_json::from_slice(&self.payload)?)
    }
}

fn check_length(length: usize, cap: usize) -> Result<(), WireError> {
    if length > cap { Err(WireError::TooLong { length, cap }) } else { Ok(()) }
}

/// Sends a length-prefixed JSON header.
///
/// # Errors
/// The header exceeds [`MAX_HEADER`] or the stream broke.
pub async fn write_header<T: Serialize>(io: &mut (impl AsyncWrite + Unpin), value: &T) -> Result<(), WireError> {
    let json = serde_json::to_vec(value)?;
    check_length(json.len(), MAX_HEADER)?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&json);
    io.write_all(&bytes).await?;
    Ok(io.flush().await?)
}

/// Reads a length-prefixed JSON header of at most `cap` bytes.
///
/// # Errors
/// A longer header, other JSON, or the stream broke.
pub async fn read_header<T: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin), cap: usize) -> Result<T, WireError> {
    let length = io.read_u32().await? as usize;
    check_length(length, cap)?;
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Sends one frame.
///
/// # Errors
/// The payload exceeds [`MAX_FRAME`] or the stream broke.
pub async fn write_frame(io: &mut (impl AsyncWrite + Unpin), kind: FrameKind, payload: &[u8]) -> Result<(), WireError> {
    check_length(payload.len(), MAX_FRAME)?;
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(payload);
    io.write_all(&bytes).await?;
    Ok(io.flush().await?)
}

/// Sends one frame with a JSON payload.
///
/// # Errors
/// As [`write_frame`].
pub async fn write_json<T: Serialize>(
    io: &mut (impl AsyncWrite + Unpin),
    kind: FrameKind,
    value: &T,
) -> Result<(), WireError> {
    let frame = Frame::json(kind, value)?;
    write_frame(io, frame.kind, &frame.payload).await
}

/// Reads one frame; `None` where the peer ended the stream between frames.
///
/// # Errors
/// An unknown kind, a payload beyond [`MAX_FRAME`], or the stream broke.
pub async fn read_frame(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, WireError> {
    let kind = match io.read_u8().await {
        Ok(kind) => kind,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let kind = match kind {
        0 => FrameKind::Reply,
        1 => FrameKind::Data,
        2 => FrameKind::Stderr,
        3 => FrameKind::End,
        4 => FrameKind::Credit,
        5 => FrameKind::Exit,
        6 => FrameKind::Error,
        7 => FrameKind::Kill,
        other => return Err(WireError::UnknownKind(other)),
    };
    let length = io.read_u32().await? as usize;
    check_length(length, MAX_FRAME)?;
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await?;
    Ok(Some(Frame { kind, payload }))
}
