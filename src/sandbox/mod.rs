//! Sandboxes: what isolates a run, and the channel into it.

pub mod channel;
