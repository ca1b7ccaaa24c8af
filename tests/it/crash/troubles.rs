//! Troubles that are no kill: a full disk, a clock that jumps, a machine that sleeps.
