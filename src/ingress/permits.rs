//! What is under way and may lose its permission: a reload asks each again.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use hyper::Method;

use crate::{
    ingress::{
        Policy,
        canonical::{CanonicalHost, CanonicalPath},
        routes::Route,
    },
    origin::Origin,
};

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
    host: CanonicalHost,
    path: CanonicalPath,
    method: Method,
    route: std::sync::Arc<Route>,
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
    pub(super) fn issue(
        self: &Rc<Self>,
        origin: Origin,
        host: CanonicalHost,
        path: CanonicalPath,
        method: Method,
        route: std::sync::Arc<Route>,
    ) -> Permit {
        let revoked = Cell::new(false);
        let exchange = Rc::new(Exchange { origin, host, path, method, route, revoked, waker: RefCell::default() });
        let mut places = self.places.borrow_mut();
        let place = places.free.pop().unwrap_or_else(|| {
            places.held.push(None);
            places.held.len() - 1
        });
        places.held[place] = Some(exchange.clone());
        Permit { permits: self.clone(), place, exchange }
    }

    /// Ends what the policy no longer permits: the route must still answer this host and path for this origin.
    pub(super) fn review(&self, policy: &Policy) {
        for exchange in self.places.borrow().held.iter().flatten() {
            let site = policy.tables.of(exchange.origin).hosts.site(exchange.host.as_str());
            if !site.is_some_and(|site| site.still_has(&exchange.route, &exchange.path, &exchange.method)) {
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

    pub(super) fn route(&self) -> &std::sync::Arc<Route> {
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
