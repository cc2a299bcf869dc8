//! `[dns]` with its records, forward zones, lists and groups.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use toml::de::DeValue;

use crate::{
    config::{
        file::{AccessWord, Pause, PublicClient, Rule, Table, route::access},
        problems::{About, At, Span, Wrong},
        value::{self, Listen},
    },
    dns::{
        Action, BlockAs, ClientName, Dns64, Fallback, Purpose, Rebind, Testing, Transport, Upstream, UpstreamHost,
        filter::{self, WeekSpan},
        resolver::master,
    },
    ingress::canonical::CanonicalHost,
    neighbours::Mac,
};

/// `[dns]` as written.
pub(crate) struct Dns {
    pub(crate) about: About,
    pub(crate) at: Span,
    /// `None`: the LAN, if there is one, and loopback.
    pub(crate) listen: Option<Vec<At<Listen>>>,
    pub(crate) encrypted: Vec<At<Listen>>,
    pub(crate) doh: Option<Doh>,
    pub(crate) public_clients: Vec<PublicClient>,
    pub(crate) cache_size: usize,
    pub(crate) rrset_cache: usize,
    pub(crate) ttl: std::ops::RangeInclusive<u32>,
    pub(crate) stale: Duration,
    pub(crate) prefetch: bool,
    pub(crate) minimise: bool,
    pub(crate) case_randomisation: bool,
    pub(crate) sha1: bool,
    pub(crate) negative_anchors: Vec<(Name, u64)>,
    pub(crate) rebind_allow: Vec<Name>,
    pub(crate) traces: usize,
    pub(crate) resolve: Resolver,
    pub(crate) fallback: Fallback,
    pub(crate) bootstrap: Vec<SocketAddr>,
    pub(crate) upstream_ca: Option<At<PathBuf>>,
    pub(crate) root_hints: Option<At<PathBuf>>,
    pub(crate) trust_anchors: Option<At<PathBuf>>,
    pub(crate) dns64: Option<Dns64>,
    pub(crate) records: Vec<Record>,
    pub(crate) zones: Vec<At<PathBuf>>,
    pub(crate) hosts: Vec<At<PathBuf>>,
    pub(crate) leases: Vec<At<PathBuf>>,
    pub(crate) forward: Vec<Forward>,
    pub(crate) lists: Vec<List>,
    pub(crate) groups: Vec<Group>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) pauses: Vec<Pause>,
    pub(crate) keep_clients: bool,
    pub(crate) block_reason: bool,
    pub(crate) testing: Option<At<Testing>>,
}

/// `doh` as written.
pub(crate) struct Doh {
    pub(crate) about: About,
    pub(crate) host: At<CanonicalHost>,
    pub(crate) access: Vec<At<AccessWord>>,
}

/// `resolve` and `upstreams`.
pub(crate) enum Resolver {
    Recursive,
    Forward(Vec<At<Upstream>>),
}

/// An entry of `[dns.records]` as written.
pub(crate) struct Record {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) data: Vec<At<RecordData>>,
    pub(crate) ttl: u32,
}

/// What a name of the house has.
pub(crate) enum RecordData {
    Address(IpAddr),
    /// `"::10"`: that suffix under each prefix of the LAN.
    Suffix(Ipv6Addr),
    Cname(String),
    Txt(String),
    /// As a zone file has it; its names may be relative.
    Data(RData),
}

/// `[[dns.forward]]` as written.
pub(crate) struct Forward {
    pub(crate) about: About,
    pub(crate) zone: At<Name>,
    pub(crate) to: Vec<At<Upstream>>,
    pub(crate) fallback: Fallback,
    pub(crate) validate: bool,
}

/// `[[dns.list]]` as written.
pub(crate) struct List {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) source: Option<At<Source>>,
    pub(crate) names: Option<Vec<Name>>,
    pub(crate) action: Action,
    pub(crate) purpose: Purpose,
    pub(crate) block_as: BlockAs,
    pub(crate) refresh: Duration,
    pub(crate) enabled: bool,
}

/// The `source` of a list.
#[derive(Clone)]
pub(crate) enum Source {
    Path(PathBuf),
    Url(hyper::Uri),
}

