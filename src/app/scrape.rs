//! `/metrics`: on its kernel listeners and inside the tunnel.
//!
//! Who may not read has the connection closed without a byte. Who may read sees the series of routes and
//! peers that it may reach; the others are summed under the label value `vpn`.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener},
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, Metric, MetricFamily, MetricType},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::{
    config::{self, Compiled},
    listen::{self, BindError, Wanted},
    metrics::Metrics,
    origin::{NetworkId, Networks, Origin},
    stream::{Accepted, Inlet, Stream},
    supervise::{self, Phase, Stop, task},
    vpn::Reach,
};

/// A whole exchange.
const EXCHANGE: Duration = Duration::from_secs(10);
/// Readers at the same time.
const READERS: usize = 16;
/// Pages a second in all, and at once: putting one together looks at every series there is.
const PAGES: Quota = Quota::per_second(NonZeroU32::new(10).unwrap()).allow_burst(NonZeroU32::new(50).unwrap());

/// The listeners, the readers and what they may see.
#[derive(Debug)]
pub struct Scrape {
    listeners: Vec<StdListener>,
    addresses: Vec<SocketAddr>,
    inlet: Mutex<Option<mpsc::Receiver<Accepted>>>,
    networks: Arc<ArcSwap<Networks>>,
    metrics: Metrics,
    policy: ArcSwap<Policy>,
    pages: DefaultDirectRateLimiter,
}

/// What comes out of the tunnel, given back when a run ends: the next one goes on with it.
struct Lent {
    inlet: Option<mpsc::Receiver<Accepted>>,
    scrape: Arc<Scrape>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.scrape.inlet.lock().expect("nothing panics while it holds the lock") = self.inlet.take();
    }
}

/// Who may read, and what is whose.
#[derive(Debug, Default)]
struct Policy {
    allow: Vec<IpNet>,
    config: Option<Arc<Compiled>>,
}

impl Scrape {
    /// Takes the ports.
    pub fn bind(
        config: Option<&config::Scrape>,
        networks: Arc<ArcSwap<Networks>>,
        metrics: Metrics,
        inlet: Option<Inlet>,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for place in config.iter().flat_map(|config| &config.listen) {
            let device = place.device.as_deref();
            let wanted = Wanted { address: place.address, device, shards: 1, key: "metrics.listen" };
            listeners.extend(listen::tcp(&wanted)?);
        }
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let inlet = Mutex::new(inlet.map(|inlet| inlet.streams));
        let policy = ArcSwap::default();
        Ok(Self { listeners, addresses, inlet, networks, metrics, policy, pages: RateLimiter::direct(PAGES) })
    }

