//! The behaviours of `smol-symphony` 0.1.0 that apply, on the real binary. `docs/CONFORMANCE.md` says which is which.

mod files;
pub(crate) mod mcp;
mod prompt;
mod reload;
mod scheduling;
