//! The emulator's command line, as data. Nothing of an issue stands in it, and nothing secret.
//!
//! What a machine does not have is what protects the host: no network device, no shared folder, no display, no USB,
//! no monitor but while a template is made or restored. Its images are read-only, its disk is one file, and its one
//! serial port is the channel.

use super::accel::Accelerator;

/// Where the jail around the emulator shows the image.
pub(super) const IMAGE_DIR: &str = "run/symphony/vm";
/// The channel, as in every jail.
const CHANNEL: u32 = 3;
/// Where [`Ram::Saved`] and [`Ram::Restored`] find their descriptors.
const MONITOR: u32 = 4;
const RAM: u32 = 5;

/// Bytes of every work disk: nominal, and the same for all, since a template has the disk's size in it. How much of it
/// may be written is the limit on files around the emulator.
pub(super) const DISK_BYTES: u64 = 256 * 1024 * 1024 * 1024;

/// Where a machine's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ram {
    /// The emulator's own.
    Plain,
    /// In a file that becomes a template.
    Saved,
    /// A private copy of a template's.
    Restored,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// Absolute path of the emulator.
    pub(super) emulator: String,
    /// How its processor is run.
    pub(super) accelerator: Accelerator,
    /// Virtual processors.
    pub(super) cpus: u32,
    /// MiB.
    pub(super) memory_mib: u64,
    /// Whether the image has a second layer.
    pub(super) agents: bool,
}

impl Machine {
    /// The whole argument vector.
    pub(super) fn argv(&self, ram: Ram) -> Vec<String> {
        let mut argv = vec![self.emulator.clone()];
        let mut add = |option: &str, value: String| argv.extend([format!("-{option}"), value]);
        let backend = if ram == Ram::Plain { "" } else { ",memory-backend=ram" };
        add("M", format!("microvm,acpi=on,rtc=on,pit=off,pic=off,isa-serial=on,x-option-roms=off{backend}"));
        let (accel, cpu, kernel) = match self.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), "host", String::new()),
            // Calibrating a clock against an emulated timer hangs on a busy host: the kernel is told its speed.
            // On a busy host the timer lags, and the kernel would give up its good clock for believing it.
            // What the kernel does against leaking processors is wasted on an emulated one.
            Accelerator::Tcg { tsc_khz } => {
                ("tcg,tb-size=64".to_owned(), "max", format!(" tsc_early_khz={tsc_khz} tsc=reliable mitigations=off"))
            }
        };
        add("accel", accel);
        add("cpu", cpu.to_owned());
        add("smp", self.cpus.to_string());
        add("m", self.memory_mib.to_string());
        if ram != Ram::Plain {
            let share = if ram == Ram::Saved { "on" } else { "off" };
            let size = self.memory_mib;
            add(
                "object",
                format!("memory-backend-file,id=ram,size={size}M,mem-path=/proc/self/fd/{RAM},share={share}"),
            );
            add("chardev", format!("socket,id=monitor,fd={MONITOR}"));
            add("mon", "chardev=monitor,mode=control".to_owned());
        }
        if ram == Ram::Restored {
            add("incoming", "defer".to_owned());
        }
        // A restored machine has its kernel in its memory: reading the files once more costs time and as much memory.
        if ram != Ram::Restored {
            add("kernel", format!("/{IMAGE_DIR}/vmlinux"));
            add("initrd", format!("/{IMAGE_DIR}/initrd.cpio"));
            let quiet = "console=ttyS0 quiet reboot=t panic=-1 lsm=landlock no_timer_check cryptomgr.notests";
            add("append", format!("{quiet}{kernel}"));
        }
        // The error stream is read, and what is beyond its cap dropped.
        add("serial", "file:/dev/stderr".to_owned());
        let layers: &[&str] = if self.agents { &["root", "agents"] } else { &["root"] };
        for name in layers {
            add("drive", format!("id={name},file=/{IMAGE_DIR}/{name}.erofs,format=raw,if=none,readonly=on"));
            add("device", format!("virtio-blk-device,drive={name},serial={name}"));
        }
        let disk = crate::sandbox::jail::IMAGE;
        add("drive", format!("id=work,file={disk},format=raw,if=none,cache=writeback,discard=unmap"));
        add("device", "virtio-blk-device,drive=work,serial=work".to_owned());
        add("device", "virtio-rng-device".to_owned());
        add("chardev", format!("socket,id=channel,fd={CHANNEL}"));
        add("device", "virtio-serial-device,id=ports,max_ports=2".to_owned());
        add("device", "virtserialport,bus=ports.0,chardev=channel,name=symphony.channel".to_owned());
        add("sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned());
        let switches = ["-nodefaults", "-no-user-config", "-no-reboot"];
        argv.extend(switches.map(str::to_owned));
        argv.extend(["-display", "none"].map(str::to_owned));
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Ram};
    use crate::sandbox::qemu::accel::Accelerator;

    fn line(accelerator: Accelerator, ram: Ram) -> String {
        let emulator = "/usr/bin/qemu-system-x86_64".to_owned();
        Machine { emulator, accelerator, cpus: 2, memory_mib: 512, agents: false }.argv(ram).join(" ")
    }

    #[test]
    fn a_machine_has_no_network_no_shared_folder_and_forks_nothing() {
        for accelerator in [Accelerator::Kvm, Accelerator::Tcg { tsc_khz: 2_000_000 }] {
            for ram in [Ram::Plain, Ram::Saved, Ram::Restored] {
                let line = line(accelerator, ram);
                for absent in [
                    "netdev",
                    "-net",
                    "-nic",
                    "virtio-net",
                    "virtfs",
                    "fsdev",
                    "9p",
                    "vhost",
                    "vsock",
                    "usb",
                    "vnc",
                    "exec:",
                ] {
                    assert!(!line.contains(absent), "{absent} in {line}");
                }
                assert!(line.contains("spawn=deny") && line.contains("elevateprivileges=deny"));
                assert!(line.contains("-nodefaults") && line.contains("-no-user-config"));
                assert!(line.contains("root.erofs,format=raw,if=none,readonly=on"));
            }
        }
    }

    #[test]
    fn a_monitor_exists_only_for_templates() {
        let tcg = Accelerator::Tcg { tsc_khz: 2_000_000 };
        assert!(!line(tcg, Ram::Plain).contains("monitor"));
        assert!(line(tcg, Ram::Saved).contains("share=on") && line(tcg, Ram::Restored).contains("share=off"));
    }

    #[test]
    fn guests_under_kvm_keep_their_mitigations() {
        assert!(!line(Accelerator::Kvm, Ram::Plain).contains("mitigations"));
    }
}
