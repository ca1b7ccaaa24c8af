//! The smolvm runtime: over a stand-in that really runs the guest program, and, as far as this machine lets it come, over
//! the real command line, which also pins the stand-in.

mod bench;
mod issues;
mod lab;
mod machines;
mod real;
mod refusals;
mod variables;
