//! Names to addresses, as a handle: whoever needs an upstream's address asks the house's own resolver
//! without knowing the plane that holds it.

use std::{future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

/// How long a name may take.
pub const DEADLINE: Duration = Duration::from_secs(5);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Looks names up.
#[derive(Clone)]
pub struct Lookup(Arc<dyn Fn(String) -> Answer + Send + Sync>);

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

impl Lookup {
    /// Asks with this function, which gets a host name without the last dot.
    pub fn new<F>(ask: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(ask(name))))
    }

    /// Asks the system's resolver: what an ingress without a DNS plane does.
    pub fn system() -> Self {
        Self::new(|name| async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    /// Returns the addresses of a name, or an error after [`DEADLINE`]; never an empty list.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = match tokio::time::timeout(DEADLINE, (self.0)(name.to_owned())).await {
            Ok(found) => found?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("\"{name}\" has no address")));
        }
        Ok(found)
    }
}
