//! Who may use a route, besides where they come from: a password of the owner's list, or the word of another server.
//! Whatever goes wrong on the way closes the route.

mod basic;
mod forward;

use std::{net::IpAddr, rc::Rc};

pub(super) use basic::Passwords;
pub use basic::{Basic, PasswordHash};
pub(super) use forward::Warden;
pub use forward::{Forward, Preset};
use hyper::header::HeaderValue;

use crate::{
    ingress::{
        Change, Policy,
        proxy::{Admitted, Asked, Visitor},
        serve::Answer,
        server::Core,
    },
    limit::Client,
};

/// How a route knows who somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By a name and a password.
    Basic(Basic),
    /// Another server says.
    Forward(Forward),
}

/// The same, with what it needs at work.
#[derive(Debug)]
pub(super) enum Guard {
    Basic(Basic),
    Forward(Box<Warden>),
}

/// What somebody who may come in brings along.
#[derive(Default)]
pub(super) struct Granted {
    /// What the server behind is told of them, with what the route changes anyway.
    pub(super) request: Option<Change>,
    /// Cookies of the server that let them in, for every answer.
    pub(super) cookies: Vec<HeaderValue>,
}

/// Asks who somebody is; an answer where they may not come in.
pub(super) async fn check(
    core: &Rc<Core>,
    policy: &Policy,
    visitor: &Visitor,
    (admitted, guard): (&Admitted, &Guard),
    asked: &Asked<'_>,
) -> Result<Granted, Answer> {
    let route = &admitted.route;
    match guard {
        Guard::Basic(basic) => {
            let client = (!core.shared.strangers.are_masked()).then(|| Client::of(admitted.client));
            let request = basic::check(&core.shared.passwords, client, &route.name, basic, asked.headers).await?;
            Ok(Granted { request: Some(together(&route.rules.request, request)), cookies: Vec::new() })
        }
        Guard::Forward(warden) => {
            let client: IpAddr = admitted.client;
            let (request, cookies) = forward::check(core, policy, visitor, client, route, warden, asked).await?;
            Ok(Granted { request: Some(together(&route.rules.request, request)), cookies })
        }
    }
}

/// What the route says and what is known of who came; of two words on one field that of who came holds.
fn together(route: &Change, known: Change) -> Change {
    let mut all = route.clone();
    all.set.retain(|(name, _)| !known.replaces(name.as_str()));
    all.add.retain(|(name, _)| !known.replaces(name.as_str()));
    all.remove.extend(known.remove);
    all.set.extend(known.set);
    all.add.extend(known.add);
    all
}
