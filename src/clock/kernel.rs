//! Whether the kernel's clock is kept right by somebody: a time server, or a reference clock.
#![allow(unsafe_code, reason = "one call that only reads, into a value of ours")]

use std::mem::MaybeUninit;

/// Says whether the kernel holds its clock to be synchronised (adjtimex(2)).
pub fn is_synchronised() -> bool {
    let mut reading = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all of `timex` are integers, for which zero is a value; with `modes` at zero nothing is set, and the
    // kernel writes no more than the structure.
    let state = unsafe { libc::adjtimex(reading.as_mut_ptr()) };
    state != -1 && state != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_can_be_asked_again_and_again() {
        let first = is_synchronised();

        assert!((0..100).all(|_| is_synchronised() == first));
    }
}
