//! What a machine says before the channel has it: one line, or it is no machine.

use std::time::Duration;

use symphony::sandbox::{BootError, Sandbox};

use super::bench::{Hostile, end, name};
use crate::jail::bench::gone;

#[tokio::test]
async fn a_first_line_that_is_none_is_an_error_and_no_machine_is_left() {
    let Some(hostile) = Hostile::new() else { return };
    // The control: the same program with the right words is a machine.
    let spec = hostile.spec("ends-in-order");
    let guest = hostile.boot(spec.clone()).await.expect("the right words");
    end(guest.life, &spec).await;
    for (attack, said) in [
        ("too-long", "something else than that it is ready"),
        ("garbage", "something else than that it is ready"),
        ("old-version", "its image speaks version 8, this symphony 1"),
        ("ready-and-gone", "it ended before it was ready"),
    ] {
        let spec = hostile.spec(attack);
        let error = hostile.boot(spec.clone()).await.expect_err(attack).to_string();
        assert!(error.contains(said), "{attack}: {error}");
        assert!(gone(&name(&spec)).await, "{attack}");
    }
}

#[tokio::test]
async fn a_machine_that_says_nothing_is_given_up_at_its_deadline_cold_and_as_a_template() {
    let Some(hostile) = Hostile::new() else { return };
    let (cold, templated) = (hostile.bench.cold(), hostile.bench.templated());
    for (attack, runtime) in [("silent", &cold), ("ready-and-silent", &cold), ("ready-and-silent", &templated)] {
        let mut spec = hostile.spec(attack);
        spec.deadline = Duration::from_secs(6);
        let error = runtime.boot(spec.clone()).await.expect_err("it is no machine");
        assert!(matches!(error, BootError::Deadline(after) if after == spec.deadline), "{attack}: {error}");
        assert!(gone(&name(&spec)).await, "{attack}");
    }
    let kept = std::fs::read_dir(hostile.bench.place.path().join("templates")).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "nothing of it becomes a template");
}

/// Regression: the console's last lines stood in the error as the guest wrote them.
#[tokio::test]
async fn what_a_machine_says_for_an_error_cannot_speak_to_a_terminal() {
    let Some(hostile) = Hostile::new() else { return };
    let error = hostile.boot(hostile.spec("escapes")).await.expect_err("it said that it failed").to_string();
    assert!(error.contains("red") && error.contains("on the console"), "the control, its words are there: {error:?}");
    assert!(!error.contains(char::is_control), "{error:?}");
}