/// `[[dns.group]]` as written.
pub(crate) struct Group {
    pub(crate) about: About,
    pub(crate) name: At<String>,
    pub(crate) devices: Vec<At<DeviceWord>>,
    /// `None`: those of "default".
    pub(crate) lists: Option<Vec<At<ListWord>>>,
    pub(crate) allow: Vec<Name>,
    pub(crate) block: Vec<Name>,
    pub(crate) upstreams: Vec<At<Upstream>>,
    pub(crate) offline: Vec<WeekSpan>,
    pub(crate) services: Vec<&'static str>,
    pub(crate) safe_search: Vec<&'static str>,
    pub(crate) keep_clients: bool,
    pub(crate) rebind: Rebind,
}

/// A word of `devices`.
#[derive(PartialEq)]
pub(crate) enum DeviceWord {
    Net(IpNet),
    Peer(String),
    Mac(Mac),
    /// The name that a DHCP server knows it by.
    Name(String),
    /// `doh:NAME`
    Client(ClientName),
}

/// A word of `lists`.
pub(crate) struct ListWord {
    pub(crate) name: String,
    /// `+`: besides those of "default".
    pub(crate) besides_default: bool,
    /// When it applies; always, if there are none.
    pub(crate) spans: Vec<WeekSpan>,
}

impl Dns {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let flag = |key, default| table.boolean(key).map_or(default, |flag| flag.value);
        let ttl = |key, default| {
            let longest = u64::from(u32::MAX >> 1); // RFC 2181 §8
            table.number(key, 0..=longest).and_then(|ttl| u32::try_from(ttl.value).ok()).unwrap_or(default)
        };
        let (ttl_min, ttl_max) = (ttl("ttl_min", 0), ttl("ttl_max", 86400));
        if ttl_min > ttl_max {
            let what = format!("\"ttl_min\" {ttl_min} is more than \"ttl_max\" {ttl_max}");
            table.report.error(table.place("ttl_min"), &table.about, what, "write the smaller number in ttl_min");
        }
        let testing = table.table("testing", "dns.testing");
        // What tests may want otherwise than the house.
        let in_tests =
            |key, ordinary| testing.as_ref().and_then(|table| table.boolean(key)).map_or(ordinary, |flag| flag.value);
        let tests_hints = testing.as_ref().and_then(|table| table.string("root_hints"));
        Self {
            about: table.about.clone(),
            at: table.at,
            listen: table.list("listen", value::listen),
            encrypted: table.list("encrypted", value::listen).unwrap_or_default(),
            doh: table.table("doh", "dns.doh").and_then(|table| Doh::read(&table)),
            public_clients: table
                .tables("public_clients", "dns.public_clients")
                .iter()
                .filter_map(PublicClient::read)
                .collect(),
            cache_size: table.parsed("cache_size", cache).map_or(16 << 20, |size| size.value),
            rrset_cache: table.parsed("rrset_cache", cache).map_or(8 << 20, |size| size.value),
            ttl: ttl_min..=ttl_max,
            stale: table.parsed("stale", value::duration).map_or(Duration::from_secs(3 * 86400), |stale| stale.value),
            prefetch: in_tests("prefetch", flag("prefetch", true)),
            minimise: in_tests("minimise", flag("minimise", true)),
            case_randomisation: in_tests("case_randomisation", flag("case_randomisation", true)),
            // Files of tests are older than the rules.
            sha1: flag("sha1", testing.is_some()),
            negative_anchors: table.tables("nta", "dns.nta").iter().filter_map(negative_anchor).collect(),
            rebind_allow: names(table, "rebind_allow"),
            traces: table
                .number("traces", 0..=1000)
                .and_then(|most| usize::try_from(most.value).ok())
                .unwrap_or_default(),
            resolve: resolver(table),
            fallback: fallback(table),
            bootstrap: servers(table, "bootstrap"),
            upstream_ca: table.string("upstream_ca").map(|path| path.map(PathBuf::from)),
            root_hints: tests_hints.or_else(|| table.string("root_hints")).map(|path| path.map(PathBuf::from)),
            trust_anchors: table.string("trust_anchors").map(|path| path.map(PathBuf::from)),
            records: table.named("records").into_iter().map(|(name, data)| Record::read(table, name, data)).collect(),
            dns64: table.parsed("dns64", dns64).map(|prefix| prefix.value),
            zones: paths(table, "zones"),
            hosts: paths(table, "hosts"),
            leases: paths(table, "leases"),
            forward: table.tables("forward", "dns.forward").iter().filter_map(Forward::read).collect(),
            lists: table.tables("list", "dns.list").iter().filter_map(List::read).collect(),
            groups: table.tables("group", "dns.group").iter().filter_map(Group::read).collect(),
            rules: table.tables("rule", "dns.rule").iter().filter_map(Rule::read).collect(),
            pauses: table.tables("pause", "dns.pause").iter().filter_map(Pause::read).collect(),
            keep_clients: flag("keep_clients", true),
            block_reason: flag("block_reason", false),
            testing: testing.map(|table| At { value: switches(&table), at: table.at }),
        }
    }
}

