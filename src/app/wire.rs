//! Hands the planes' handles to one another, and names each of them once for every verb.

use std::{os::fd::BorrowedFd, sync::Arc, thread::JoinHandle};

use crate::{
    audit::Audit,
    clock::Clock,
    config::Compiled,
    dns,
    helper::Helper,
    identity::Identity,
    ingress,
    listen::BindError,
    lookup::Lookup,
    metrics::Metrics,
    onlink::Follower,
    provider::Reach,
    public_dns::PublicDns,
    questions::Questions,
    stream::{self, Inlet},
    supervise::{self, Stop, Watched},
    vpn, wan,
};

/// The plane that only one process can be.
pub(super) const GATE: &str = "vpn";
/// Items that may wait between the gate and another plane.
const INLET: usize = 256;

/// The planes that the configuration names; what it does not name does not exist.
#[derive(Debug)]
pub struct Planes {
    pub(crate) dns: Option<Arc<dns::Plane>>,
    pub(crate) ingress: Option<Arc<ingress::Plane>>,
    pub(crate) vpn: Option<Arc<vpn::Plane>>,
    /// Names that are kept at the address of this box.
    pub(crate) names: Option<Arc<wan::Names>>,
}

/// What the tunnel hands to those who are no planes.
#[derive(Debug)]
pub struct Doors {
    pub(crate) metrics: Option<Inlet>,
    pub(crate) confirm: Option<Inlet>,
}

/// A policy for each plane, ready to be swapped in.
pub struct Prepared {
    dns: Option<dns::Prepared>,
    ingress: Option<ingress::Prepared>,
    vpn: Option<vpn::Prepared>,
    wan: Option<wan::Config>,
}

/// A plane's name, its health and its thread.
pub(super) type Running = (&'static str, Watched, JoinHandle<()>);

impl Planes {
    /// Takes every port; returns besides the planes what the tunnel hands to others.
    pub fn bind(
        config: &Compiled,
        follower: &Follower,
        metrics: &Metrics,
        helper: Option<Helper>,
        audit: &Arc<Audit>,
    ) -> Result<(Self, Doors), BindError> {
        let mut outlets = vpn::Outlets { audit: Some(audit.clone()), ..vpn::Outlets::default() };
        let door = |wanted: bool, outlet: &mut Option<stream::Outlet>| {
            (wanted && config.vpn.is_some()).then(|| {
                let (out, inlet) = stream::inlet(INLET);
                *outlet = Some(out);
                inlet
            })
        };
        let to_dns = door(config.dns.is_some(), &mut outlets.dns);
        let to_ingress = door(config.ingress.is_some(), &mut outlets.ingress);
        let to_metrics = door(config.metrics.is_some(), &mut outlets.metrics);
        let to_confirm = door(true, &mut outlets.confirm);
        let identity = Identity::default();
        let dns = match &config.dns {
            Some(config) => {
                Some(Arc::new(dns::Plane::bind(config, follower.networks(), metrics, to_dns, identity.clone())?))
            }
            None => None,
        };
        let lookup = dns.as_ref().map_or_else(Lookup::system, |dns| dns.lookup());
        let public = dns.as_ref().map_or_else(PublicDns::system, |dns| dns.public());
        let reach = Reach { lookup, public, helper };
        let names =
            config.wan.is_some().then(|| Arc::new(wan::Names::new(reach.clone(), wan::Places::default(), metrics)));
        let questions = dns.as_ref().map_or_else(Questions::unanswered, |dns| dns.questions());
        let ingress = match &config.ingress {
            Some(config) => {
                let networks = follower.networks();
                Some(Arc::new(ingress::Plane::bind(config, networks, metrics, to_ingress, reach, questions)?))
            }
            None => None,
        };
        if let Some(ingress) = &ingress {
            ingress.identify(&identity);
        }
        let vpn = match &config.vpn {
            Some(config) => Some(Arc::new(vpn::Plane::bind(config, follower.networks(), metrics, outlets)?)),
            None => None,
        };
        Ok((Self { dns, ingress, vpn, names }, Doors { metrics: to_metrics, confirm: to_confirm }))
    }

    /// Hands over the clock, before the first policy.
    pub fn set_clock(&self, clock: &Clock) {
        if let Some(plane) = &self.dns {
            plane.set_clock(clock.clone());
        }
        if let Some(plane) = &self.ingress {
            plane.set_clock(clock.clone());
        }
    }

    /// Builds each plane's policy, and changes nothing. The error names the plane.
    pub fn prepare(&self, config: &Compiled) -> Result<Prepared, String> {
        let dns = match (&self.dns, &config.dns) {
            (Some(plane), Some(config)) => {
                Some(plane.prepare(config.clone()).map_err(|error| format!("dns: {error}"))?)
            }
            _ => None,
        };
        let ingress = match (&self.ingress, &config.ingress) {
            (Some(plane), Some(config)) => {
                Some(plane.prepare(config.clone()).map_err(|error| format!("ingress: {error}"))?)
            }
            _ => None,
        };
        let vpn = match (&self.vpn, &config.vpn) {
            (Some(plane), Some(config)) => {
                Some(plane.prepare(config.clone()).map_err(|error| format!("vpn: {error}"))?)
            }
            _ => None,
        };
        Ok(Prepared { dns, ingress, vpn, wan: config.wan.clone() })
    }

    /// Swaps the policies in. The gate comes last: nobody is let in before the others know what it may reach.
    pub fn commit(&self, prepared: Prepared) {
        if let (Some(plane), Some(policy)) = (&self.dns, prepared.dns) {
            plane.commit(policy);
        }
        if let (Some(plane), Some(policy)) = (&self.ingress, prepared.ingress) {
            plane.commit(policy);
        }
        if let Some(names) = &self.names {
            names.configure(prepared.wan);
        }
        if let (Some(plane), Some(policy)) = (&self.vpn, prepared.vpn) {
            plane.commit(policy);
        }
    }

    /// Returns all that the planes of another process must have to go on in these ones' place.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let dns = self.dns.iter().flat_map(|plane| plane.descriptors());
        let ingress = self.ingress.iter().flat_map(|plane| plane.descriptors());
        let vpn = self.vpn.iter().flat_map(|plane| plane.descriptors());
        dns.chain(ingress).chain(vpn).collect()
    }

    /// Starts each plane in a supervised thread. The gate is told apart: two can answer questions and requests at the
    /// same time, but only one can hold sessions.
    pub fn start(&self, stop: &Stop, gate: &Stop) -> std::io::Result<Vec<Running>> {
        let mut running = Vec::new();
        let mut start = |name, run: Option<Box<dyn Fn() -> Result<(), String> + Send>>| -> std::io::Result<()> {
            if let Some(run) = run {
                let told = if name == GATE { gate } else { stop };
                let (watched, thread) = supervise::plane(name, told.clone(), run)?;
                running.push((name, watched, thread));
            }
            Ok(())
        };
        start("dns", work(&self.dns, stop, dns::Plane::run))?;
        start("ingress", work(&self.ingress, stop, ingress::Plane::run))?;
        start(GATE, work(&self.vpn, gate, vpn::Plane::run))?;
        Ok(running)
    }
}

type Work = Box<dyn Fn() -> Result<(), String> + Send>;

fn work<P: Send + Sync + 'static>(
    plane: &Option<Arc<P>>,
    stop: &Stop,
    run: fn(&P, Stop) -> Result<(), String>,
) -> Option<Work> {
    let (plane, stop) = (plane.clone()?, stop.clone());
    Some(Box::new(move || run(&plane, stop.clone())))
}
