//! The broker's parts on their own. As a whole it is tested through the program, in `tests/it/model`.

mod credential;
mod door;
mod in_stream;
mod in_vain;
// A release build knows no server but the real ones, and no test asks those.
#[cfg(debug_assertions)]
mod renewal;
mod standing;
