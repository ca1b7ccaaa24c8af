//! A machine that will not end, or ends when nobody asked.

use std::time::Duration;

use symphony::sandbox::channel::{Channel, ChannelError};

use super::bench::{Hostile, end, name};
use crate::jail::bench::gone;

#[tokio::test]
async fn a_machine_that_ignores_its_channel_s_end_is_killed_and_one_that_heeds_it_is_not() {
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("deaf");
    let (io, life) = hostile.boot(spec.clone()).await.expect("it woke").into_parts();
    let error = Channel::open(io, "token", Duration::from_secs(1)).await.expect_err("it does not answer");
    assert!(matches!(error, ChannelError::Timeout { what: "hello", .. }), "{error:?}");
    let ending = end(life, &spec).await;
    assert!(ending.killed && ending.code.is_none(), "{ending:?}");
    // The control: nobody kills what ends by itself.
    let spec = hostile.spec("ends-in-order");
    let guest = hostile.boot(spec).await.expect("it woke");
    let ending = guest.stop(Duration::from_secs(30)).await;
    assert_eq!((ending.code, ending.killed), (Some(0), false), "{ending:?}");
}

#[tokio::test]
async fn a_machine_that_restarts_or_halts_at_once_has_ended_and_does_not_come_back() {
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("restart");
    let error = hostile.boot(spec.clone()).await.expect_err("it is gone").to_string();
    assert!(error.contains("it ended before it was ready"), "{error}");
    // The control: it did run, and once.
    assert_eq!(error.matches("hostile: restart").count(), 1, "{error}");
    assert!(gone(&name(&spec)).await);
    // One that halts is no longer there, whether its emulator ends with it or not.
    let mut spec = hostile.spec("halt");
    spec.deadline = Duration::from_secs(8);
    hostile.boot(spec.clone()).await.expect_err("it is gone");
    assert!(gone(&name(&spec)).await);
}