    /// Returns where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns all that another process must have to be read in this one's place.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd)
    }

    /// Takes over who may read what from a configuration.
    pub fn commit(&self, config: &Arc<Compiled>) {
        let allow = config.metrics.as_ref().map(|metrics| metrics.allow.clone()).unwrap_or_default();
        self.policy.store(Arc::new(Policy { allow, config: Some(config.clone()) }));
    }

    /// Says whether there is anything to answer on.
    pub fn is_needed(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Answers until the process stops; may be called again after it fell over.
    pub async fn run(self: Arc<Self>, stop: Stop) -> Result<(), String> {
        let readers = Arc::new(Semaphore::new(READERS));
        let mut doors = JoinSet::new();
        for listener in &self.listeners {
            let listener = listener.try_clone().and_then(TcpListener::from_std).map_err(|error| error.to_string())?;
            doors.spawn(self.clone().accept(listener, readers.clone(), stop.clone()));
        }
        doors.spawn(self.clone().accept_inner(readers, stop));
        while let Some(end) = doors.join_next().await {
            end.map_err(|end| match end.try_into_panic() {
                Ok(panic) => supervise::panic_text(panic.as_ref()),
                Err(end) => end.to_string(),
            })?;
        }
        Ok(())
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, readers: Arc<Semaphore>, stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.reached(Phase::Drain) => return,
            };
            match accepted {
                Ok((stream, client)) => {
                    let origin = self.networks.load().classify(client.ip(), None).origin;
                    self.handle(Stream::Kernel(stream), origin, client, &readers);
                }
                Err(error) => {
                    tracing::warn!(%error, "metrics listener");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept_inner(self: Arc<Self>, readers: Arc<Semaphore>, stop: Stop) {
        let mut lent = Lent { inlet: self.take(), scrape: self.clone() };
        let Some(inlet) = &mut lent.inlet else { return };
        loop {
            let accepted = tokio::select! {
                accepted = inlet.recv() => accepted,
                () = stop.reached(Phase::Drain) => return,
            };
            let Some(accepted) = accepted else { return };
            self.handle(accepted.stream, accepted.origin, accepted.client, &readers);
        }
    }

    fn take(&self) -> Option<mpsc::Receiver<Accepted>> {
        self.inlet.lock().expect("nothing panics while it holds the lock").take()
    }

    fn handle(self: &Arc<Self>, stream: Stream, origin: Origin, client: SocketAddr, readers: &Arc<Semaphore>) {
        if !self.policy.load().admits(origin, client) {
            return;
        }
        let Ok(permit) = readers.clone().try_acquire_owned() else { return };
        let scrape = self.clone();
        task("metrics reader", async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = scrape.answer(&request, origin);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(EXCHANGE).keep_alive(false).max_buf_size(16 * 1024);
            let _ = tokio::time::timeout(EXCHANGE, server.serve_connection(TokioIo::new(stream), service)).await;
        });
    }

    fn answer(&self, request: &Request<Incoming>, origin: Origin) -> Response<Full<Bytes>> {
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") if self.pages.check().is_err() => {
                (StatusCode::TOO_MANY_REQUESTS, "ask less often\n".into())
            }
            (&Method::GET, "/metrics") => (StatusCode::OK, self.text(origin)),
            _ => (StatusCode::NOT_FOUND, "only GET /metrics is here\n".into()),
        };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = status;
        let text = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        response
    }

    /// Returns all series as a reader of this origin may see them.
    fn text(&self, origin: Origin) -> String {
        let visible = self.policy.load().visible(origin);
        let families = self.metrics.gather().into_iter().map(|family| visible.only(family)).collect::<Vec<_>>();
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

impl Policy {
    fn admits(&self, origin: Origin, client: SocketAddr) -> bool {
        let inner = self.config.iter().filter_map(|config| config.vpn.as_ref()).flat_map(|vpn| &vpn.addresses);
        let named = |address: IpAddr| self.allow.iter().any(|net| net.contains(&address));
        match origin {
            // Who has "this box" in the list means it by whatever address it speaks.
            Origin::Lan(NetworkId::HOST) if named(Ipv4Addr::LOCALHOST.into()) => true,
            Origin::Vpn(_) => named(client.ip()),
            // An inner address that does not come out of the tunnel is not a peer's.
            _ if inner.into_iter().any(|net| net.contains(&client.ip())) => false,
            _ => named(client.ip().to_canonical()),
        }
    }

    fn visible(&self, origin: Origin) -> Visible {
        let mut visible = Visible::default();
        let Some(config) = &self.config else { return visible };
        let routes = config.ingress.iter().flat_map(|ingress| &ingress.routes);
        visible.routes.extend(routes.filter(|route| route.access.admits(origin)).map(|route| route.name.clone()));
        let ports = config.ingress.iter().flat_map(|ingress| &ingress.ports);
        visible.routes.extend(ports.filter(|port| port.access.admits(origin)).map(|port| port.name.clone()));
        let peers = config.vpn.as_ref().map_or(&[][..], |vpn| &vpn.peers);
        if let Origin::Vpn(reader) = origin
            && let Some(reader) = peers.iter().find(|peer| peer.id == reader)
        {
            let reached = peers.iter().filter(|peer| reader.may_reach.contains(&Reach::Peer(peer.id)));
            visible.peers.extend(reached.chain([reader]).map(|peer| peer.name.clone()));
        }
        visible
    }
}

/// Label values that no owner gave.
const OURS: [&str; 3] = ["", "none", "unknown"];

/// The names that a reader may see; every other is `vpn`.
#[derive(Debug, Default)]
struct Visible {
    routes: HashSet<String>,
    peers: HashSet<String>,
}

impl Visible {
    fn only(&self, mut family: MetricFamily) -> MetricFamily {
        let named = family.get_metric().iter().flat_map(Metric::get_label);
        if !named.clone().any(|label| matches!(label.name(), "route" | "peer")) {
            return family;
        }
        let kind = family.get_field_type();
        let merge = match family.name() {
            name if name.ends_with("_timestamp_seconds") => f64::max,
            // All of them, or not.
            name if name.ends_with("_up") || name.ends_with("_days") => f64::min,
            _ => |one, two| one + two,
        };
        let mut sums: BTreeMap<Vec<String>, Metric> = BTreeMap::new();
        for mut metric in family.take_metric() {
            for label in metric.mut_label() {
                let known = match label.name() {
                    "route" => self.routes.contains(label.value()),
                    "peer" => self.peers.contains(label.value()),
                    _ => true,
                };
                if !known && !OURS.contains(&label.value()) {
                    label.set_value("vpn".into());
                }
            }
            let key = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
            match sums.get_mut(&key) {
                Some(sum) => add(sum, &metric, kind, merge),
                None => _ = sums.insert(key, metric),
            }
        }
        family.set_metric(sums.into_values().collect());
        family
    }
}

fn add(sum: &mut Metric, other: &Metric, kind: MetricType, merge: fn(f64, f64) -> f64) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(sum.get_counter().get_value() + other.get_counter().get_value());
            sum.set_counter(counter);
        }
        MetricType::GAUGE => {
            let (one, two) = (sum.get_gauge().get_value(), other.get_gauge().get_value());
            let mut gauge = Gauge::default();
            gauge.set_value(merge(one, two));
            sum.set_gauge(gauge);
        }
        MetricType::HISTOGRAM => {
            let (one, two) = (sum.get_histogram(), other.get_histogram());
            let mut histogram = Histogram::default();
            histogram.set_sample_count(one.get_sample_count() + two.get_sample_count());
            histogram.set_sample_sum(one.get_sample_sum() + two.get_sample_sum());
            // Series of one family have the same buckets.
            let buckets = one.get_bucket().iter().zip(two.get_bucket()).map(|(one, two)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(one.upper_bound());
                bucket.set_cumulative_count(one.cumulative_count() + two.cumulative_count());
                bucket
            });
            let buckets = buckets.collect();
            histogram.set_bucket(buckets);
            sum.set_histogram(histogram);
        }
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::PeerId;

    #[test]
    fn series_of_routes_that_the_reader_may_not_reach_are_summed() {
        let metrics = Metrics::new();
        let requests = metrics.plane("ingress").counters("requests_total", "Requests.", &["route", "class"]);
        requests.with_label_values(&["photos.home.example/", "2xx"]).inc_by(5);
        requests.with_label_values(&["proxmox.home.example/", "2xx"]).inc_by(2);
        requests.with_label_values(&["nas.home.example/", "2xx"]).inc_by(3);
        let seconds = metrics.plane("ingress").histograms("request_seconds", "Seconds.", &["route"], &[0.1, 1.0]);
        seconds.with_label_values(&["proxmox.home.example/"]).observe(0.5);
        seconds.with_label_values(&["nas.home.example/"]).observe(0.05);
        let visible = Visible { routes: HashSet::from(["photos.home.example/".into()]), ..Visible::default() };

        let families: Vec<_> = metrics.gather().into_iter().map(|family| visible.only(family)).collect();
        let text = TextEncoder::new().encode_to_string(&families).unwrap();

        assert!(text.contains(r#"requests_total{class="2xx",route="photos.home.example/"} 5"#), "{text}");
        assert!(text.contains(r#"requests_total{class="2xx",route="vpn"} 5"#), "{text}");
        assert!(text.contains(r#"request_seconds_bucket{route="vpn",le="0.1"} 1"#), "{text}");
        assert!(text.contains(r#"request_seconds_count{route="vpn"} 2"#), "{text}");
        assert!(!text.contains("proxmox"), "{text}");
    }

    #[test]
    fn this_box_and_the_tunnel_may_read_unless_others_are_named() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let policy = Policy { allow: nets(&["127.0.0.0/8", "::1/128", "10.77.0.0/24"]), config: None };
        let client: SocketAddr = "192.168.1.9:4000".parse().unwrap();
        let peer: SocketAddr = "10.77.0.2:4000".parse().unwrap();

        assert!(policy.admits(Origin::Lan(NetworkId::HOST), client));
        assert!(policy.admits(Origin::Vpn(PeerId(1)), peer));
        assert!(!policy.admits(Origin::Lan(NetworkId::MAIN), client));
        assert!(!policy.admits(Origin::Wan, client));
        let policy = Policy { allow: nets(&["192.168.1.9/32"]), config: None };
        assert!(policy.admits(Origin::Lan(NetworkId::MAIN), client));
        assert!(!policy.admits(Origin::Lan(NetworkId::HOST), "127.0.0.1:4000".parse().unwrap()));
    }
}
