//! What the two ends of a connection say to one another: messages to send, and what came of them.

use std::{collections::HashMap, time::Duration};

use crate::dns::resolver::ExchangeId;

/// A message for the server.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Which exchange it belongs to.
    pub(super) exchange: ExchangeId,
    /// The message.
    pub(super) message: Vec<u8>,
    /// Another connection was lost with it.
    pub(super) again: bool,
}

/// What a connection is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Send this.
    Ask(Ask),
    /// Nobody waits for this any more.
    Cancel(ExchangeId),
}

/// Commands that wait for a connection to come up.
pub(super) const WAITING: usize = 128;
/// What a connection may take to come up, with TLS.
pub(super) const CONNECT: Duration = Duration::from_secs(4);
/// The same where there is another address to try.
pub(super) const CONNECT_FIRST: Duration = Duration::from_millis(1200);

/// What was sent and not answered, by the ID it has on this connection.
#[derive(Debug, Default)]
pub(super) struct Unanswered(HashMap<u16, Ask>);

impl Unanswered {
    /// Adds one, and gives it an ID that no other has; returns the message with it.
    pub(super) fn add(&mut self, ask: Ask) -> Vec<u8> {
        let mut message = ask.message.clone();
        let mut id = id_of(&message);
        while self.0.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        set_id(&mut message, id);
        self.0.insert(id, ask);
        message
    }

    /// Takes what an answer belongs to out, and gives the answer the ID that the question had.
    pub(super) fn take(&mut self, answer: &mut [u8]) -> Option<ExchangeId> {
        let ask = self.0.remove(&id_of(answer))?;
        set_id(answer, id_of(&ask.message));
        Some(ask.exchange)
    }

    pub(super) fn cancel(&mut self, exchange: ExchangeId) {
        self.0.retain(|_, ask| ask.exchange != exchange);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_asks(self) -> Vec<Ask> {
        self.0.into_values().collect()
    }
}

/// Returns a message's ID; 0 if it has none.
pub(super) fn id_of(message: &[u8]) -> u16 {
    message.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id))
}

/// Gives a message another ID.
pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(first) = message.first_chunk_mut::<2>() {
        *first = id.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_with_the_same_id_are_told_apart_on_a_connection() {
        let mut unanswered = Unanswered::default();
        let ask = |number| Ask { exchange: ExchangeId(number), message: vec![1, 2, 3], again: false };

        let ids = [1, 2].map(|number| id_of(&unanswered.add(ask(number))));
        let mut second = ids[1].to_be_bytes().to_vec();

        assert_ne!(ids[0], ids[1]);
        assert_eq!(unanswered.take(&mut second), Some(ExchangeId(2)));
        assert_eq!(second, [1, 2], "as it was asked");
        assert_eq!(unanswered.take(&mut second.clone()), Some(ExchangeId(1)));
        assert!(unanswered.is_empty() && unanswered.take(&mut second).is_none());
    }
}
