//! What a program in the jail can do.

use std::time::Duration;

use symphony::sandbox::channel::Channel;
use symphony::sandbox::{BootError, Sandbox};
use symphony_guest::wire::{CheckRequest, Exit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::{SOON, both_ways, is_root, outside, skip_unless_again};
use crate::skip::skip_part;

#[test]
fn a_program_runs_and_speaks_over_descriptor_three() {
    both_ways("jail::works::a_program_runs_and_speaks_over_descriptor_three", |bench| async move {
        let mut guest = bench.boot("read line <&3; echo \"heard $line\" >&3; echo oops >&2; exit 7").await;
        guest.io.write_all(b"hello\n").await.expect("the channel takes bytes");
        let mut said = String::new();
        tokio::time::timeout(SOON, guest.io.read_to_string(&mut said)).await.expect("in time").expect("readable");
        assert_eq!(said, "heard hello\n");
        let ending = guest.stop(Duration::from_secs(20)).await;
        assert_eq!((ending.code, ending.killed, ending.stderr.as_str()), (Some(7), false, "oops\n"));
    });
}

#[test]
fn a_trial_measures_what_is_enforced() {
    both_ways("jail::works::a_trial_measures_what_is_enforced", |bench| async move {
        let report = bench.jail.trial(None).await.expect("the trial passes");
        println!("{report:?}");
        assert!(report.seccomp);
        assert_ne!(report.uid, Some(0));
    });
}

#[test]
fn git_commits_in_the_work_tree() {
    both_ways("jail::works::git_commits_in_the_work_tree", |bench| async move {
        let script = "cd /work; git init -q . && echo hi > f && git add f && git -c user.name=a -c user.email=a@b commit -qm first && git log --format=%s";
        assert_eq!(bench.say(script).await, "first");
    });
}

#[test]
fn interpreters_that_the_host_has_run() {
    both_ways("jail::works::interpreters_that_the_host_has_run", |bench| async move {
        let programs = [
            ("perl", "perl -e 'print 6*7'"),
            (
                "python3",
                "python3 -c 'import threading,subprocess; t=threading.Thread(target=lambda: subprocess.run([\"true\"])); t.start(); t.join(); print(6*7)'",
            ),
            ("node", "node -e 'require(\"child_process\").execSync(\"true\"); console.log(6*7)'"),
        ];
        for (name, script) in programs {
            let there =
                format!("command -v {name} >/dev/null && {name} --version >/dev/null 2>&1 || {{ echo absent; exit; }}");
            let mut spec = bench.spec(&format!("exec >&3; {there}; {script}"));
            spec.memory_mib = 2048;
            let (said, ending) = bench.run_spec(spec).await;
            if said.trim() == "absent" {
                skip_part(format_args!("{name} is not below /usr here"));
                continue;
            }
            assert_eq!(said.trim(), "42", "{name}: {ending:?}");
        }
    });
}

#[test]
fn a_program_that_is_not_there_is_a_boot_error_that_names_it() {
    both_ways("jail::works::a_program_that_is_not_there_is_a_boot_error_that_names_it", |bench| async move {
        let mut spec = bench.spec("");
        spec.program = vec!["/no/such/program".to_owned()];
        let error = bench.jail.boot(spec).await.expect_err("there is nothing to run").to_string();
        assert!(error.contains("/no/such/program") && error.contains("No such file"), "{error}");
    });
}

#[test]
fn a_disk_keeps_its_files_from_one_jail_to_the_next() {
    both_ways("jail::works::a_disk_keeps_its_files_from_one_jail_to_the_next", |bench| async move {
        bench.say("echo kept > /work/f; echo home > ~/f; echo gone > /tmp/f").await;
        assert_eq!(bench.say("cat /work/f ~/f; ls /tmp").await, "kept\nhome");
    });
}

#[test]
fn a_terminal_can_be_opened_inside() {
    both_ways("jail::works::a_terminal_can_be_opened_inside", |bench| async move {
        assert_eq!(bench.say("command -v script >/dev/null || { echo tty; exit; }; script -qec 'test -t 0 && echo tty' /dev/null </dev/null | tr -d '\\r'").await, "tty");
    });
}

#[test]
fn where_namespaces_are_refused_the_error_says_what_to_do() {
    both_ways("jail::works::where_namespaces_are_refused_the_error_says_what_to_do", |bench| async move {
        // A filter as containers have it, on a thread of its own: what the thread starts inherits it.
        let refused = std::thread::spawn(move || {
            let rules = [(libc::SYS_unshare, Vec::new())].into_iter().collect();
            let refuse = seccompiler::SeccompAction::Errno(libc::EPERM.unsigned_abs());
            let arch = std::env::consts::ARCH.try_into().expect("a known architecture");
            let filter = seccompiler::SeccompFilter::new(rules, seccompiler::SeccompAction::Allow, refuse, arch);
            let program: seccompiler::BpfProgram = filter.expect("a filter").try_into().expect("a program");
            seccompiler::apply_filter(&program).expect("applied");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(bench.jail.boot(bench.spec("exit 0")))
        });
        let error = refused.join().expect("no panic").expect_err("it must be refused");
        let BootError::Forbidden { message, hint } = &error else { panic!("{error:?}") };
        assert!(message.contains("Operation not permitted") && hint.contains("start symphony as root"), "{error}");
    });
}

#[test]
fn a_root_without_the_right_to_mount_is_told_so() {
    both_ways("jail::works::a_root_without_the_right_to_mount_is_told_so", |bench| async move {
        if !is_root() {
            skip_unless_again("an ordinary user needs no such right");
            return;
        }
        let refused = std::thread::spawn(move || {
            // Of this thread alone, and of what it starts.
            let mount = rustix::thread::CapabilitySet::SYS_ADMIN;
            rustix::thread::remove_capability_from_bounding_set(mount).expect("dropped");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(bench.jail.boot(bench.spec("exit 0")))
        });
        let error = refused.join().expect("no panic").expect_err("it must be refused").to_string();
        assert!(error.contains("SYS_ADMIN"), "{error}");
    });
}

#[test]
fn a_toolchain_listed_as_readable_builds_and_runs_a_program() {
    both_ways("jail::works::a_toolchain_listed_as_readable_builds_and_runs_a_program", |bench| async move {
        let sysroot = outside("rustc --print sysroot 2>/dev/null");
        if sysroot.is_empty() {
            skip_unless_again("this user has no Rust toolchain");
            return;
        }
        let build = "cd /work && cargo init -q --vcs none --name small . && cargo run -q";
        let mut spec = bench.spec(&format!("exec >&3 2>&3; export PATH={sysroot}/bin:$PATH; {build}"));
        spec.read_only = vec![sysroot.into()];
        spec.memory_mib = 2048;
        assert_eq!(bench.run_spec(spec).await.0.trim(), "Hello, world!");
    });
}

/// Processes that left their group, more than the limit leaves room for git.
#[test]
fn what_an_agent_left_running_is_gone_after_a_clear() {
    both_ways("jail::works::what_an_agent_left_running_is_gone_after_a_clear", |bench| async move {
        let mut spec = bench.spec("");
        spec.program = vec![];
        let (io, mut life) = bench.jail.boot(spec).await.expect("the jail boots").into_parts();
        let (channel, _) = Channel::open(io, "token", SOON).await.expect("the guest program answers");
        let check = |script: &str| {
            let (channel, script) = (channel.clone(), script.to_owned());
            async move {
                let request = CheckRequest {
                    argv: vec!["/bin/sh".into(), "-c".into(), script],
                    env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                    cwd: None,
                    timeout_ms: 20_000,
                    max_output: 4096,
                };
                let (outcome, output) = channel.check(request).await.expect("the check runs");
                (outcome.exit, String::from_utf8_lossy(&output).trim().to_owned())
            }
        };
        let swarm = "for n in $(seq 20); do setsid sleep 600 >/dev/null 2>&1 & done; sleep 1; pgrep -c sleep || ls -d /proc/[0-9]* | wc -l";
        let (exit, before) = check(swarm).await;
        assert_eq!(exit, Exit::Code(0), "{before}");
        assert!(
            before.parse::<u32>().expect("a number") >= 20,
            "the control: they outlive the program that started them"
        );
        channel.clear(SOON).await.expect("cleared");
        let (_, after) = check("ls -d /proc/[0-9]* | wc -l").await;
        assert!(after.parse::<u32>().expect("a number") <= 6, "{after}");
        drop(channel);
        life.stop(SOON).await;
    });
}

/// Regression: an agent could lower the limits of the guest program, and with them its last export.
#[test]
fn the_limits_of_another_process_cannot_be_changed() {
    both_ways("jail::works::the_limits_of_another_process_cannot_be_changed", |bench| async move {
        let attack = "sleep 5 & prlimit --pid $! --nofile=4 2>/dev/null && echo changed || echo refused";
        assert_eq!(outside(attack), "changed", "the control");
        assert_eq!(bench.say(&format!("prlimit --nofile=100 true && {attack}")).await, "refused");
    });
}
