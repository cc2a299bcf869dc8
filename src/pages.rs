//! Requests whose answers another room knows, as a handle: the ingress admits them and reads them out of HTTP without
//! knowing who writes the page.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc, sync::OnceLock};

use bytes::Bytes;
use hyper::{Request, Response};

use crate::origin::Origin;

/// The longest body that is taken: a form.
pub const LONGEST: usize = 32 * 1024;

/// Which pages are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// The console.
    Console,
}

/// A request and who sent it.
#[derive(Debug)]
pub struct Asked {
    /// What it is for.
    pub page: Page,
    /// Where it came from; never derived again.
    pub origin: Origin,
    /// The client's address.
    pub client: IpAddr,
    /// Path and query, fields, and the whole body.
    pub request: Request<Bytes>,
}

type Answer = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
type Answering = Box<dyn Fn(Asked) -> Answer + Send + Sync>;

/// Answers requests for pages; nothing before somebody is there who does.
#[derive(Clone, Default)]
pub struct Pages(Arc<OnceLock<Answering>>);

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pages")
    }
}

impl Pages {
    /// Answers with this function from now on. The first one stays.
    pub fn serve<F>(&self, answer: impl Fn(Asked) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let _ = self.0.set(Box::new(move |asked| Box::pin(answer(asked))));
    }

    /// Answers; nothing if nobody does yet.
    pub async fn answer(&self, asked: Asked) -> Option<Response<Bytes>> {
        Some(self.0.get()?(asked).await)
    }
}
