//! Every section with its keys: what is not here is unknown. The examples are tested against it.

/// Sections by name, as they stand in brackets; tables within a value are called after their key.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("", &["node", "lan", "dns", "ingress", "route", "vpn", "metrics"]),
    ("node", &["domain", "state", "user", "timezone", "grace", "log"]),
    ("node.log", &["format", "level"]),
    ("lan", &["interfaces", "subnets", "this_box", "relays", "network"]),
    ("lan.network", &["name", "subnets"]),
    (
        "dns",
        &[
            "listen",
            "cache_size",
            "rrset_cache",
            "ttl_min",
            "ttl_max",
            "stale",
            "prefetch",
            "minimise",
            "case_randomisation",
            "sha1",
            "nta",
            "rebind_allow",
            "traces",
            "resolve",
            "upstreams",
            "root_hints",
            "trust_anchors",
            "records",
            "forward",
            "list",
            "group",
            "testing",
        ],
    ),
    ("dns.records", &["addresses", "cname", "txt", "ttl"]),
    ("dns.forward", &["zone", "to"]),
    ("dns.list", &["name", "source", "names", "action", "refresh", "block_as", "enabled"]),
    ("dns.group", &["name", "devices", "lists", "allow", "block"]),
    ("dns.nta", &["name", "until"]),
    (
        "dns.testing",
        &[
            "now",
            "follow_clock",
            "root_servers",
            "root_hints",
            "server_port",
            "anchors",
            "minimise",
            "case_randomisation",
            "priming",
            "prefetch",
            "aggressive",
            "cookies",
            "short_keys",
            "edns_size",
            "special_servers",
            "special_names",
            "ipv4",
            "ipv6",
            "log_upstream",
            "list_roots",
        ],
    ),
    (
        "ingress",
        &[
            "http",
            "https",
            "wan_limit",
            "trusted_proxies",
            "timeouts",
            "max_header",
            "max_fields",
            "certificates",
            "acme",
        ],
    ),
    ("ingress.timeouts", &["handshake", "header", "idle", "body", "connect", "response"]),
    ("ingress.certificates", &["hosts", "cert", "key"]),
    ("ingress.acme", &["hosts", "email", "directory", "ca", "challenge", "profile", "eab"]),
    ("ingress.acme.eab", &["kid", "key"]),
    ("route", &["host", "path", "access", "to", "log", "upstream_tls"]),
    ("route.upstream_tls", &["fingerprint", "ca", "insecure"]),
    ("vpn", &["listen", "endpoint", "addresses", "mode", "private_key", "group", "peer"]),
    ("vpn.group", &["name", "may_reach"]),
    (
        "vpn.peer",
        &["name", "group", "public_key", "preshared_key", "addresses", "may_reach", "expires", "keepalive", "endpoint"],
    ),
    ("metrics", &["listen", "allow"]),
];

/// What commands may write into `edits.toml`, in the same syntax.
const EDITS: &[(&str, &[&str])] = &[("edits", &["vpn"]), ("edits.vpn", &["peer"])];

/// Returns the keys of a section.
pub(crate) fn of(section: &str) -> &'static [&'static str] {
    SECTIONS.iter().chain(EDITS).find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}
