//! One-time passwords (RFC 6238) as authenticator apps make them: SHA-1, six digits, thirty seconds.

use std::fmt;

use aws_lc_rs::hmac;

/// Seconds of a step.
const STEP: i64 = 30;
const DIGITS: u32 = 1_000_000;
/// Clocks of people's devices may be so many steps off, and typing takes its time.
const AROUND: i64 = 1;
/// RFC 4226 §4 R6: 160 bits are recommended.
const BYTES: usize = 20;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator app and the gate both know.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret([u8; BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl Secret {
    pub(super) fn generate() -> Self {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).expect("the system has a random source");
        Self(bytes)
    }

    /// Returns the text for the file and the one picture that it is shown in: base32 (RFC 4648 §6).
    pub(super) fn reveal(&self) -> String {
        let mut text = String::with_capacity(BYTES * 8 / 5);
        for group in self.0.chunks(5) {
            let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            text.extend((0..8).rev().map(|place| char::from(ALPHABET[(bits >> (place * 5) & 31) as usize])));
        }
        text
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let value = |letter: u8| ALPHABET.iter().position(|one| *one == letter).and_then(|at| u64::try_from(at).ok());
        let mut bytes = Vec::with_capacity(BYTES);
        for group in text.as_bytes().chunks(8).filter(|group| group.len() == 8) {
            let bits = group.iter().try_fold(0_u64, |bits, letter| Some(bits << 5 | value(*letter)?))?;
            bytes.extend(&bits.to_be_bytes()[3..]);
        }
        (text.len() == BYTES * 8 / 5).then(|| bytes.try_into().ok().map(Self))?
    }

    /// Returns what an authenticator app reads.
    pub(super) fn uri(&self, issuer: &str, account: &str) -> String {
        let secret = self.reveal();
        format!("otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period=30")
    }

    /// Returns the step whose password this is, if it is one of about now and later than `used`: each counts once.
    pub(super) fn step_of(&self, password: &str, now: i64, used: i64) -> Option<i64> {
        let present = now.div_euclid(STEP);
        let steps = (present - AROUND..=present + AROUND).filter(|step| *step > used);
        // Every step is compared whole, so that how long it takes tells nothing.
        let is = |step: i64| {
            let wanted = format!("{:06}", self.password(step));
            wanted.len() == password.len()
                && wanted.bytes().zip(password.bytes()).fold(0, |odd, (one, other)| odd | (one ^ other)) == 0
        };
        steps.map(|step| (step, is(step))).fold(None, |found, (step, fits)| if fits { Some(step) } else { found })
    }

    fn password(&self, step: i64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        // RFC 4226 §5.3: the last four bits say where the number stands.
        let bytes = tag.as_ref();
        let at = usize::from(bytes.last().copied().unwrap_or_default() & 0xf);
        let number = bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four));
        (number & 0x7fff_ffff) % DIGITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B, its last six of eight digits.
    #[test]
    fn rfc6238_vectors() {
        let secret = Secret(*b"12345678901234567890");

        for (now, password) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.step_of(password, now, 0), Some(now / 30), "{now}");
            assert_eq!(secret.step_of(password, now, now / 30), None, "each counts once");
            assert_eq!(secret.step_of(password, now + 30, 0), Some(now / 30), "one step late");
            assert_eq!(secret.step_of(password, now + 90, 0), None, "three steps late");
        }
        for wrong in ["", "28708", "2870822", "000000", "２８７０８２"] {
            assert_eq!(secret.step_of(wrong, 59, 0), None, "{wrong}");
        }
    }

    #[test]
    fn secrets_are_written_as_apps_read_them() {
        let secret = Secret(*b"12345678901234567890");

        assert_eq!(secret.reveal(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(Secret::parse(&secret.reveal()), Some(secret.clone()));
        for wrong in ["", "GEZDGNBV", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ1"] {
            assert_eq!(Secret::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            secret.uri("home.example", "laptop"),
            "otpauth://totp/home.example:laptop?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=home.example&algorithm=SHA1&digits=6&period=30"
        );
        assert_ne!(Secret::generate(), Secret::generate());
    }
}
