//! An agent cannot speak for the guest program, nor stop it, nor read it.

use std::process::{Command, Stdio};

use super::hasty;
use super::reach::found;
use crate::rig::Project;

/// `probe PID` tries to get at a process of the same user by every file and call there is for it.
const PROBE: &str = r#"probe() {
  r=closed; ls -L /proc/$1/fd/ >/dev/null 2>&1 && r=open
  w=closed; for f in /proc/$1/fd/*; do [ -S "$f" ] && w=socket; done
  m=closed; ( exec 4<>/proc/$1/mem ) 2>/dev/null && m=open
  e=closed; cat /proc/$1/environ >/dev/null 2>&1 && e=open
  c=closed; [ -n "$(readlink /proc/$1/cwd 2>/dev/null)" ] && c=open
  s=refused; kill -0 $1 2>/dev/null && s=allowed
  p=refused; perl -e 'exit(syscall($ARGV[1] + 0, 16, $ARGV[0] + 0, 0, 0) == 0 ? 0 : 1)' $1 $([ "$(uname -m)" = aarch64 ] && echo 117 || echo 101) 2>/dev/null && p=allowed
  echo fd=$r sockets=$w mem=$m environ=$e cwd=$c signal=$s ptrace=$p
}
"#;

#[test]
fn the_guest_program_cannot_be_read_signalled_traced_or_spoken_for_by_the_agent() {
    let project = Project::with(&hasty(""));
    // Everything between us and the top: the script agent is one of us, what is above it is the guest's.
    let body = format!(
        r#"```sh
set +e
{PROBE}
above=; for d in /proc/[0-9]*; do
  p=${{d#/proc/}}; tr '\0' ' ' < $d/cmdline 2>/dev/null | grep -q 'script-agent' && continue
  case "$(sed -n 's/^PPid:\t//p' $d/status 2>/dev/null)" in 0|1) above="$above $p" ;; esac
done
sleep 60 & own=$!
{{
  echo own $(probe $own)
  for p in $above; do [ $p = $own ] || [ $p = $$ ] || echo above $(probe $p); done
  kill -STOP $above 2>/dev/null; kill -KILL $above 2>/dev/null; kill -STOP 1 2>/dev/null
  ( echo forged >&3 ) 2>/dev/null && echo fd3 open || echo fd3 absent
  echo descriptors $(ls -l /proc/$$/fd | grep -c socket)
}} > found.txt
kill $own
```"#
    );
    project.issue("Todo", "F-1", &body);
    assert_eq!(project.once(), 0);
    let inside = found(&project, "F-1");
    let own = inside.lines().next().expect("a line");
    for open in ["own fd=open", "environ=open", "cwd=open", "signal=allowed", "ptrace=refused"] {
        assert!(own.contains(open), "the control, a process of the agent's own: {inside}");
    }
    let above: Vec<&str> = inside.lines().filter(|line| line.starts_with("above")).collect();
    let shut = "above fd=closed sockets=closed mem=closed environ=closed cwd=closed signal=refused ptrace=refused";
    assert!(!above.is_empty() && above.iter().all(|line| *line == shut), "{inside}");
    assert!(inside.ends_with("fd3 absent\ndescriptors 0\n"), "{inside}");

    // Without a jail, the agent's user would be that of the guest program, and a look at it this easy.
    let mut victim = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
    let outside = super::host_sh(&project.dir(), &format!("{PROBE}probe {}", victim.id()));
    victim.kill().and_then(|()| victim.wait()).expect("ended");
    assert!(outside.contains("fd=open") && outside.contains("signal=allowed"), "{outside}");
}
