//! Certificates of the house's DNS server, as a handle: whoever keeps certificates offers them, whoever speaks
//! TLS without HTTP shows them, and neither knows the other.

use std::sync::{Arc, OnceLock};

use rustls::sign::CertifiedKey;

type Find = Box<dyn Fn(Option<&str>) -> Option<Arc<CertifiedKey>> + Send + Sync>;

/// What the DNS server shows its clients.
#[derive(Clone, Default)]
pub struct Identity(Arc<OnceLock<Find>>);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// Offers certificates with this function, which gets the name that a client wants to see, if it said one. The
    /// first offer holds for the life of the process.
    pub fn offer(&self, find: impl Fn(Option<&str>) -> Option<Arc<CertifiedKey>> + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(find));
    }

    /// Returns the certificate of a name. Who says none, or one that has none, gets the server's own.
    pub fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        (self.0.get()?)(name)
    }
}
