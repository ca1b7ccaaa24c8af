//! An emulator that its guest has taken over.
