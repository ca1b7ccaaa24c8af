//! Looks for words where they must not be: in files, and in the memory of processes, as root of the host can read it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};

const CHUNK: usize = 1024 * 1024;

/// How often each word was found in what was read.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) found: Vec<usize>,
    pub(crate) bytes: u64,
    /// The programs whose memory it was.
    pub(crate) programs: Vec<PathBuf>,
}

/// Every file below `dir` that holds `word`.
pub(crate) fn files_with(dir: &Path, word: &str) -> Vec<String> {
    let (mut found, mut dirs) = (vec![], vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else if path.is_file() && holds(&path, word) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn holds(path: &Path, word: &str) -> bool {
    let mut looked = Looked { found: vec![0], ..Looked::default() };
    let Ok(file) = File::open(path) else { return false };
    let mut at = 0;
    // Only what is written: the disk of a machine is a terabyte of nothing.
    while let Ok(start) = seek(&file, SeekFrom::Data(at))
        && let Ok(end) = seek(&file, SeekFrom::Hole(start))
    {
        scan(&file, start, end, &[word], &mut looked);
        at = end;
    }
    looked.found[0] > 0
}

/// All memory that these processes can read themselves.
pub(crate) fn memory(pids: &[i32], words: &[&str]) -> Looked {
    let mut looked = Looked { found: vec![0; words.len()], ..Looked::default() };
    for process in pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))) {
        let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
        // One that ended meanwhile has no memory.
        let Ok(memory) = File::open(process.join("mem")) else { continue };
        let before = looked.bytes;
        for line in maps.lines() {
            let mut fields = line.split(' ');
            let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
            let bound = |text: &str| u64::from_str_radix(text, 16).expect("an address");
            if let Some((start, end)) = range.split_once('-').filter(|_| rights.starts_with('r')) {
                scan(&memory, bound(start), bound(end), words, &mut looked);
            }
        }
        if looked.bytes > before {
            looked.programs.extend(std::fs::read_link(process.join("exe")));
        }
    }
    looked
}

/// Reads from `at` to `end`, or as far as can be read, in pieces that overlap by less than the shortest word.
fn scan(file: &File, mut at: u64, end: u64, words: &[&str], looked: &mut Looked) {
    let longest = words.iter().map(|word| word.len()).max().unwrap_or(1);
    let mut buffer = vec![0; CHUNK + longest];
    // The last bytes of the piece before stand in front of the next.
    let mut kept = 0;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let Ok(n @ 1..) = file.read_at(&mut buffer[kept..kept + most], at) else { return };
        let text = &buffer[..kept + n];
        for (word, found) in words.iter().zip(&mut looked.found) {
            // What ends within the kept part was counted with the piece before.
            *found += times(&text[(kept + 1).saturating_sub(word.len())..], word.as_bytes());
        }
        looked.bytes += n as u64;
        at += n as u64;
        let keep = (longest - 1).min(kept + n);
        buffer.copy_within(kept + n - keep..kept + n, 0);
        kept = keep;
    }
}

/// With the C library's search: in a debug build one in Rust takes a minute for a machine's memory.
fn times(mut text: &[u8], word: &[u8]) -> usize {
    let mut times = 0;
    loop {
        // SAFETY: both are valid for their lengths, and nothing keeps them.
        let hit = unsafe { libc::memmem(text.as_ptr().cast(), text.len(), word.as_ptr().cast(), word.len()) };
        if hit.is_null() || word.is_empty() {
            return times;
        }
        times += 1;
        text = &text[hit as usize - text.as_ptr() as usize + 1..];
    }
}

/// Every process below `root`, and below those.
pub(crate) fn below(root: i32) -> Vec<i32> {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Its name stands in parentheses, and may hold any.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    let is_below = |pid: i32| {
        // Processes come and go while they are read.
        let line = std::iter::successors(Some(pid), |at| parents.get(at).copied()).take(64);
        line.skip(1).any(|parent| parent == root)
    };
    parents.keys().copied().filter(|pid| is_below(*pid)).collect()
}

#[test]
fn a_word_is_found_once_in_memory_and_in_files_wherever_it_lies() {
    let place = tempfile::tempdir().expect("a directory");
    for at in [0, CHUNK - 3, CHUNK, 2 * CHUNK - 1] {
        let mut text = vec![b'.'; 3 * CHUNK];
        text[at..at + 9].copy_from_slice(b"a-needle.");
        std::fs::write(place.path().join("hay"), text).expect("written");
        let mut looked = Looked { found: vec![0, 0], ..Looked::default() };
        scan(&File::open(place.path().join("hay")).expect("there"), 0, u64::MAX, &["a-needle", "no"], &mut looked);
        assert_eq!((looked.found, looked.bytes), (vec![1, 0], 3 * CHUNK as u64), "at {at}");
        File::options()
            .append(true)
            .open(place.path().join("hay"))
            .and_then(|hay| hay.set_len(1 << 40))
            .expect("grown");
        assert_eq!((files_with(place.path(), "a-needle").len(), files_with(place.path(), "a-pin")), (1, vec![]));
    }
    let child = std::process::Command::new("sleep").arg("60").env("PLANTED", "in-its-environment").spawn();
    let mut child = child.expect("sleep");
    let pid = i32::try_from(child.id()).expect("a pid");
    assert!(below(i32::try_from(std::process::id()).expect("a pid")).contains(&pid));
    let mut looked = Looked::default();
    crate::rig::until("its environment", || {
        looked = memory(&[pid], &["in-its-environment", "in-no-environment"]);
        looked.found[0] == 1
    });
    child.kill().and_then(|()| child.wait()).expect("ended");
    assert!(looked.found == [1, 0] && looked.programs.len() == 1, "{looked:?}");
}
