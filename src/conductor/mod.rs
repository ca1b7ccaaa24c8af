//! The loop that owns the board. It never awaits the outside world.

pub mod handle;
