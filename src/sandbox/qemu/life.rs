//! A booted machine as its host holds it: the jail around its emulator.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::sandbox::{Ending, Life};

/// What the guest's kernel writes when its memory is used up. A guest may write it too; it only adds words.
const OUT_OF_MEMORY: &str = "Out of memory: Killed process";

/// The hold on one machine. Dropping it kills the machine.
#[derive(Debug)]
pub(super) struct Machine(pub(super) Box<dyn Life>);

fn judged(mut ending: Ending) -> Ending {
    ending.out_of_memory |= ending.stderr.contains(OUT_OF_MEMORY);
    ending
}

impl Life for Machine {
    fn wait(&mut self) -> BoxFuture<'_, Ending> {
        self.0.wait().map(judged).boxed()
    }

    fn stop(&mut self, grace: Duration) -> BoxFuture<'_, Ending> {
        self.0.stop(grace).map(judged).boxed()
    }

    fn stderr(&self) -> String {
        self.0.stderr()
    }
}
