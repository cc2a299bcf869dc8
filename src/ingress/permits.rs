//! What is under way and may lose its permission: a reload asks each again.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use hyper::Method;

use crate::{
    ingress::{
        Policy,
        canonical::{CanonicalHost, CanonicalPath},
        ports::{Entrance, Transport},
        proxy::Visitor,
        routes::Route,
        upstream::Whose,
    },
    limit::Client,
    origin::Origin,
};

/// Says whether a policy permits what another one did: the route must still answer this host and path for this
/// visitor, and ask the same of them.
pub(super) fn permits(
    policy: &Policy,
    (origin, shown): (Origin, &Shown),
    (host, path, method): (&CanonicalHost, &CanonicalPath, &Method),
    route: &Route,
) -> bool {
    let hosts = &policy.tables.of(origin).hosts;
    let site = match shown {
        Shown::Plain => hosts.site(host.as_str()),
        Shown::Tls(_) => hosts.own(host.as_str()),
    };
    site.is_some_and(|site| {
        let same = match shown {
            Shown::Plain => true,
            Shown::Tls(realm) => site.is_of(realm.as_ref()),
        };
        same && site.still_has(route, path, method)
    })
}

/// What a visitor has shown of themselves.
pub(super) enum Shown {
    /// Nothing can be shown.
    Plain,
    /// The realm of the certificate, if one had to be shown.
    Tls(Option<Arc<str>>),
}

impl Shown {
    pub(super) fn by(visitor: &Visitor) -> Self {
        match visitor.scheme {
            "https" => Self::Tls(visitor.realm.clone()),
            _ => Self::Plain,
        }
    }
}

/// What is asked for.
pub(super) enum Subject {
    /// An answer to a request.
    Request { shown: Shown, host: CanonicalHost, path: CanonicalPath, method: Method },
    /// To be passed through to whoever has this name.
    Name(Option<Box<str>>),
    /// To be passed on by a port.
    Port(Transport, Entrance),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request { host, path, .. } => write!(f, "{host}{path}"),
            Self::Name(name) => f.write_str(name.as_deref().unwrap_or("-")),
            Self::Port(transport, Entrance::Kernel(place)) => write!(f, "{} {}", transport.name(), place.address),
            Self::Port(transport, Entrance::Inner(port)) => write!(f, "{} {port} in the tunnel", transport.name()),
        }
    }
}

impl Subject {
    fn is_permitted(&self, policy: &Policy, origin: Origin, route: &Route) -> bool {
        match self {
            Self::Request { shown, host, path, method } => {
                permits(policy, (origin, shown), (host, path, method), route)
            }
            Self::Name(name) => {
                let passed = policy.tables.of(origin).hosts.passed(name.as_deref());
                passed.is_some_and(|passed| passed.admits_as(route))
            }
            Self::Port(transport, entrance) => {
                let entry = policy.ports.at(*transport, entrance);
                entry.is_some_and(|entry| entry.admits(origin) && entry.route.admits_as(route))
            }
        }
    }
}

/// The exchanges of one core.
#[derive(Default)]
pub(super) struct Permits {
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    held: Vec<Option<Rc<Exchange>>>,
    free: Vec<usize>,
}

struct Exchange {
    origin: Origin,
    whose: Whose,
    subject: Subject,
    route: Arc<Route>,
    revoked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The right to go on with one exchange.
pub(super) struct Permit {
    permits: Rc<Permits>,
    place: usize,
    exchange: Rc<Exchange>,
}

impl Permits {
    /// What was asked before must hold by the policy in force: nobody waits between that and this.
    pub(super) fn issue(
        self: &Rc<Self>,
        (visitor, client): (&Visitor, IpAddr),
        host: CanonicalHost,
        path: CanonicalPath,
        method: Method,
        route: Arc<Route>,
    ) -> Permit {
        let subject = Subject::Request { shown: Shown::by(visitor), host, path, method };
        self.hold((visitor.origin, client), subject, route)
    }

    /// The same for what nothing is understood of.
    pub(super) fn issue_relayed(
        self: &Rc<Self>,
        (origin, client): (Origin, IpAddr),
        subject: Subject,
        route: Arc<Route>,
    ) -> Permit {
        self.hold((origin, client), subject, route)
    }

    fn hold(self: &Rc<Self>, (origin, client): (Origin, IpAddr), subject: Subject, route: Arc<Route>) -> Permit {
        let (revoked, waker) = (Cell::new(false), RefCell::default());
        let whose = match origin {
            Origin::Wan => Whose::Stranger(Client::of(client)),
            Origin::Lan(_) | Origin::Vpn(_) => Whose::House,
        };
        let exchange = Rc::new(Exchange { origin, whose, subject, route, revoked, waker });
        let mut places = self.places.borrow_mut();
        let place = places.free.pop().unwrap_or_else(|| {
            places.held.push(None);
            places.held.len() - 1
        });
        places.held[place] = Some(exchange.clone());
        Permit { permits: self.clone(), place, exchange }
    }

    /// Ends what the policy no longer permits.
    pub(super) fn review(&self, policy: &Policy) {
        for exchange in self.places.borrow().held.iter().flatten() {
            if !exchange.subject.is_permitted(policy, exchange.origin, &exchange.route) {
                exchange.revoked.set(true);
                if let Some(waker) = exchange.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

impl Permit {
    /// Is ready when the permission is lost.
    pub(super) fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.exchange.revoked.get() {
            return Poll::Ready(());
        }
        let mut waker = self.exchange.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Returns whose share it is part of where there is not room for all.
    pub(super) fn whose(&self) -> Whose {
        self.exchange.whose
    }

    pub(super) fn route(&self) -> &Arc<Route> {
        &self.exchange.route
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut places = self.permits.places.borrow_mut();
        places.held[self.place] = None;
        places.free.push(self.place);
    }
}
