//! What nobody can foresee: ports and IDs.

/// The system's random source, in larger pieces.
pub(super) struct Random {
    buffer: [u8; 1024],
    used: usize,
}

impl Default for Random {
    fn default() -> Self {
        Self { buffer: [0; 1024], used: 1024 }
    }
}

impl Random {
    pub(super) fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.used == self.buffer.len() {
                getrandom::fill(&mut self.buffer).expect("the kernel has a random source");
                self.used = 0;
            }
            let left = self.buffer.get_mut(self.used..).unwrap_or_default();
            let count = left.len().min(bytes.len());
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&left[..count]);
            // What was given out is not kept.
            left[..count].fill(0);
            self.used += count;
            bytes = later;
        }
    }

    pub(super) fn port(&mut self) -> u16 {
        loop {
            let mut bytes = [0; 2];
            self.fill(&mut bytes);
            let port = u16::from_be_bytes(bytes);
            if port >= 1024 {
                return port;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_spread() {
        let mut random = Random::default();

        let ports: std::collections::BTreeSet<u16> = (0..2000).map(|_| random.port()).collect();

        assert!(ports.len() > 1900 && ports.iter().all(|port| *port >= 1024));
    }
}
