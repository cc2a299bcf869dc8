//! How much of what a route passes on at once is of one client.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::limit::Client;

type Counts = HashMap<(Arc<str>, Client), u32>;

/// The counts, of clients alone that have something open: connections and flows are bounded, and with them these.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<Counts>>);

/// One that is counted.
#[derive(Debug)]
pub(super) struct Held {
    crowd: Crowd,
    key: (Arc<str>, Client),
}

impl Crowd {
    /// Counts one more; `None` if it is one too many.
    pub(super) fn admit(&self, route: &Arc<str>, client: Client, most: u32) -> Option<Held> {
        let key = (route.clone(), client);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Held { crowd: self.clone(), key })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_take_the_others_share_and_who_is_gone_takes_no_room() {
        let crowd = Crowd::default();
        let (one, two) = (Client::of([192, 0, 2, 1].into()), Client::of([192, 0, 2, 2].into()));
        let (ssh, dns): (Arc<str>, Arc<str>) = ("tcp 22".into(), "udp 53".into());

        let held: Vec<_> = (0..9).filter_map(|_| crowd.admit(&ssh, one, 3)).collect();

        assert_eq!(held.len(), 3);
        assert!(crowd.admit(&ssh, two, 3).is_some() && crowd.admit(&dns, one, 3).is_some());
        drop(held);
        assert!(crowd.admit(&ssh, one, 3).is_some());
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
