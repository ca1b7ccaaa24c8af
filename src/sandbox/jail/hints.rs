//! What a person can do when the machine refuses a jail. Settings are read only for this advice;
//! whether a jail works is decided by a real trial.

use std::fs;

use super::wire::Failure;
use crate::sandbox::BootError;

/// Steps that only fail because a namespace, or the rights in it, are not to be had.
const NAMESPACE_STEPS: [&str; 6] = [
    "made its namespaces",
    "mapped its user",
    "made its mounts private",
    "mounted its root",
    "mounted /proc",
    "raised its loopback",
];

/// The error for a failed step, with advice where the machine is the cause.
pub(super) fn explain(failure: Failure) -> BootError {
    let refusal = [libc::EPERM, libc::EACCES, libc::ENOSPC, libc::EUSERS, libc::ENOSYS, libc::EINVAL];
    let refused = failure.errno.is_some_and(|errno| refusal.contains(&errno));
    let namespaces = NAMESPACE_STEPS.contains(&failure.stage.as_str()) || failure.stage.starts_with("made /usr");
    if !(refused && namespaces) {
        return BootError::Stage { stage: failure.stage, message: failure.message };
    }
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut steps = Vec::new();
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        steps.push("as root run `sysctl kernel.unprivileged_userns_clone=1`");
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        steps.push(
            "as root run `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, \
             or give symphony an AppArmor profile with `userns,`",
        );
    }
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        steps.push("as root run `sysctl user.max_user_namespaces=15000`");
    }
    if rustix::process::geteuid().is_root() && failure.stage.starts_with("made /usr") {
        steps.push(
            "this root may not mount: give its container `--cap-add SYS_ADMIN`, or start symphony as an ordinary user",
        );
    }
    if steps.is_empty() {
        steps.push(
            "user namespaces look enabled, so a container's rules refuse them: start the container with \
             `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`",
        );
    }
    steps.push("or start symphony as root");
    BootError::Forbidden { message: format!("it {}: {}", failure.stage, failure.message), hint: steps.join("; ") }
}
