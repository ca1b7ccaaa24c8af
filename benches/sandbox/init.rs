//! The least first process there is: it says one line on the console and waits. `scripts/bench-sandbox` links it
//! statically and boots it to have a time that no first process can beat; it is no module of the program beside it.

use std::io::Write as _;

fn main() {
    // What the kernel opened for it is the console. `/proc` is not mounted, and that would take time.
    let said = std::io::stdout().write_all(b"first line of init\n");
    drop(said);
    loop {
        std::thread::park();
    }
}
