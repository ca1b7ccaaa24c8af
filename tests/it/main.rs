//! Tests of the real binary, in one test program so that linking happens once.

mod jail;
