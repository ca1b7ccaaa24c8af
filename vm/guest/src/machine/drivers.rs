//! Kernel modules: the image lists them in the order they need each other.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::During;

/// One module's file name a line.
pub(super) const ORDER: &str = "/modules/order";

/// Loads every module of the list. One that is there already is fine.
pub(super) fn load() -> io::Result<()> {
    let order = fs::read_to_string(ORDER).during("read the list of drivers")?;
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let step = format!("loaded the driver {name}");
        let module = File::open(Path::new("/modules").join(name)).during(&step)?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err::<(), _>(error).during(&step),
        }
    }
    Ok(())
}
