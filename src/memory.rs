//! How much memory programs of this host could still take. Read anew each time; never a guess.

use std::fs;
use std::path::Path;

/// In MiB: what the kernel calls available, and no more than is left below the memory limits of the control groups
/// this process is in. `None` when the kernel does not say.
pub fn available_mib() -> Option<u64> {
    let host = available_kib(&fs::read_to_string("/proc/meminfo").ok()?)? / 1024;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = groups(&own).into_iter().filter_map(|(group, version)| left_in(Path::new(&group), version)).min();
    Some(left.map_or(host, |left| host.min(left / (1 << 20))))
}

/// In MiB: all the memory of this host. `None` when the kernel does not say.
pub fn total_mib() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn available_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The directories of our memory group and of those above it, at their usual places.
fn groups(own: &str) -> Vec<(String, Version)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, version) = match controllers {
            "" => ("/sys/fs/cgroup", Version::V2),
            some if some.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", Version::V1),
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            found.push((format!("{base}{path}"), version));
            match path.rfind('/') {
                Some(at) => path = &path[..at],
                None => break,
            }
        }
    }
    found
}

/// Bytes below the limit of one group; `None` without a limit. Cache that can be dropped counts as free.
fn left_in(group: &Path, version: Version) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used) = match version {
        Version::V2 => (number("memory.max")?, number("memory.current")?),
        Version::V1 => (number("memory.limit_in_bytes")?, number("memory.usage_in_bytes")?),
    };
    let stat = read("memory.stat").unwrap_or_default();
    let cache = |wanted: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let droppable = match version {
        Version::V2 => cache("inactive_file").saturating_add(cache("active_file")),
        Version::V1 => cache("total_inactive_file").saturating_add(cache("total_active_file")),
    };
    Some(limit.saturating_sub(used.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_own_estimate_is_taken() {
        let text = "MemTotal:       24619256 kB\nMemFree:          513692 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(available_kib(text), Some(20_480_000));
        assert_eq!(available_kib("MemTotal: 1 kB\n"), None);
        assert!(available_mib().is_some_and(|mib| mib > 0), "on the machine that runs this");
    }

    #[test]
    fn every_group_above_counts_in_either_version() {
        let paths = |own| groups(own).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(paths("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(paths("5:cpu:/x\n4:memory:/x\n"), ["/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory"]);
        assert_eq!(paths("nonsense"), Vec::<String>::new());
    }

    #[test]
    fn a_limit_leaves_what_is_not_used_and_cache_is_not_used() {
        let group = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).expect("written");
        write("memory.current", "700\n");
        write("memory.max", "max\n");
        assert_eq!(left_in(group.path(), Version::V2), None);
        write("memory.max", "1000\n");
        assert_eq!(left_in(group.path(), Version::V2), Some(300));
        write("memory.stat", "anon 5\nfile 600\ninactive_file 200\n");
        assert_eq!(left_in(group.path(), Version::V2), Some(500));
    }

    #[test]
    fn a_group_full_of_cache_in_use_has_memory_left_as_the_kernel_counts_it_for_the_host() {
        let group = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).expect("written");
        write("memory.current", "1000\n");
        write("memory.max", "1000\n");
        write("memory.stat", "anon 100\nactive_file 600\ninactive_file 200\n");
        assert_eq!(left_in(group.path(), Version::V2), Some(800));
    }
}
