//! The system call filter: a list of calls that ordinary programs make; all else is answered with an
//! error that programs know how to take, never by killing them.
//!
//! Two filters stack. The first allows the known calls and answers ENOSYS to the rest, so that a new
//! kernel's new calls, x32 numbers and `clone3` (whose flags a filter cannot see) look absent. The
//! second refuses arguments: namespaces in `clone`, socket families beyond unix and IP, keystrokes
//! pushed into a terminal. Calls of another architecture kill the process.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::syscalls::{ALLOWED, LEGACY, REFUSED};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts the filter on the calling thread for good; no_new_privs must be set.
pub(super) fn install() -> Result<(), String> {
    for program in programs().map_err(|error| error.to_string())? {
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let allowed = ALLOWED.iter().chain(LEGACY).map(|call| (*call, Vec::new()));
    let mut allowed: Rules = allowed.collect();
    // Address randomisation and other kernels' manners: only "as it is" and "which is it".
    let persona = [0, 0xffff_ffff].map(|value| rule(&[(0, Dword, SeccompCmpOp::Eq, value)]));
    allowed.insert(libc::SYS_personality, persona.into_iter().collect::<Result<_, _>>()?);
    // Known and refused: EPERM reads better than "no such call" for these.
    let refused: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    for call in REFUSED {
        allowed.insert(*call, Vec::new());
    }
    let mut arguments = refused;
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let cloning = namespaces.map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        rule(&[(0, Qword, SeccompCmpOp::MaskedEq(flag), flag)])
    });
    arguments.insert(libc::SYS_clone, cloning.into_iter().collect::<Result<_, _>>()?);
    let typing = [libc::TIOCSTI, libc::TIOCLINUX].map(|command| rule(&[(1, Dword, SeccompCmpOp::Eq, command)]));
    // Limits are one's own affair: an agent that lowered the guest program's would cut off its export.
    arguments.insert(libc::SYS_prlimit64, vec![rule(&[(0, Dword, SeccompCmpOp::Ne, 0)])?]);
    arguments.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    let foreign = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]
        .map(|family| (0, Dword, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    let mut families = Rules::new();
    families.insert(libc::SYS_socket, vec![rule(&foreign)?]);
    families.insert(libc::SYS_socketpair, vec![rule(&foreign)?]);
    let filters = [
        (allowed, errno(libc::ENOSYS), SeccompAction::Allow),
        (arguments, SeccompAction::Allow, errno(libc::EPERM)),
        (families, SeccompAction::Allow, errno(libc::EAFNOSUPPORT)),
    ];
    filters
        .into_iter()
        .map(|(rules, other, listed)| SeccompFilter::new(rules, other, listed, arch)?.try_into())
        .collect()
}

fn rule(
    conditions: &[(u8, seccompiler::SeccompCmpArgLen, SeccompCmpOp, u64)],
) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .iter()
        .map(|(argument, length, operator, value)| {
            SeccompCondition::new(*argument, length.clone(), operator.clone(), *value)
        })
        .collect::<Result<Vec<_>, _>>()?;
    SeccompRule::new(conditions)
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, LEGACY, REFUSED, programs};

    #[test]
    fn the_lists_do_not_contradict_each_other_and_compile() {
        let mut seen = std::collections::BTreeSet::new();
        for call in ALLOWED.iter().chain(LEGACY).chain(REFUSED) {
            assert!(seen.insert(*call), "call {call} stands twice");
        }
        assert!(!seen.contains(&libc::SYS_clone3) && !seen.contains(&libc::SYS_personality));
        let longest = programs().expect("compiles").iter().map(Vec::len).max().unwrap_or(0);
        assert!(longest > 0 && longest < 4096, "the kernel takes 4096 instructions, not {longest}");
    }
}
