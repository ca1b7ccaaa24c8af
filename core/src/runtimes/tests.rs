//! The decision table: each row is a workflow, what every runtime said, and what came of it.

use super::*;
use crate::workflow::Place;

fn workflow(settings: &str) -> Workflow {
    let text = format!("---\n{settings}\ntracker: {{kind: local}}\nacp: {{adapter: script}}\n---\n");
    let place = Place { dir: "/w".into(), home: None, env: &|_| None };
    Workflow::parse(&text, &place).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

/// `S` smolvm, `K` qemu with KVM, `T` qemu without, `J` jail; `+` passed, `-` failed, `?` untried, `~` running.
/// What is not named is not part of this symphony.
fn trials(said: &str) -> Trials {
    let one = |word: &str| {
        let (kind, why) = match &word[..1] {
            "S" => (Kind::Smolvm, "smolvm is not installed"),
            "K" => (Kind::QemuKvm, "no VM image"),
            "T" => (Kind::QemuTcg, "no VM image"),
            _ => (Kind::Jail, "no user namespaces"),
        };
        let trial = match &word[1..] {
            "+" => Trial::Passed,
            "-" => Trial::Failed { why: why.to_owned(), hint: None },
            "~" => Trial::Running,
            _ => Trial::Untried,
        };
        (kind, trial)
    };
    said.split_whitespace().map(one).collect()
}

fn outcome(settings: &str, said: &str) -> String {
    match choose(&workflow(settings), &trials(said)) {
        Ok(choice) => format!("{}: {}", choice.kind, choice.reason),
        Err(NoChoice::Trying(kind)) => format!("trying {kind}"),
        Err(NoChoice::Nothing(why)) => format!("none: {why}"),
    }
}

const AUTO_IS: &str = "sandbox: {runtime: auto}";
const MICROVM: &str = "sandbox: {minimum: microvm}";
const KEYS: &str = "smolvm: {cpus: 1}";
const QEMU: &str = "sandbox: {runtime: qemu}";
const QEMU_ONLY: &str = "sandbox: {runtime: qemu, minimum: microvm}";
const QEMU_KEYS: &str = "sandbox: {runtime: qemu}\nsmolvm: {cpus: 1}";
const SMOLVM_ONLY: &str = "sandbox: {runtime: smolvm, minimum: microvm}";
const SMOLVM: &str = "sandbox: {runtime: smolvm}";
const JAIL: &str = "sandbox: {runtime: jail}";

#[test]
fn each_workflow_gets_the_strongest_runtime_it_allows_or_the_sentence_that_says_why_not() {
    for (settings, said, want) in [
        (AUTO_IS, "S+ K+ T+ J+", "smolvm: the strongest, and it works here"),
        (AUTO_IS, "S- K+ T+ J+", "qemu-kvm: the strongest that works here: smolvm is not installed"),
        (AUTO_IS, "S- K- T+ J+", "jail: no microVM here: smolvm is not installed; qemu: no VM image"),
        (AUTO_IS, "K- J+", "jail: no microVM here: this symphony has no smolvm; qemu: no VM image"),
        (
            AUTO_IS,
            "S- K- T+ J-",
            "none: nothing works here: smolvm is not installed; qemu: no VM image; jail: no user namespaces",
        ),
        (MICROVM, "S+ K- T+ J+", "smolvm: the strongest, and it works here"),
        (MICROVM, "S- K+ T+ J+", "qemu-kvm: the strongest that works here: smolvm is not installed"),
        (
            MICROVM,
            "S- K- T+ J+",
            "none: sandbox.minimum is microvm, and no microVM works here: smolvm is not installed; qemu: no VM image (hint: remove sandbox.minimum to accept a jail)",
        ),
        (
            KEYS,
            "S- K- T+ J+",
            "none: the workflow has smolvm.* keys, which ask for a microVM, and no microVM works here: smolvm is not installed; qemu: no VM image (hint: remove them to accept a jail)",
        ),
        (KEYS, "S- K+ J+", "qemu-kvm: the strongest that works here: smolvm is not installed"),
        (QEMU, "S+ K+ T+ J+", "qemu-kvm: sandbox.runtime is qemu"),
        (QEMU, "S+ K- T+ J+", "qemu-tcg: sandbox.runtime is qemu, and KVM does not work here: no VM image"),
        (
            QEMU,
            "S+ K- T- J+",
            "none: sandbox.runtime is qemu: no VM image (hint: sandbox.runtime: auto may take a jail, which shares this machine's kernel)",
        ),
        (
            QEMU,
            "J+",
            "none: sandbox.runtime is qemu: this symphony has no qemu (hint: sandbox.runtime: auto may take a jail, which shares this machine's kernel)",
        ),
        (QEMU_ONLY, "K+ T+ J+", "qemu-kvm: sandbox.runtime is qemu"),
        (
            QEMU_ONLY,
            "K- T+ J+",
            "none: sandbox.minimum is microvm, which emulation is not, and KVM does not work here: no VM image (hint: remove sandbox.minimum to accept emulation)",
        ),
        (SMOLVM, "S+ K+ J+", "smolvm: sandbox.runtime is smolvm"),
        (
            SMOLVM,
            "S- K+ J+",
            "none: sandbox.runtime is smolvm: smolvm is not installed (hint: sandbox.runtime: auto may take a jail, which shares this machine's kernel)",
        ),
        (
            QEMU_KEYS,
            "S+ K- T- J+",
            "none: sandbox.runtime is qemu: no VM image (hint: sandbox.runtime: auto takes any microVM that works here)",
        ),
        (
            SMOLVM_ONLY,
            "S- K+ J+",
            "none: sandbox.runtime is smolvm: smolvm is not installed (hint: sandbox.runtime: auto takes any microVM that works here)",
        ),
        (JAIL, "S+ K+ J+", "jail: sandbox.runtime is jail"),
        (JAIL, "S+ K+ J-", "none: sandbox.runtime is jail: no user namespaces"),
    ] {
        assert_eq!(outcome(settings, said), want, "{settings}, {said}");
    }
}

/// Regression: hints stood in several places, and the last one promised what a demand forbids.
#[test]
fn there_is_one_hint_and_what_mends_the_runtime_comes_first_in_it() {
    let failed = |why: &str, hint: &str| Trial::Failed { why: why.into(), hint: Some(hint.into()) };
    let said = |settings: &str| {
        let trials = Trials::from([
            (Kind::Smolvm, failed("smolvm is not installed", "install it")),
            (Kind::QemuKvm, failed("no VM image", "build one")),
            (Kind::QemuTcg, failed("no VM image", "build one")),
            (Kind::Jail, failed("no user namespaces", "allow them")),
        ]);
        match choose(&workflow(settings), &trials) {
            Err(NoChoice::Nothing(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    for (settings, want) in [
        (
            QEMU,
            "sandbox.runtime is qemu: no VM image (hint: build one; or sandbox.runtime: auto may take a jail, which shares this machine's kernel)",
        ),
        (
            MICROVM,
            "sandbox.minimum is microvm, and no microVM works here: smolvm is not installed; qemu: no VM image (hint: install it; or build one; or remove sandbox.minimum to accept a jail)",
        ),
        (JAIL, "sandbox.runtime is jail: no user namespaces (hint: allow them)"),
    ] {
        assert_eq!(said(settings), want);
    }
}

#[test]
fn nothing_weaker_is_taken_while_something_stronger_is_still_being_tried() {
    for (settings, said, want) in [
        (AUTO_IS, "S~ K+ J+", "trying smolvm"),
        (AUTO_IS, "S? K+ J+", "trying smolvm"),
        (AUTO_IS, "S- K~ J+", "trying qemu-kvm"),
        (AUTO_IS, "S+ K~ J~", "smolvm: the strongest, and it works here"),
        (QEMU, "K~ T+", "trying qemu-kvm"),
        (QEMU, "K- T~", "trying qemu-tcg"),
        (JAIL, "S~ K~ J~", "trying jail"),
    ] {
        assert_eq!(outcome(settings, said), want, "{settings}, {said}");
    }
}

#[test]
fn only_what_the_choice_needs_is_tried_and_emulation_only_after_kvm_failed() {
    let wanted = |settings, said| {
        let kinds = untried(&workflow(settings), &trials(said));
        kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
    };
    for (settings, said, want) in [
        (AUTO_IS, "S? K? T? J?", "smolvm qemu-kvm jail"),
        (AUTO_IS, "S- K~ T? J+", ""),
        (MICROVM, "S? K? T? J?", "smolvm qemu-kvm"),
        (KEYS, "S? K? T? J?", "smolvm qemu-kvm"),
        (QEMU, "S? K? T? J?", "qemu-kvm"),
        (QEMU, "S? K~ T? J?", ""),
        (QEMU, "S? K+ T? J?", ""),
        (QEMU, "S? K- T? J?", "qemu-tcg"),
        (SMOLVM, "S? K? T? J?", "smolvm"),
        (JAIL, "S? K? T? J?", "jail"),
        (JAIL, "S? K? T? J+", ""),
    ] {
        assert_eq!(wanted(settings, said), want, "{settings}, {said}");
    }
}

#[test]
fn auto_never_means_emulation_and_a_demand_never_means_the_jail() {
    let marks = ["+", "-", "?", "~"];
    for (s, k, t, j) in (0..256).map(|n| (n % 4, n / 4 % 4, n / 16 % 4, n / 64)) {
        let said = format!("S{} K{} T{} J{}", marks[s], marks[k], marks[t], marks[j]);
        for settings in [AUTO_IS, MICROVM, KEYS, QEMU, QEMU_ONLY, SMOLVM, JAIL] {
            let Ok(choice) = choose(&workflow(settings), &trials(&said)) else { continue };
            assert_eq!(trials(&said)[&choice.kind], Trial::Passed, "{settings}, {said}");
            assert!(choice.kind != Kind::QemuTcg || settings == QEMU, "{settings}, {said}");
            assert!(choice.kind.is_microvm() || [AUTO_IS, JAIL].contains(&settings), "{settings}, {said}");
        }
    }
}

#[test]
fn only_what_would_be_taken_is_worth_another_trial() {
    for (settings, said, want) in [
        (AUTO_IS, "S- K- T? J+", "smolvm qemu-kvm"),
        (AUTO_IS, "S- K+ T? J+", "smolvm"),
        (AUTO_IS, "S+ K- T? J+", ""),
        (AUTO_IS, "S~ K? T? J-", "jail"),
        (QEMU, "S- K- T+ J-", "qemu-kvm"),
        (JAIL, "S- K- T- J+", ""),
    ] {
        let kinds = worth_another_trial(&workflow(settings), &trials(said));
        assert_eq!(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" "), want, "{settings}, {said}");
    }
}
