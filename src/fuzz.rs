//! What a fuzzer runs: one list of every parser of bytes that somebody else wrote, and what must hold of each.
//!
//! A target takes any bytes, hands them to the parser as the world would, and panics where a promise is broken. It is
//! here for `scripts/fuzz` (feature `fuzzing`) and for the test below, which runs the kept corpus and every past crash;
//! no build of the program has it. A new target is a function beside its parser, a line in [`TARGETS`], and at least
//! one file in `fuzz/corpus/<name>/`.

mod files;
mod words;

use futures::future::BoxFuture;

use crate::{agent, airlock, gateway, operator, sandbox, web};

/// One parser under test.
pub struct Target {
    /// Names it, and the directories of its inputs.
    pub name: &'static str,
    /// Whose bytes it reads, for a person.
    pub about: &'static str,
    /// Longest input that is worth trying, in bytes.
    pub longest: usize,
    /// Most memory that one input may take at once, in MiB.
    pub most_mib: usize,
    check: Check,
}

#[derive(Clone, Copy)]
enum Check {
    Now(fn(&[u8])),
    /// On a clock that jumps to the next timer when nothing else is left to do: no input waits for real.
    Soon(for<'a> fn(&'a [u8]) -> BoxFuture<'a, ()>),
    /// With programs and files, and the time that they take.
    World(for<'a> fn(&'a [u8]) -> BoxFuture<'a, ()>),
}

use Check::{Now, Soon, World};

const fn target(name: &'static str, about: &'static str, longest: usize, most_mib: usize, check: Check) -> Target {
    Target { name, about, longest, most_mib, check }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("issue", "an issue file, and one made anew from what it says", 4096, 32, Now(files::issue)),
    target("yaml", "front matter as a tree", 4096, 64, Now(files::yaml)),
    target("workflow", "WORKFLOW.md", 4096, 64, Now(files::workflow)),
    target("prompt", "a Liquid prompt, and an issue to fill it with", 2048, 64, Now(files::prompt)),
    target("frames", "headers and frames of a channel", 4096, 8, Soon(|b| Box::pin(words::frames(b)))),
    target("messages", "every JSON message of a channel", 2048, 8, Now(words::messages)),
    target("usage", "what a model's answer says that it used", 4096, 8, Now(words::usage)),
    target("channel", "the multiplexer under a channel", 4096, 64, Soon(|b| Box::pin(sandbox::channel::fuzz::raw(b)))),
    target(
        "answers",
        "a guest's answers to each request",
        4096,
        64,
        Soon(|b| Box::pin(sandbox::channel::fuzz::answers(b))),
    ),
    target("ready", "a machine's first words", 4096, 8, Soon(|b| Box::pin(sandbox::qemu::fuzz::ready(b)))),
    target("monitor", "an emulator's monitor", 4096, 16, Soon(|b| Box::pin(sandbox::qemu::fuzz::monitor(b)))),
    target("acp", "an agent's lines", 4096, 32, Soon(|b| Box::pin(agent::fuzz::lines(b)))),
    target("mcp", "a tool call's body", 4096, 32, Soon(|b| Box::pin(gateway::fuzz::body(b)))),
    target("mcp_http", "any bytes at the tools' door", 4096, 32, Soon(|b| Box::pin(gateway::fuzz::raw(b)))),
    target("egress_http", "any bytes at the way out", 4096, 32, World(|b| Box::pin(gateway::egress::fuzz::door(b)))),
    target("egress_hello", "the first bytes to a server", 4096, 8, Now(gateway::egress::fuzz::hello)),
    target("bundle_header", "what a bundle says of itself", 4096, 8, Now(airlock::fuzz::header)),
    target(
        "bundle",
        "a bundle of a guest's objects, under real git",
        4096,
        16,
        World(|b| Box::pin(airlock::fuzz::bundle(b))),
    ),
    target("http", "any bytes at the dashboard's door", 4096, 32, Soon(|b| Box::pin(web::fuzz::raw(b)))),
    target("forms", "forms and JSON of the operator", 4096, 32, Soon(|b| Box::pin(web::fuzz::body(b)))),
    target("page", "the dashboard over hostile words", 4096, 32, Soon(|b| Box::pin(web::fuzz::page(b)))),
    target("markdown", "Markdown of strangers as HTML", 4096, 32, Now(web::fuzz::markdown)),
    target("operator", "a line at the operator's socket", 2048, 16, Now(operator::fuzz::line)),
];

/// The target of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Runs one input.
    ///
    /// # Panics
    /// When a promise is broken.
    pub fn run(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.longest)];
        match self.check {
            Now(check) => check(bytes),
            Soon(check) => runtime(true).block_on(check(bytes)),
            World(check) => runtime(false).block_on(check(bytes)),
        }
    }
}

fn runtime(paused: bool) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build();
    runtime.expect("a runtime")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::{Path, PathBuf};

    use super::TARGETS;

    fn entries(dir: &Path) -> Vec<PathBuf> {
        let Ok(listed) = std::fs::read_dir(dir) else { return vec![] };
        let mut all: Vec<PathBuf> = listed.map(|entry| entry.expect("entry").path()).collect();
        all.sort();
        all
    }

    fn kept(kind: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
    }

    #[test]
    fn the_corpus_and_every_past_crash_pass() {
        let mut broken = vec![];
        for target in TARGETS {
            let corpus = entries(&kept("corpus").join(target.name));
            assert!(!corpus.is_empty(), "fuzz/corpus/{} is empty", target.name);
            for file in corpus.into_iter().chain(entries(&kept("crashes").join(target.name))) {
                let bytes = std::fs::read(&file).expect("readable");
                if catch_unwind(AssertUnwindSafe(|| target.run(&bytes))).is_err() {
                    broken.push(file.display().to_string());
                }
            }
        }
        assert!(broken.is_empty(), "replay with scripts/fuzz --replay: {broken:#?}");
    }

    #[test]
    fn a_target_keeps_few_inputs_beside_those_written_by_hand() {
        const MOST: usize = 40;
        for dir in entries(&kept("corpus")) {
            let by_hand =
                |file: &PathBuf| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"));
            let found = entries(&dir).iter().filter(|file| !by_hand(file)).count();
            assert!(found <= MOST, "{} has {found} inputs, at most {MOST}: scripts/fuzz leaves so many", dir.display());
        }
        let script = std::fs::read_to_string(kept("../scripts/fuzz")).expect("the script");
        assert!(script.contains(&format!("\nmost_kept={MOST}\n")), "scripts/fuzz keeps another number");
    }

    #[test]
    fn every_directory_of_inputs_belongs_to_a_target_and_each_name_stands_once() {
        let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(names.len(), TARGETS.len());
        for dir in ["corpus", "crashes"].iter().flat_map(|kind| entries(&kept(kind))) {
            let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(names.contains(name.as_str()), "{} belongs to no target", dir.display());
        }
    }
}
