//! DNS messages that come by another plane's protocol, as a handle: whoever reads them out of HTTP asks without
//! knowing the plane that answers.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc};

use crate::origin::Origin;

/// The longest message that is taken: a query with all its options is far shorter.
pub const LONGEST: usize = 4096;

/// A message and who sent it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where it came from; never derived again.
    pub origin: Origin,
    /// The client's address.
    pub client: IpAddr,
    /// What the device calls itself.
    pub device: Option<Arc<str>>,
    /// The message.
    pub message: Vec<u8>,
}

/// What is said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The message.
    pub message: Vec<u8>,
    /// Seconds that it may be kept for: the least of its TTLs.
    pub ttl: u32,
}

/// Why nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It is no query.
    Unreadable,
    /// The client asks too much.
    Limited,
    /// Nobody answers at the moment.
    Away,
}

type Answer = Pin<Box<dyn Future<Output = Result<Answered, Unanswered>> + Send>>;

/// Answers DNS messages.
#[derive(Clone)]
pub struct Questions(Arc<dyn Fn(Asked) -> Answer + Send + Sync>);

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Questions")
    }
}

impl Questions {
    /// Answers with this function.
    pub fn new<F>(answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Answered, Unanswered>> + Send + 'static,
    {
        Self(Arc::new(move |asked| Box::pin(answer(asked))))
    }

    /// Answers nothing: there is no DNS plane.
    pub fn unanswered() -> Self {
        Self::new(|_| async { Err(Unanswered::Away) })
    }

    /// Asks.
    pub async fn answer(&self, asked: Asked) -> Result<Answered, Unanswered> {
        (self.0)(asked).await
    }
}
