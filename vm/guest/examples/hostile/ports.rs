//! The processor's ports, which only machines of its kind have.

pub(crate) use here::{all_ports, input, output, output_long, output_word};

#[cfg(target_arch = "x86_64")]
mod here {
    pub(crate) fn all_ports() -> bool {
        // SAFETY: changes which instructions this process may use.
        unsafe { libc::syscall(libc::SYS_iopl, 3) == 0 }
    }

    pub(crate) fn input(port: u16) -> u8 {
        let value: u8;
        // SAFETY: only after `all_ports`; memory is not involved.
        unsafe { std::arch::asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack)) };
        value
    }

    pub(crate) fn output(port: u16, value: u8) {
        // SAFETY: as above; what the machine makes of it is the point.
        unsafe { std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nostack)) };
    }

    pub(crate) fn output_word(port: u16, value: u16) {
        // SAFETY: as above.
        unsafe { std::arch::asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack)) };
    }

    pub(crate) fn output_long(port: u16, value: u32) {
        // SAFETY: as above.
        unsafe { std::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod here {
    pub(crate) fn all_ports() -> bool {
        false
    }

    pub(crate) fn input(_: u16) -> u8 {
        0
    }

    pub(crate) fn output(_: u16, _: u8) {}

    pub(crate) fn output_word(_: u16, _: u16) {}

    pub(crate) fn output_long(_: u16, _: u32) {}
}
