//! libFuzzer over the list of targets in `symphony::fuzz`. The environment names the target; the rest is libFuzzer's
//! own command line. Every allocation is counted: an input that takes more memory than its target may is a finding.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

// Its C++ part has `main`.
use libfuzzer_sys as _;
use symphony::fuzz::{TARGETS, Target, named};

struct Counted;

static NOW: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size().cast_signed();
        PEAK.fetch_max(NOW.fetch_add(size, Relaxed) + size, Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size().cast_signed(), Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What panicked during this input.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("SYMPHONY_FUZZ_TARGET").unwrap_or_default();
        named(&name).unwrap_or_else(|| {
            // `scripts/fuzz` asks for the list this way.
            let mut out = std::io::stdout();
            for target in TARGETS {
                let _ = writeln!(out, "{}\t{}\t{}", target.name, target.longest, target.about);
            }
            std::process::exit(if name.is_empty() { 0 } else { 2 })
        })
    })
}

/// libFuzzer calls it once, before anything else.
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerInitialize(_: *const isize, _: *const *const *const u8) -> isize {
    target();
    // A panic that the program itself catches is no news. Which one is not, shows at the end.
    std::panic::set_hook(Box::new(|panic| {
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        panics.truncate(9);
        panics.push(panic.to_string());
    }));
    0
}

#[unsafe(no_mangle)]
fn rust_fuzzer_test_input(input: &[u8]) -> i32 {
    let target = target();
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    if catch_unwind(AssertUnwindSafe(|| target.run(input))).is_err() {
        for panic in &*PANICS.lock().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("{panic}");
        }
        std::process::abort();
    }
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let took = PEAK.load(Relaxed) - before;
    if took > (target.most_mib << 20).cast_signed() {
        eprintln!("{took} bytes of memory for an input of {}", input.len());
        std::process::abort();
    }
    0
}
