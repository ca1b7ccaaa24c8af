//! Looks at images, of which a file system that hangs can hold up each for ever. Of each image at most one look is under way,
//! whoever asks meanwhile waits for that one, and nobody waits longer than a look may take from its beginning. What never
//! answers costs one thread, not one a look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use symphony_core::board::Stock;
use symphony_core::runtimes::Kind;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::sandbox::{BootError, Sandbox};

/// A file system that hangs must not hold up looks.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Which look it is: the runtime, the image and the packages that must be in it.
type Asked = (Kind, Option<PathBuf>, Vec<String>);

#[derive(Clone)]
struct Look {
    begun: Instant,
    found: watch::Receiver<Option<Stock>>,
}

impl Look {
    fn goes_on(&self) -> bool {
        // A closed channel: it ended.
        self.found.has_changed().is_ok()
    }
}

/// Those under way. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Looks(Arc<Mutex<BTreeMap<Asked, Look>>>);

impl Looks {
    /// What can be told of one image now.
    pub(super) async fn at(
        &self,
        kind: Kind,
        sandbox: &Arc<dyn Sandbox>,
        image: Option<PathBuf>,
        packages: Vec<String>,
    ) -> Stock {
        let Look { begun, mut found } = self.look(kind, sandbox, image, packages);
        let found = match timeout_at(begun + LOOK_DEADLINE, found.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) => None,
            Err(_) => Some(Stock::Unclear(format!("it did not answer within {} s", LOOK_DEADLINE.as_secs()))),
        };
        found.unwrap_or_else(|| Stock::Unclear("looking at it crashed; this is a bug in symphony".to_owned()))
    }

    fn look(&self, kind: Kind, sandbox: &Arc<dyn Sandbox>, image: Option<PathBuf>, packages: Vec<String>) -> Look {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, look| look.goes_on());
        let begin = || {
            let (tell, found) = watch::channel(None);
            let (sandbox, image, packages) = (sandbox.clone(), image.clone(), packages.clone());
            tokio::spawn(async move {
                let said = match sandbox.has(image, packages).await {
                    Ok(()) => Stock::Complete,
                    Err(BootError::Missing { what, hint }) => Stock::Lacking { what, hint },
                    Err(error) => Stock::Unclear(error.to_string()),
                };
                // Nobody may be waiting any more.
                let _ = tell.send(Some(said));
            });
            Look { begun: Instant::now(), found }
        };
        looks.entry((kind, image.clone(), packages.clone())).or_insert_with(begin).clone()
    }
}
