//! MicroVMs, booted for real. They need an emulator and an image; where one is missing the tests say that they are
//! skipped, unless `SYMPHONY_REQUIRE_VM` is set, as it is in `scripts/test`.

pub(crate) mod bench;
mod death;
mod journey;
mod limits;
mod secrets;
mod templates;
mod works;
