//! What git and friends take on a machine's work disk, against memory in the same machine. No folder is shared with a
//! machine, by design; docs/BENCHMARKS.md says what one would cost.

use std::time::Duration;

use symphony::sandbox::qemu::Qemu;

use super::Bench;
use super::series::{Series, verdict};

const ROUNDS: usize = 5;
/// 2000 files in 40 directories; then each step's nanoseconds, in turn for each place.
const SCRIPT: &str = r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=b GIT_AUTHOR_EMAIL=b@b GIT_COMMITTER_NAME=b GIT_COMMITTER_EMAIL=b@b
for at in /work/repo /tmp/repo; do
    mkdir -p $at && cd $at && git init -q . || exit 1
    d=0; while [ $d -lt 40 ]; do mkdir $d; f=0
        while [ $f -lt 50 ]; do echo "file $f of $d, with a line of text in it" >$d/$f; f=$((f+1)); done
        d=$((d+1)); done
    git add -A && git commit -q -m first || exit 1
done
t() { s=$(date +%s%N); "$@" >/dev/null 2>&1; e=$(date +%s%N); echo "$n $at $((e-s))"; }
r=0; while [ $r -lt ROUNDS ]; do
    for at in /work/repo /tmp/repo; do
        cd $at && echo $r >>1/1
        n=status; t git status
        n=commit; t git commit -q -a -m more
        n=find; t find . -type f
        n=grep; t grep -r nothing .
    done
    r=$((r+1)); done
"#;

pub(super) async fn compare(bench: &mut Bench, restored: &Qemu) {
    let machine = bench.boot(restored).await;
    let said = machine.sh(&SCRIPT.replace("ROUNDS", &ROUNDS.to_string())).await;
    machine.end(restored).await;
    let names = [
        ["git status on the work disk", "git status in memory"],
        ["git commit on the work disk", "git commit in memory"],
        ["find on the work disk", "find in memory"],
        ["grep on the work disk", "grep in memory"],
    ];
    println!();
    Series::head();
    for ([disk, memory], step) in names.into_iter().zip(["status", "commit", "find", "grep"]) {
        let mut both = [Series::new(disk), Series::new(memory)];
        for line in said.lines() {
            let mut words = line.split(' ');
            if words.next() != Some(step) {
                continue;
            }
            let at = usize::from(words.next() == Some("/tmp/repo"));
            let nanos = words.next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
            both[at].add(Duration::from_nanos(nanos));
        }
        both.iter().for_each(Series::row);
        let figure = format!("{:.2} x of memory, p50", both[0].p50() / both[1].p50());
        verdict(&format!("2000 files, {step} on the work disk"), &figure, None);
    }
}
