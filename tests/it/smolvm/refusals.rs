//! What a person is told when smolvm cannot be used.

use std::path::PathBuf;

use symphony::sandbox::Sandbox as _;
use symphony::sandbox::smolvm::{Places, Settings, Smolvm};

use super::bench::{Bench, block_on};
use crate::jail::bench::as_user;

async fn refusal(settings: Settings, places: Places) -> String {
    Smolvm::new(settings, places).trial(None).await.expect_err("refused").to_string()
}

#[test]
fn every_reason_is_said_with_what_to_do_and_costs_no_start() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let absent = Settings { bin: Some(PathBuf::from("/no/such/smolvm")), ..bench.settings() };
        let said = refusal(absent, bench.places()).await;
        assert!(said.contains("not installed") && said.contains("smolmachines.com"), "{said}");

        bench.mood("old");
        let said = refusal(bench.settings(), bench.places()).await;
        assert!(said.contains("1.8.2") && said.contains("1.8.3") && said.contains("upgrade"), "{said}");
        bench.mood("");

        let said = refusal(bench.settings(), Places { kvm: "/no/such/kvm".into(), ..bench.places() }).await;
        assert!(said.contains("needs KVM") && said.contains("nested"), "{said}");

        let said = refusal(bench.settings(), Places { guest: "/no/such/guest".into(), ..bench.places() }).await;
        assert!(said.contains("guest program") && said.contains("scripts/build-guest"), "{said}");
        assert!(!bench.log().contains("machine start"), "{}", bench.log());
    });
}

#[test]
fn failures_of_smolvm_itself_become_the_same_sentences_and_leave_no_machine() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        for (mood, words) in [("kvm", "nested"), ("denied", "usermod -aG kvm"), ("usage", "upgrade smolvm")] {
            bench.mood(mood);
            let said = refusal(bench.settings(), bench.places()).await;
            assert!(said.contains(words), "{mood}: {said}");
            bench.mood("");
            assert_eq!(bench.machines(), [], "{mood}");
        }
    });
}

#[test]
fn a_device_that_may_not_be_opened_names_the_group() {
    if rustix::process::geteuid().is_root() {
        // Root may open everything.
        return as_user("smolvm::refusals::a_device_that_may_not_be_opened_names_the_group");
    }
    let Some(bench) = Bench::new() else { return };
    let door = bench.root().join("kvm");
    super::bench::executable(&door, "");
    std::fs::set_permissions(&door, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("closed");
    let said = block_on(refusal(bench.settings(), Places { kvm: door, ..bench.places() }));
    assert!(said.contains("usermod -aG kvm"), "{said}");
}