impl Doh {
    fn read(table: &Table<'_>) -> Option<Self> {
        for (key, hint) in [
            ("host", "write the name that clients know the server by, as host = \"dns.home.example\""),
            ("access", "write who may ask over HTTPS, as access = [\"lan\", \"vpn\"]"),
        ] {
            if !table.has(key) {
                table.missing(key, hint);
            }
        }
        let host = table.parsed("host", value::host);
        let access = table.list("access", access);
        for word in access.iter().flatten().filter(|word| word.value == AccessWord::Public) {
            let hint = "write \"lan\", \"vpn\", or a list of them";
            table.report.error(word.at, &table.about, "the DNS server is never open to everybody", hint);
        }
        Some(Self { about: table.about.clone(), host: host?, access: access? })
    }
}

fn names(table: &Table<'_>, key: &'static str) -> Vec<Name> {
    table.list(key, value::name).unwrap_or_default().into_iter().map(|name| name.value).collect()
}

fn dns64(text: &str) -> Result<Dns64, Wrong> {
    text.parse().ok().and_then(Dns64::new).ok_or_else(|| {
        let hint = "write \"64:ff9b::/96\", or your translator's own prefix of 32, 40, 48, 56, 64 or 96 bits";
        Wrong::new(format!("\"{text}\" is no prefix of a translator"), hint)
    })
}

fn paths(table: &Table<'_>, key: &'static str) -> Vec<At<PathBuf>> {
    table.list(key, |text| Ok(PathBuf::from(text))).unwrap_or_default()
}

fn cache(text: &str) -> Result<usize, Wrong> {
    let size = value::size(text)?;
    if size < 1 << 20 {
        return Err(Wrong::new(format!("\"{text}\" is too small for a cache"), "write at least \"1MiB\""));
    }
    Ok(size)
}

fn resolver(table: &Table<'_>) -> Resolver {
    let forward = table.word("resolve", &[("recursive", false), ("forward", true)]);
    let upstreams = table.list("upstreams", upstream).unwrap_or_default();
    match forward {
        Some(forward) if forward.value => {
            if !table.has("upstreams") {
                let hint = "name the servers, as upstreams = [\"tls://9.9.9.9#dns.quad9.net\"]";
                table.report.error(forward.at, &table.about, "resolve = \"forward\" has no upstreams", hint);
            } else if upstreams.is_empty() && !table.report.has_errors() {
                let hint = "name at least one server, as \"tls://9.9.9.9#dns.quad9.net\"";
                table.report.error(table.place("upstreams"), &table.about, "\"upstreams\" is empty", hint);
            }
            Resolver::Forward(upstreams)
        }
        _ => {
            if table.has("upstreams") {
                let hint = "write resolve = \"forward\", or remove the upstreams";
                let what = "\"upstreams\" has no effect when resolve is \"recursive\"";
                table.report.error(table.place("upstreams"), &table.about, what, hint);
            }
            Resolver::Recursive
        }
    }
}

fn fallback(table: &Table<'_>) -> Fallback {
    match table.boolean("fallback") {
        Some(At { value: true, .. }) => Fallback::Recursion,
        _ => Fallback::Nothing,
    }
}

fn servers(table: &Table<'_>, key: &'static str) -> Vec<SocketAddr> {
    table.list(key, server).unwrap_or_default().into_iter().map(|server| server.value).collect()
}

