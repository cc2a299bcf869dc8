//! Groups whose questions go to servers of their own.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Config, Upstream, filter, policy::Error, query::Way, upstream::Resolver};

/// Sets of servers that groups may have for themselves: each has a resolver with a cache of its own.
pub const MOST_WAYS: usize = 16;

/// The ways of the groups, and whoever is asked by each that is not everybody's.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// By [`filter::GroupId::index`].
    of_groups: Vec<Way>,
    /// From the way 1 on.
    own: Vec<Own>,
}

#[derive(Debug)]
struct Own {
    servers: Vec<Upstream>,
    resolver: ArcSwap<Resolver>,
}

impl Ways {
    /// Makes what the groups of a configuration want. What was made before for the same servers is kept.
    pub(crate) fn build(
        config: &Config,
        filter: &filter::Policy,
        before: Option<(&Self, &Config)>,
    ) -> Result<Self, Error> {
        let mut ways = Self { of_groups: vec![Way::HOUSE; filter.group_count()], own: Vec::new() };
        for group in config.groups.iter().filter(|group| !group.upstreams.is_empty()) {
            let known = ways.own.iter().position(|own| own.servers == group.upstreams);
            let place = match known {
                Some(place) => place,
                None => {
                    let resolver = match before.and_then(|(before, own)| before.find(&group.upstreams, own, config)) {
                        Some(resolver) => resolver,
                        None => Resolver::of_group(config, &group.upstreams)?.into(),
                    };
                    ways.own.push(Own { servers: group.upstreams.clone(), resolver: resolver.into() });
                    ways.own.len() - 1
                }
            };
            let way = u8::try_from(place + 1).ok().filter(|way| usize::from(*way) <= MOST_WAYS).map_or(Way::HOUSE, Way);
            // Who comes through a router is in the default group unless there is one for it.
            let inherits = group.name == "default" && !config.groups.iter().any(|other| other.name == "router");
            let router = inherits.then_some(filter::GroupId::ROUTER);
            for id in filter.group_named(&group.name).into_iter().chain(router) {
                if let Some(of_group) = ways.of_groups.get_mut(id.index()) {
                    *of_group = way;
                }
            }
        }
        Ok(ways)
    }

    /// Finds who is asked by these servers already.
    fn find(&self, servers: &[Upstream], own: &Config, wanted: &Config) -> Option<Arc<Resolver>> {
        let found = self.own.iter().find(|one| one.servers == servers)?.resolver.load_full();
        found.serves(own, wanted).then_some(found)
    }

    /// Returns the way of a group.
    #[inline]
    pub(crate) fn of(&self, group: filter::GroupId) -> Way {
        self.of_groups.get(group.index()).copied().unwrap_or_default()
    }

    /// Returns who is asked by a way; everybody's resolver has none here.
    pub(crate) fn resolver(&self, way: Way) -> Option<Arc<Resolver>> {
        let place = usize::from(way.0).checked_sub(1)?;
        self.own.get(place).map(|own| own.resolver.load_full())
    }

    /// Says whether each way leads to whom it leads in another policy.
    pub(crate) fn lead_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Own, &Own)| Arc::ptr_eq(&one.resolver.load(), &other.resolver.load());
        self.own.len() == other.own.len() && self.own.iter().zip(&other.own).all(same)
    }

    /// Makes everybody who is asked anew.
    pub(crate) fn renew(&self, config: &Config) -> Result<(), Error> {
        for own in &self.own {
            own.resolver.store(Resolver::of_group(config, &own.servers)?.into());
        }
        Ok(())
    }
}
