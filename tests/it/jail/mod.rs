//! The jail, booted for real and attacked from within. Every attack has a control: the same act
//! succeeds where no jail forbids it, so that a test cannot pass because the act was impossible.
//!
//! Started by root, each test runs twice: as root, and again in a child process as an ordinary user.

pub(crate) mod bench;
mod death;
mod disks;
mod files;
mod kernel;
mod limits;
mod probe;
mod works;