/// Reads `9.9.9.9`, `tls://9.9.9.9#dns.quad9.net`, `https://9.9.9.9/dns-query#dns.quad9.net`,
/// `quic://[2620:fe::fe]:853#dns.quad9.net`, and with a name in the place of the address `tls://dns.quad9.net`.
fn upstream(text: &str) -> Result<Upstream, Wrong> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return server(text).map(Upstream::plain);
    };
    let default_port = match scheme {
        "tls" | "quic" => 853,
        "https" => 443,
        _ => {
            let what = format!("upstream \"{text}\" has the scheme \"{scheme}\"");
            return Err(Wrong::new(
                what,
                "write \"tls://\", \"https://\", \"quic://\", or the address alone for plain DNS",
            ));
        }
    };
    let (rest, certificate) = match rest.split_once('#') {
        Some((rest, name)) => (rest, Some(value::host(name)?.as_str().to_owned())),
        None => (rest, None),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (host, own_name) = upstream_host(authority, default_port).ok_or_else(|| {
        let hint = format!("write the server's address and its name, as \"{scheme}://9.9.9.9#dns.quad9.net\"");
        Wrong::new(format!("upstream \"{text}\" does not begin with an address or a name"), hint)
    })?;
    // Some servers have a certificate for their address; then no name is needed.
    let name = certificate.unwrap_or(own_name);
    let transport = match scheme {
        "https" if path.is_empty() => Transport::Https { name, path: "/dns-query".into() },
        "https" => Transport::Https { name, path: path.to_owned() },
        _ if !path.is_empty() => {
            let what = format!("upstream \"{text}\" has a path");
            return Err(Wrong::new(what, "only \"https://\" has one"));
        }
        "tls" => Transport::Tls { name },
        _ => Transport::Quic { name },
    };
    Ok(Upstream { host, transport })
}

/// Reads an address or a name, perhaps with a port; returns it with the name in its certificate.
fn upstream_host(text: &str, default_port: u16) -> Option<(UpstreamHost, String)> {
    if let Some(address) = address_and_port(text, default_port) {
        return Some((UpstreamHost::Address(address), address.ip().to_string()));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default_port),
    };
    // What is all digits and dots was meant as an address.
    let wanted = host.contains('.') && host.contains(|letter: char| letter.is_ascii_alphabetic());
    let host = value::host(host).ok().filter(|_| wanted)?;
    let name = value::name(host.as_str()).ok()?;
    Some((UpstreamHost::Name { name, port }, host.as_str().to_owned()))
}

fn server(text: &str) -> Result<SocketAddr, Wrong> {
    let wrong = || {
        let hint = "write an address, as \"192.168.1.1\" or \"192.168.1.1:5353\"";
        Wrong::new(format!("\"{text}\" is no server's address"), hint)
    };
    address_and_port(text, 53).ok_or_else(wrong)
}

fn address_and_port(text: &str, default: u16) -> Option<SocketAddr> {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let alone = address.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, default));
    alone.or_else(|| text.parse().ok()).filter(|address| address.port() != 0)
}

impl Record {
    fn read(table: &Table<'_>, name: At<&str>, data: At<&DeValue<'_>>) -> Self {
        let mut table = table.clone();
        table.about = About { section: "dns.records", name: Some(name.value.to_owned()) };
        let mut record =
            Self { about: table.about.clone(), name: name.map(str::to_owned), data: Vec::new(), ttl: 3600 };
        let DeValue::Table(entries) = data.value else {
            record.data = table.list_of(data, record.name.value.as_str(), &record_address);
            return record;
        };
        let entry = table.below("dns.records", data.at, entries);
        record.data = entry.list("addresses", record_address).unwrap_or_default();
        record.data.extend(entry.list("txt", text).unwrap_or_default());
        if let Some(ttl) = entry.number("ttl", 0..=u64::from(u32::MAX >> 1)) {
            record.ttl = u32::try_from(ttl.value).unwrap_or(record.ttl);
        }
        for (key, rtype) in TYPES {
            record.data.extend(entry.list(key, |text| presented(text, key, rtype)).unwrap_or_default());
        }
        if let Some(cname) = entry.string("cname") {
            if !record.data.is_empty() {
                // RFC 2181 §10.1
                let hint = "keep the cname, or the other data";
                entry.report.error(cname.at, &record.about, "a name with a cname can have nothing else", hint);
            }
            record.data = vec![cname.map(RecordData::Cname)];
        }
        if entries.is_empty() || (entries.len() == 1 && entry.has("ttl")) {
            let hint = "write addresses, cname, txt, mx, srv or another type of record";
            entry.report.error(entry.at, &record.about, "the record has no data", hint);
        }
        record
    }
}

