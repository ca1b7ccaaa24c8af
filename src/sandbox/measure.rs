//! What a runtime really enforces here, found out by trying: a throw-away guest attempts to exceed each of its limits.
//! The same for every runtime. Needs no state directory and touches no work disk but its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use symphony_core::ids::RunId;

use super::channel::{Channel, ChannelError, CheckRequest, Exit};
use super::{BootSpec, Sandbox, TrialReport};

/// An emulated machine boots within this.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// One attempt; emulation is slow, and so is a shell that tries to fork again and again.
const ATTEMPT_MS: u64 = 120_000;
/// What the guest gets to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Limits small enough to be exceeded quickly, and large enough for a machine to boot.
const MEMORY_MIB: u64 = 256;
const PIDS: u64 = 64;
const FILE_MIB: u64 = 16;
const DISK_MIB: u64 = 128;
/// Programs that hold 2/5 of the memory each: more than there is, and none of them more than one may have.
const HOLDERS: u64 = 4;

/// Whether a limit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The attempt was stopped.
    Enforced,
    /// The attempt went through.
    NotEnforced,
    /// Why the attempt says nothing.
    Unclear(String),
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is limited.
    pub what: &'static str,
    /// What came of the attempt.
    pub verdict: Verdict,
    /// By what, as the runtime says.
    pub by: String,
}

/// Everything that was found out about one runtime.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What the runtime itself says of this guest.
    pub report: TrialReport,
    /// From the order to boot to the guest's first answer.
    pub booted: Duration,
    /// In the order of the attempts.
    pub findings: Vec<Finding>,
}

/// Boots a guest with this image and has it try.
///
/// # Errors
/// Why there is no guest, a sentence.
pub async fn measure(sandbox: &dyn Sandbox, image: Option<PathBuf>) -> Result<Measured, String> {
    let place = place().await?;
    let disk = place.path().join("disk");
    let measured = boot_and_try(sandbox, spec(&disk, image, vec![])).await;
    let discarded = sandbox.discard_disk(&disk).await;
    let measured = measured?;
    discarded.map_err(|error| error.to_string())?;
    Ok(measured)
}

/// Boots a guest with this image, which must have these packages, and stops it.
///
/// # Errors
/// Why there is no guest, a sentence.
pub async fn boots(sandbox: &dyn Sandbox, image: Option<PathBuf>, packages: Vec<String>) -> Result<(), String> {
    let place = place().await?;
    let disk = place.path().join("disk");
    let booted = boot_and_greet(sandbox, spec(&disk, image, packages)).await;
    let discarded = sandbox.discard_disk(&disk).await;
    booted?;
    discarded.map_err(|error| error.to_string())
}

async fn place() -> Result<tempfile::TempDir, String> {
    let place = tokio::task::spawn_blocking(tempfile::tempdir).await.map_err(|error| error.to_string())?;
    place.map_err(|error| format!("cannot make a temporary directory: {error}"))
}

fn spec(disk: &Path, image: Option<PathBuf>, packages: Vec<String>) -> BootSpec {
    BootSpec {
        run: RunId(0),
        disk: disk.to_owned(),
        image,
        packages,
        templates: false,
        read_only: vec![],
        cpus: 1,
        memory_mib: MEMORY_MIB,
        pids: PIDS,
        file_size_mib: FILE_MIB,
        disk_mib: DISK_MIB,
        deadline: BOOT_DEADLINE,
        program: vec![],
    }
}

