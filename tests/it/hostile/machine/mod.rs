//! A machine whose first process means harm, and an emulator that a guest has taken over. Under emulation only what
//! concerns channel and devices is tried: what an agent in a machine does is no other than in a jail.

mod bench;
mod channel;
mod devices;
mod disks;
mod emulator;
mod ends;
mod first_words;
mod floods;
mod search;
