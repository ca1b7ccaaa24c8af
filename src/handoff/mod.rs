//! What a finished issue leaves. Each part is safe to write again after a crash.

pub mod patch;