fn record_address(text: &str) -> Result<RecordData, Wrong> {
    match text.parse::<IpAddr>() {
        // A suffix is what stands in the lower half; :: and ::1 are addresses of their own.
        Ok(IpAddr::V6(v6)) if u128::from(v6) >> 64 == 0 && u128::from(v6) > 1 => Ok(RecordData::Suffix(v6)),
        Ok(address) => Ok(RecordData::Address(address)),
        Err(_) => {
            let hint = "write an address, a suffix as \"::10\", or { cname = \"…\" }";
            Err(Wrong::new(format!("\"{text}\" is no address"), hint))
        }
    }
}

/// Types of records that are written as in a zone file, by their keys.
const TYPES: [(&str, RecordType); 10] = [
    ("mx", RecordType::MX),
    ("srv", RecordType::SRV),
    ("ptr", RecordType::PTR),
    ("ns", RecordType::NS),
    ("caa", RecordType::CAA),
    ("https", RecordType::HTTPS),
    ("svcb", RecordType::SVCB),
    ("naptr", RecordType::NAPTR),
    ("sshfp", RecordType::SSHFP),
    ("tlsa", RecordType::TLSA),
];

fn presented(text: &str, key: &str, rtype: RecordType) -> Result<RecordData, Wrong> {
    let example = match rtype {
        RecordType::MX => "10 mail",
        RecordType::SRV => "0 5 5060 phone",
        RecordType::CAA => "0 issue \\\"letsencrypt.org\\\"",
        RecordType::HTTPS | RecordType::SVCB => "1 . alpn=h2",
        RecordType::NAPTR => "10 10 \\\"S\\\" \\\"SIP+D2U\\\" \\\"\\\" _sip._udp",
        RecordType::SSHFP => "4 2 <64 hexadecimal digits>",
        RecordType::TLSA => "3 1 1 <64 hexadecimal digits>",
        _ => "nas",
    };
    RData::try_from_str(rtype, text).map(RecordData::Data).map_err(|error| {
        let hint = format!("write it as in a zone file: {key} = [\"{example}\"]");
        Wrong::new(format!("\"{text}\" is no {rtype} record: {error}"), hint)
    })
}

fn text(text: &str) -> Result<RecordData, Wrong> {
    if text.len() > 4096 {
        return Err(Wrong::new("the text is too long for a record", "write at most 4096 bytes"));
    }
    Ok(RecordData::Txt(text.to_owned()))
}

impl Forward {
    fn read(table: &Table<'_>) -> Option<Self> {
        let zone = table.parsed("zone", value::name);
        let to = table.list("to", upstream);
        for key in ["zone", "to"] {
            if !table.has(key) {
                table.missing(key, "write zone = \"168.192.in-addr.arpa\" and to = [\"192.168.1.1\"]");
            }
        }
        if table.list("to", |_| Ok(())).is_some_and(|to| to.is_empty()) {
            table.report.error(table.place("to"), &table.about, "\"to\" is empty", "write at least one address");
        }
        let zone = zone?;
        let about = About { name: Some(zone.value.to_string()), ..table.about.clone() };
        let validate = table.boolean("validate").is_some_and(|validate| validate.value);
        Some(Self { about, zone, to: to?, fallback: fallback(table), validate })
    }
}

impl List {
    fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", "name the list, as name = \"ads\"");
        }
        match (table.has("source"), table.has("names")) {
            (false, false) => table.missing("source", "write a URL or a path, or names = [\"ads.example\"]"),
            (true, true) => {
                let hint = "make two lists of it";
                table.report.error(table.place("names"), &table.about, "a list has a source or names, not both", hint);
            }
            _ => {}
        }
        let actions = [
            ("block", (Action::Block, Purpose::Filter)),
            ("allow", (Action::Allow, Purpose::Filter)),
            ("keep_clients", (Action::Block, Purpose::KeepClients)),
        ];
        let (action, purpose) = table.word("action", &actions).map_or(actions[0].1, |action| action.value);
        // To a device that looks for another way out, a null address says that there is one.
        let answer = if purpose == Purpose::KeepClients { BlockAs::NxDomain } else { BlockAs::Null };
        let source = table.parsed("source", list_source);
        let refresh = table.parsed("refresh", value::wait);
        Some(Self {
            about: table.about.clone(),
            source,
            names: table.has("names").then(|| names(table, "names")),
            action,
            purpose,
            block_as: table.parsed("block_as", block_as).map_or(answer, |block_as| block_as.value),
            refresh: refresh.map_or(Duration::from_secs(86400), |refresh| refresh.value),
            enabled: table.boolean("enabled").is_none_or(|enabled| enabled.value),
            name: table.parsed("name", value::label)?,
        })
    }
}