async fn boot_and_greet(sandbox: &dyn Sandbox, spec: BootSpec) -> Result<(), String> {
    let guest = sandbox.boot(spec).await.map_err(|error| error.to_string())?;
    let (io, mut life) = guest.into_parts();
    let token = crate::random::token(16).map_err(|error| error.to_string())?;
    let greeted = match Channel::open(io, &token, BOOT_DEADLINE).await {
        Ok((channel, _)) => {
            let _ = channel.shutdown(GRACE).await;
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    let ending = life.stop(GRACE).await;
    greeted.map_err(|error| format!("{error}; it said: {}", ending.stderr.trim()))
}

async fn boot_and_try(sandbox: &dyn Sandbox, spec: BootSpec) -> Result<Measured, String> {
    let began = Instant::now();
    let guest = sandbox.boot(spec).await.map_err(|error| error.to_string())?;
    let report = guest.report.clone();
    let (io, mut life) = guest.into_parts();
    let token = crate::random::token(16).map_err(|error| error.to_string())?;
    let findings = match Channel::open(io, &token, BOOT_DEADLINE).await {
        Ok((channel, _)) => {
            let booted = began.elapsed();
            let findings = attempts(&channel, &report).await;
            // One that died of the attempts has nothing to say.
            let _ = channel.shutdown(GRACE).await;
            Ok((booted, findings))
        }
        Err(error) => Err(error.to_string()),
    };
    let ending = life.stop(GRACE).await;
    let (booted, findings) = findings.map_err(|error| format!("{error}; it said: {}", ending.stderr.trim()))?;
    Ok(Measured { report, booted, findings })
}

/// Memory comes last: the guest may die of it.
async fn attempts(channel: &Channel, report: &TrialReport) -> Vec<Finding> {
    let finding = |what, verdict, by: &str| Finding { what, verdict, by: by.to_owned() };
    vec![
        finding("network", network(channel).await, "only its own loopback"),
        finding("processors", processors(channel).await, &report.cpus),
        finding("file size", file_size(channel).await, "the largest single file"),
        finding("disk", disk(channel).await, &report.disk),
        finding("processes", processes(channel).await, &report.pids),
        finding("memory", memory(channel).await, &report.memory),
    ]
}

/// Runs a script in the guest; what it wrote to its output, and its exit.
async fn sh(channel: &Channel, script: &str) -> Result<(Exit, String), ChannelError> {
    let request = CheckRequest {
        argv: vec!["sh".into(), "-c".into(), format!("exec 2>/dev/null; cd \"$HOME\" || exit 99; {script}")],
        env: vec![
            ("HOME".into(), "/home/agent".into()),
            ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ],
        cwd: None,
        timeout_ms: ATTEMPT_MS,
        max_output: 4096,
    };
    let (outcome, said) = channel.check(request).await?;
    Ok((outcome.exit, String::from_utf8_lossy(&said).trim().to_owned()))
}

/// The number a script printed.
async fn number(channel: &Channel, script: &str) -> Result<u64, Verdict> {
    match sh(channel, script).await {
        Ok((_, said)) => said.parse().map_err(|_| Verdict::Unclear("the guest did not say a number".to_owned())),
        Err(error) => Err(Verdict::Unclear(error.to_string())),
    }
}

/// Enforced when an attempt ended at or below the limit. The control has to reach its own goal: a guest that cannot do
/// it at all proves nothing.
fn judge(control: Result<u64, Verdict>, goal: u64, reached: Result<u64, Verdict>, limit: u64) -> Verdict {
    match (control, reached) {
        (Err(unclear), _) | (_, Err(unclear)) => unclear,
        (Ok(control), _) if control < goal => Verdict::Unclear("even what is allowed failed".to_owned()),
        (_, Ok(reached)) if reached > limit => Verdict::NotEnforced,
        _ => Verdict::Enforced,
    }
}

async fn network(channel: &Channel) -> Verdict {
    match sh(channel, "tail -n +3 /proc/net/dev | cut -d: -f1").await {
        Ok((_, said)) if said.is_empty() => Verdict::Unclear("the guest lists no interface".to_owned()),
        Ok((_, said)) if said.split_whitespace().all(|name| name == "lo") => Verdict::Enforced,
        Ok(_) => Verdict::NotEnforced,
        Err(error) => Verdict::Unclear(error.to_string()),
    }
}

async fn processors(channel: &Channel) -> Verdict {
    let there = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match number(channel, "nproc || grep -c ^processor /proc/cpuinfo").await {
        Err(unclear) => unclear,
        Ok(_) if there < 2 => Verdict::Unclear("this machine has only one".to_owned()),
        Ok(1) => Verdict::Enforced,
        Ok(_) => Verdict::NotEnforced,
    }
}

async fn file_size(channel: &Channel) -> Verdict {
    let grow = |mib: u64| format!("dd if=/dev/zero of=probe bs=1M count={mib}; wc -c < probe; rm -f probe");
    let control = number(channel, &grow(FILE_MIB / 4)).await;
    let reached = number(channel, &grow(FILE_MIB * 3 / 2)).await;
    judge(control, (FILE_MIB / 4) << 20, reached, FILE_MIB << 20)
}

/// Many files, each smaller than one may be. Counted only once they are on the disk.
async fn disk(channel: &Channel) -> Verdict {
    let fill = |files: u64| {
        format!(
            "i=0; while [ $i -lt {files} ]; do dd if=/dev/zero of=fill$i bs=1M count=12 conv=fsync || break; i=$((i+1)); done; rm -f fill*; echo $i"
        )
    };
    let control = number(channel, &fill(2)).await;
    let reached = number(channel, &fill(DISK_MIB / 12 + 4)).await;
    judge(control, 2, reached, DISK_MIB / 12)
}

/// They write their number down first: a shell that cannot fork ends there.
async fn processes(channel: &Channel) -> Verdict {
    let fork = |count: u64| {
        format!(
            "(i=0; while [ $i -lt {count} ]; do sleep 100 & i=$((i+1)); echo $i > forked; done); tail -n 1 forked; rm -f forked"
        )
    };
    let control = number(channel, &fork(4)).await;
    let reached = number(channel, &fork(PIDS * 2)).await;
    // Those that were made die a moment after their shell; until then nothing else can be started, or measured.
    for _ in 0..50 {
        if number(channel, "echo 1 | cat | cat").await == Ok(1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    judge(control, 4, reached, PIDS)
}

/// Several programs, each with a buffer below the limit: they fill theirs at once, and the sum is what was held. One
/// program alone would say nothing of a limit that holds for each of them.
async fn memory(channel: &Channel) -> Verdict {
    let control = number(channel, &hold(1, MEMORY_MIB / 8)).await;
    if control != Ok(MEMORY_MIB / 8) {
        return match control {
            Err(unclear) => unclear,
            Ok(_) => Verdict::Unclear("even what is allowed failed".to_owned()),
        };
    }
    match sh(channel, &hold(HOLDERS, MEMORY_MIB * 2 / 5)).await {
        Ok((Exit::Code(0), said)) => match said.parse::<u64>() {
            Ok(held) if held > MEMORY_MIB => Verdict::NotEnforced,
            Ok(_) => Verdict::Enforced,
            Err(_) => Verdict::Unclear("the guest did not say a number".to_owned()),
        },
        // The shell, or the whole guest, died of it.
        Ok(_) | Err(ChannelError::Closed(_) | ChannelError::BrokenOff(_)) => Verdict::Enforced,
        Err(error) => Verdict::Unclear(error.to_string()),
    }
}

/// So many programs hold so many MiB each, all at once; prints how many MiB that was. A `dd` writes only when its buffer
/// is full, and then waits for its reader, who takes one byte and waits for the others. What a killed one had is
/// not counted; where one never comes to it, nothing is printed.
fn hold(programs: u64, mib: u64) -> String {
    let bytes = mib << 20;
    format!(
        "rm -f full* got*; : > hold; t=0; i=0; while [ $i -lt {programs} ]; do i=$((i+1)); \
         dd if=/dev/zero bs={bytes} count=1 | {{ dd of=/dev/null bs=1 count=1; echo > full$i; \
         while [ -e hold ]; do sleep 1; done; wc -c > got$i; }} & done; \
         i=0; while [ $i -lt {programs} ]; do i=$((i+1)); while [ ! -e full$i ]; do t=$((t+1)); \
         [ $t -lt 90 ] || {{ rm hold; exit 0; }}; sleep 1; done; done; \
         rm hold; wait; held=0; i=0; while [ $i -lt {programs} ]; do i=$((i+1)); \
         [ \"$(cat got$i)\" -ge $(({bytes}-1)) ] && held=$((held+{mib})); done; rm -f full* got*; echo $held"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script itself, outside of any sandbox: it counts what was held at once, and not what a limit took away.
    #[test]
    fn what_is_held_is_the_sum_of_those_who_filled_their_buffer() {
        let place = tempfile::tempdir().expect("a directory");
        let says = |limit: &str, programs| {
            let script = format!("exec 2>/dev/null; {limit} {}", hold(programs, 8));
            let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(place.path()).output();
            String::from_utf8(output.expect("runs").stdout).expect("text").trim().to_owned()
        };
        assert_eq!(says("", 1), "8");
        assert_eq!(says("", 3), "24");
        // 6 MiB of data for each process: none of them gets its 8.
        assert_eq!(says("ulimit -d 6144;", 3), "0");
        // What a limit per process does not see.
        assert_eq!(says("ulimit -d 16384;", 3), "24");
    }

    #[test]
    fn an_attempt_says_something_only_when_what_is_allowed_went_through() {
        assert_eq!(judge(Ok(4), 4, Ok(10), 10), Verdict::Enforced);
        assert_eq!(judge(Ok(4), 4, Ok(11), 10), Verdict::NotEnforced);
        assert!(matches!(judge(Ok(3), 4, Ok(0), 10), Verdict::Unclear(_)));
        let unclear = || Err(Verdict::Unclear("gone".to_owned()));
        assert_eq!(judge(unclear(), 4, Ok(1), 10), Verdict::Unclear("gone".to_owned()));
        assert_eq!(judge(Ok(4), 4, unclear(), 10), Verdict::Unclear("gone".to_owned()));
    }
}
