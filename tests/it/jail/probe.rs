//! The probe: this test program, run inside a jail and outside, trying system calls and saying what
//! the kernel answered. It is a test so that the test harness can start it by name.

use std::io::Error;

/// Each attempt and the error number it got; 0 is success. Arguments are such that a kernel without a
/// filter answers anything but EPERM to an ordinary user, wherever that is possible.
fn attempts() -> Vec<(&'static str, i32)> {
    let call = |number: i64, arguments: [u64; 5]| {
        let [a, b, c, d, e] = arguments;
        // SAFETY: every pointer argument used here is null or refers to nothing; the kernel checks it.
        let result = unsafe { libc::syscall(number, a, b, c, d, e) };
        if result >= 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap_or(-1) }
    };
    let none = u64::MAX;
    let own = u64::from(std::process::id());
    let new_user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    // SAFETY: without the filter this forks; the child leaves at once.
    let cloned = unsafe { libc::syscall(libc::SYS_clone, new_user | 17, 0, 0, 0, 0) };
    if cloned == 0 {
        // SAFETY: the forked child touches nothing else.
        unsafe { libc::_exit(0) };
    }
    let cloned = if cloned > 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap_or(-1) };
    let family = |family: i32| {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(family, if family == libc::AF_ALG { 5 } else { libc::SOCK_RAW }, 0) };
        if fd >= 0 { 0 } else { Error::last_os_error().raw_os_error().unwrap_or(-1) }
    };
    vec![
        ("clone_newuser", cloned),
        ("clone3", call(libc::SYS_clone3, [0, 0, 0, 0, 0])),
        ("setns", call(libc::SYS_setns, [none, 0, 0, 0, 0])),
        ("mount", call(libc::SYS_mount, [1, 1, 1, 0, 0])),
        ("umount", call(libc::SYS_umount2, [1, 0, 0, 0, 0])),
        ("open_tree", call(libc::SYS_open_tree, [none, 1, 0, 0, 0])),
        ("fsopen", call(libc::SYS_fsopen, [0, 0, 0, 0, 0])),
        ("chroot", call(libc::SYS_chroot, [1, 0, 0, 0, 0])),
        ("process_vm_readv", call(libc::SYS_process_vm_readv, [own, 0, 0, 0, 0])),
        ("pidfd_getfd", call(libc::SYS_pidfd_getfd, [none, 0, 0, 0, 0])),
        ("bpf", call(libc::SYS_bpf, [9999, 0, 0, 0, 0])),
        ("perf_event_open", call(libc::SYS_perf_event_open, [0, 0, 0, 0, 0])),
        ("keyctl", call(libc::SYS_keyctl, [0, 0xffff_fffd, 0, 0, 0])),
        ("add_key", call(libc::SYS_add_key, [0, 0, 0, 0, 0])),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0])),
        ("name_to_handle_at", call(libc::SYS_name_to_handle_at, [none, 0, 0, 0, 0])),
        ("open_by_handle_at", call(libc::SYS_open_by_handle_at, [none, 0, 0, 0, 0])),
        ("userfaultfd", call(libc::SYS_userfaultfd, [u64::MAX, 0, 0, 0, 0])),
        ("personality", call(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0])),
        ("tiocsti", call(libc::SYS_ioctl, [none, libc::TIOCSTI, 0, 0, 0])),
        ("tiocsti_high_bits", call(libc::SYS_ioctl, [none, libc::TIOCSTI | 1 << 32, 0, 0, 0])),
        ("unknown_call", call(9999, [0, 0, 0, 0, 0])),
        ("netlink", family(libc::AF_NETLINK)),
        ("packet", family(libc::AF_PACKET)),
        ("alg", family(libc::AF_ALG)),
        ("vsock", family(libc::AF_VSOCK)),
        ("ptrace", call(libc::SYS_ptrace, [0, 0, 0, 0, 0])),
        // Last: where it is allowed, it changes this process.
        ("unshare", call(libc::SYS_unshare, [u64::from(libc::CLONE_NEWNS.unsigned_abs()) | new_user, 0, 0, 0, 0])),
    ]
}

/// Says each answer on its own line when somebody asks for them through the environment.
#[test]
fn system_calls_are_answered() {
    if std::env::var_os("SYMPHONY_PROBE").is_none() {
        return;
    }
    // A new user namespace needs a process with one thread, which a test does not have.
    // SAFETY: the child only makes system calls, formats and prints; nobody holds the allocator's lock
    // for long, and this program runs one test.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let lines: String = attempts().iter().map(|(name, errno)| format!("probe {name} {errno}\n")).collect();
        let _ = std::io::Write::write_all(&mut std::io::stdout(), lines.as_bytes());
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: waits for the child just made; a null status is allowed.
    let waited = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!(waited, child);
}