fn list_source(text: &str) -> Result<Source, Wrong> {
    let Some((scheme, _)) = text.split_once("://") else { return Ok(Source::Path(PathBuf::from(text))) };
    let hint = "write a URL as \"https://lists.example/hosts\", or the path of a file";
    let wrong = |what: &str| Wrong::new(format!("source \"{text}\" {what}"), hint);
    if !matches!(scheme, "https" | "http") {
        return Err(wrong("is neither a path nor an https URL"));
    }
    let url: hyper::Uri = text.parse().map_err(|_| wrong("is no URL"))?;
    match url.authority() {
        Some(authority) if !authority.as_str().contains('@') && !url.host().unwrap_or_default().is_empty() => {
            Ok(Source::Url(url))
        }
        _ => Err(wrong("names no server, or a password")),
    }
}

fn block_as(text: &str) -> Result<BlockAs, Wrong> {
    match text {
        "null" => Ok(BlockAs::Null),
        "nxdomain" => Ok(BlockAs::NxDomain),
        "nodata" => Ok(BlockAs::NoData),
        "refused" => Ok(BlockAs::Refused),
        _ => text.parse().map(BlockAs::Address).map_err(|_| {
            let hint = "one of \"null\", \"nxdomain\", \"nodata\", \"refused\", or an address";
            Wrong::new(format!("block_as cannot be \"{text}\""), hint)
        }),
    }
}

impl Group {
    fn read(table: &Table<'_>) -> Option<Self> {
        if !table.has("name") {
            table.missing("name", "name the group, as name = \"kids\"");
        }
        Some(Self {
            about: table.about.clone(),
            devices: table.list("devices", device).unwrap_or_default(),
            lists: table.list("lists", list_word),
            allow: names(table, "allow"),
            block: names(table, "block"),
            upstreams: table.list("upstreams", upstream).unwrap_or_default(),
            offline: table.list("offline", span).unwrap_or_default().into_iter().map(|span| span.value).collect(),
            services: table.list("services", service).unwrap_or_default().into_iter().map(|word| word.value).collect(),
            safe_search: safe_search(table),
            keep_clients: table.boolean("keep_clients").is_none_or(|keep| keep.value),
            rebind: match table.boolean("rebind") {
                Some(At { value: true, .. }) => Rebind::Allowed,
                _ => Rebind::Refused,
            },
            name: table.parsed("name", value::label)?,
        })
    }
}

fn service(text: &str) -> Result<&'static str, Wrong> {
    known(text, filter::services(), "service", "blocked")
}

/// Reads `true`, `false`, or the engines.
fn safe_search(table: &Table<'_>) -> Vec<&'static str> {
    if table.is_boolean("safe_search") {
        let all = table.boolean("safe_search").is_some_and(|all| all.value);
        return if all { filter::all_engines().collect() } else { Vec::new() };
    }
    let engine = |text: &str| known(text, filter::engines(), "search engine", "made to answer for children");
    table.list("safe_search", engine).unwrap_or_default().into_iter().map(|word| word.value).collect()
}

fn known(
    text: &str,
    all: impl Iterator<Item = &'static str> + Clone,
    what: &str,
    done: &str,
) -> Result<&'static str, Wrong> {
    all.clone().find(|known| *known == text).ok_or_else(|| {
        let list: Vec<_> = all.collect();
        Wrong::new(format!("\"{text}\" is no {what} that can be {done}"), format!("one of {}", list.join(", ")))
    })
}

