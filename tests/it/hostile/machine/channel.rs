//! A machine that is awake, and in the place of the guest program something else.

use symphony::sandbox::channel::{Channel, ChannelError, Ended};

use super::bench::{Hostile, end};

#[tokio::test]
async fn lies_on_the_channel_of_a_machine_break_the_channel_and_nothing_else() {
    let Some(hostile) = Hostile::new() else { return };
    for (attack, said) in [("noise", ""), ("huge-frame", "4294967295"), ("streams", "streams"), ("flood", "")] {
        let spec = hostile.spec(attack);
        let (io, life) = hostile.boot(spec.clone()).await.expect("it woke").into_parts();
        let error = Channel::open(io, "token", crate::machine::bench::SOON).await.expect_err("no channel");
        assert!(
            matches!(&error, ChannelError::Closed(Ended::Broken(why)) if why.contains(said)),
            "{attack}: {error:?}"
        );
        end(life, &spec).await;
    }
}
