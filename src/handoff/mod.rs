//! What a finished issue leaves.

pub mod patch;