pub(super) fn device(text: &str) -> Result<DeviceWord, Wrong> {
    if let Some(name) = text.strip_prefix("peer:") {
        return Ok(DeviceWord::Peer(name.to_owned()));
    }
    if let Some(name) = text.strip_prefix("doh:") {
        let hint = "write letters, digits, \"-\" or \"_\", as \"doh:tablet\"";
        let name = ClientName::new(name).ok_or_else(|| Wrong::new(format!("\"{text}\" names no device"), hint));
        return name.map(DeviceWord::Client);
    }
    if let Ok(mac) = text.parse() {
        return Ok(DeviceWord::Mac(mac));
    }
    let is_name = !text.is_empty() && text.len() <= 253 && text.parse::<IpAddr>().is_err();
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    // Digits and dots alone are an address with a mistake in it.
    if is_name && text.chars().all(fits) && text.contains(|letter: char| letter.is_ascii_alphabetic()) {
        return Ok(DeviceWord::Name(text.trim_end_matches('.').to_owned()));
    }
    value::network(text).map(DeviceWord::Net).map_err(|wrong| match text.contains('/') {
        true => wrong,
        false => {
            let hint = "write its MAC address, its DHCP name, an address or network, \"peer:NAME\" or \"doh:NAME\"";
            Wrong::new(format!("device \"{text}\" cannot be told apart"), hint)
        }
    })
}

/// Reads `ads`, `+ads`, `+social mon-fri 07:00-16:00, sat 10:00-12:00`.
fn list_word(text: &str) -> Result<ListWord, Wrong> {
    let (name, spans) = text.split_once(' ').unwrap_or((text, ""));
    let spans = spans.trim().split(", ").filter(|span| !span.is_empty()).map(span).collect::<Result<_, _>>()?;
    let without = name.strip_prefix('+');
    Ok(ListWord { name: without.unwrap_or(name).to_owned(), besides_default: without.is_some(), spans })
}

fn span(text: &str) -> Result<WeekSpan, Wrong> {
    text.parse().map_err(|what: String| Wrong::new(what, "write days and times, as \"sun-thu 21:00-07:00\""))
}

fn negative_anchor(table: &Table<'_>) -> Option<(Name, u64)> {
    let (name, until) = (table.parsed("name", value::name), table.parsed("until", value::moment));
    for key in ["name", "until"].into_iter().filter(|key| !table.has(key)) {
        table.missing(key, "write { name = \"broken.example\", until = \"2026-12-31\" }");
    }
    Some((name?.value, until?.value))
}

fn switches(table: &Table<'_>) -> Testing {
    let ordinary = Testing::default();
    let flag = |key, default| table.boolean(key).map_or(default, |flag| flag.value);
    let word = |key, least, default| {
        let number = table.number(key, least..=u64::from(u16::MAX));
        number.and_then(|number| u16::try_from(number.value).ok()).unwrap_or(default)
    };
    let servers = table.list("root_servers", value::address).unwrap_or_default();
    let anchor = |text: &str| match master::records(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(wrong) => Err(Wrong::new(
            format!("\"{text}\" is no anchor: {}", wrong.problem),
            "write a DS or DNSKEY record as in a zone file",
        )),
    };
    Testing {
        now: table.number("now", 0..=u64::from(u32::MAX)).map(|now| now.value),
        follow_clock: flag("follow_clock", ordinary.follow_clock),
        root_servers: servers.into_iter().map(|server| server.value).collect(),
        server_port: word("server_port", 1, ordinary.server_port),
        anchors: table.list("anchors", anchor).map(|list| list.into_iter().map(|text| text.value).collect()),
        priming: flag("priming", ordinary.priming),
        aggressive: flag("aggressive", ordinary.aggressive),
        cookies: flag("cookies", ordinary.cookies),
        rfc5011: table.boolean("rfc5011").map(|follow| follow.value),
        short_keys: flag("short_keys", true),
        edns_size: word("edns_size", 512, ordinary.edns_size),
        special_servers: flag("special_servers", ordinary.special_servers),
        special_names: flag("special_names", flag("special_servers", ordinary.special_names)),
        ipv4: flag("ipv4", ordinary.ipv4),
        ipv6: flag("ipv6", ordinary.ipv6),
        log_upstream: flag("log_upstream", ordinary.log_upstream),
        list_roots: table.parsed("list_roots", |text| Ok(PathBuf::from(text))).map(|path| path.value),
    }
}
