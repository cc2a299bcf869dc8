//! `hearthgate init`: looks at this box and writes a first configuration. It opens nothing.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, BufRead, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use ipnet::IpNet;

use crate::{
    app::{
        self, Options, Source,
        peers::{self, NewPeer},
    },
    cli::{Problem, Running, peer, ports},
    config::{self, PeerIds},
    onlink::{self, Kernel},
    privilege,
    vpn::keys::{PresharedKey, PrivateKey},
};

#[derive(Args, Debug)]
pub(super) struct Init {
    /// The file to write; one that is there is never overwritten
    #[arg(long, value_name = "FILE", default_value = "hearthgate.toml")]
    config: PathBuf,
    /// The domain of the house
    #[arg(long, default_value = "home.arpa")]
    domain: String,
    /// Where the house is reached from outside, for peers: HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
    /// What the owner's peer is called
    #[arg(long, value_name = "NAME", default_value = "owner")]
    peer: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Init {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let file = std::path::absolute(&self.config)?;
        if file.exists() {
            bail!("{} is there already and is never overwritten: name another with --config FILE", file.display());
        }
        let kernel = onlink::kernel().context("the addresses of this box cannot be read")?;
        let found = Found::survey(&kernel)?;
        let me = Me::find(state)?;
        let endpoint = self.endpoint.clone().unwrap_or_else(|| SocketAddr::new(found.endpoint(), 443).to_string());
        let text = file_text(&found, &me, &self.domain, &endpoint);
        eprint!("{}", summary(&found, &me, &file, &endpoint, self.endpoint.is_none()));
        if !self.yes && !agreed(&file, &self.peer)? {
            bail!("nothing was written");
        }
        write_new(&file, &text, me.service.as_ref())?;
        let options =
            Options { source: Source::File(file.clone()), state: Some(me.state.clone()), ..Options::default() };
        let checked = config::check(options.source.to_config(), &options.to_config(), &mut PeerIds::default());
        checked.map_err(|problems| anyhow!(Problem(problems.to_string())))?;
        eprintln!("wrote {}", file.display());
        app::state::claim(&me.state, me.service.as_ref())?;
        app::state::mark(&me.state)?;
        let key = PrivateKey::generate();
        let new = NewPeer {
            name: self.peer,
            group: Some("admins".into()),
            public_key: key.public_key().to_string(),
            addresses: Vec::new(),
            may_reach: None,
            reached_by: Vec::new(),
            confirm: None,
            preshared_key: Some(peers::Secret::of(&PresharedKey::generate())),
            expires: None,
            keepalive: None,
        };
        let running = Running { config: Some(file.clone()) };
        let text = peer::add(&running, &me.state, new, Some(&key))?;
        peer::show(&text, true, true)?;
        eprintln!("start it:  {}", how_to_start(&file, &me.state));
        Ok(())
    }
}

/// As the package's service, where the file and the folder are the service's.
fn how_to_start(file: &Path, state: &Path) -> String {
    let is_packaged = file == Path::new("/etc/hearthgate/hearthgate.toml") && state == Path::new("/var/lib/hearthgate");
    let services = [
        ("/usr/lib/systemd/system/hearthgate.service", "sudo systemctl enable --now hearthgate"),
        ("/etc/systemd/system/hearthgate.service", "sudo systemctl enable --now hearthgate"),
        ("/etc/init.d/hearthgate", "rc-update add hearthgate default && rc-service hearthgate start"),
    ];
    match services.iter().find(|(unit, _)| is_packaged && Path::new(unit).exists()) {
        Some((_, command)) => (*command).to_owned(),
        None => {
            let program = std::env::current_exe().unwrap_or_else(|_| "hearthgate".into());
            format!("sudo {} run --config {}", program.display(), file.display())
        }
    }
}

/// Who will run the edge, and where it keeps its state.
struct Me {
    user: String,
    user_exists: bool,
    /// Whom root gives what the edge reads.
    service: Option<privilege::User>,
    state: PathBuf,
}

impl Me {
    fn find(state: Option<PathBuf>) -> anyhow::Result<Self> {
        if privilege::is_root() {
            let user = "hearthgate".to_owned();
            let service = privilege::user(Some(&user)).ok().flatten();
            let user_exists = service.is_some();
            let state = state.unwrap_or_else(|| "/var/lib/hearthgate".into());
            return Ok(Self { user, user_exists, service, state: std::path::absolute(state)? });
        }
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid)?.context("this user has no name")?.name;
        let state = match state {
            Some(state) => std::path::absolute(state)?,
            None => Running { config: None }.state(None)?,
        };
        Ok(Self { user, user_exists: true, service: None, state })
    }
}

/// What was found out about this box.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The interface of the LAN.
    lan: String,
    /// Its networks.
    networks: Vec<IpNet>,
    /// This box's addresses there.
    own: Vec<IpAddr>,
    /// Default gateways.
    gateways: Vec<IpAddr>,
    /// The address that the Internet knows, if it is this box's own.
    wan: Option<IpAddr>,
}

impl Found {
    fn survey(kernel: &Kernel) -> anyhow::Result<Self> {
        let named = |index: u32| kernel.name(index).map(str::to_owned);
        let uplinks: Vec<u32> = kernel
            .gateways
            .iter()
            .filter_map(|(interface, _)| *interface)
            .chain(kernel.default_interfaces.iter().copied())
            .collect();
        let wan = kernel
            .addresses
            .iter()
            .find(|address| uplinks.contains(&address.interface) && is_public(address.address))
            .map(|address| address.address);
        let at_home = |index: u32| {
            kernel.addresses.iter().any(|address| address.interface == index && is_of_a_house(address.address))
        };
        let mut candidates: Vec<(u32, String)> = kernel
            .links
            .values()
            .filter(|index| at_home(**index))
            .filter_map(|index| Some((*index, named(*index)?)))
            .filter(|(index, name)| uplinks.contains(index) || !is_virtual(name))
            .collect();
        // Behind a router the LAN is where the router is; a box that is the router has it on another side.
        let behind = matches!(wan, None | Some(IpAddr::V6(_)));
        candidates.sort_by_key(|(index, _)| (uplinks.contains(index) != behind, *index));
        let (index, lan) = candidates.into_iter().next().context(
            "no interface has a private IPv4 address: write [lan] interfaces yourself, see config/home.toml",
        )?;
        let here = || kernel.addresses.iter().filter(|address| address.interface == index);
        let link_local = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let mut networks: Vec<IpNet> = here().filter(|a| !link_local(a.address)).map(|address| address.net).collect();
        networks.dedup();
        Ok(Self {
            lan,
            networks,
            own: here().map(|address| address.address).filter(|address| !link_local(*address)).collect(),
            gateways: kernel.gateways.iter().map(|(_, gateway)| *gateway).collect(),
            wan: wan.filter(IpAddr::is_ipv4),
        })
    }

    /// What peers are told if nobody says better: the address outside, else the one at home.
    fn endpoint(&self) -> IpAddr {
        let home = self.own.iter().copied().find(IpAddr::is_ipv4);
        self.wan.or(home).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(is_of_a_house(address) || v4.is_loopback() || v4.is_link_local() || is_shared(v4)),
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

/// RFC 6598: 100.64.0.0/10 is a provider's own, behind another translation.
fn is_shared(address: Ipv4Addr) -> bool {
    address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64
}

fn is_of_a_house(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_private() || v4.is_documentation())
}

fn is_virtual(name: &str) -> bool {
    ["docker", "veth", "br-", "virbr", "podman", "cni", "wg", "tun", "tap", "lxcbr"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

fn list<T: ToString>(things: &[T]) -> String {
    if things.is_empty() { "none".into() } else { things.iter().map(T::to_string).collect::<Vec<_>>().join(", ") }
}

fn summary(found: &Found, me: &Me, file: &Path, endpoint: &str, guessed: bool) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: String| {
        let _ = writeln!(text, "{what:<14} {said}");
    };
    line("LAN", format!("{}: {}", found.lan, list(&found.networks)));
    line("this box", list(&found.own));
    line("gateway", list(&found.gateways));
    match found.wan {
        Some(wan) => line("WAN", format!("{wan} is this box's own: nothing is to be forwarded")),
        None => {
            let own = list(&found.own);
            line("WAN", format!("the router's: let it forward TCP 80, TCP 443 and UDP 443 to this box ({own})"));
        }
    }
    for (port, name) in [(53, "DNS"), (80, "HTTP"), (443, "HTTPS")] {
        for holder in ports::holders(Path::new("/"), port).iter().filter(|holder| !holder.stands_aside()) {
            line(&format!("port {port}"), format!("{name} is held by {holder}: stop it first, or change `listen`"));
        }
    }
    if !me.user_exists {
        let user = &me.user;
        line("user", format!("\"{user}\" is not there yet: useradd --system --shell /usr/sbin/nologin {user}"));
        line("", format!("and let it read the file: chgrp {user} {}", file.display()));
    }
    let hint = if guessed { " (a guess; --endpoint HOST:PORT says better)" } else { "" };
    line("peers come to", format!("{endpoint}{hint}"));
    line("state", me.state.display().to_string());
    line("file", file.display().to_string());
    line("", "nothing is opened before you start it: then DNS for the LAN, TCP 80 and 443, UDP 443".into());
    text
}

fn agreed(file: &Path, peer: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        eprintln!("nobody can be asked here: --yes writes the file");
        return Ok(false);
    }
    eprint!("write {} and make the peer \"{peer}\"? [y/N] ", file.display());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Writes the file so that the edge reads it and only who wrote it changes it: it says whom root becomes.
fn write_new(path: &Path, text: &str, reader: Option<&privilege::User>) -> anyhow::Result<()> {
    let at = || path.display().to_string();
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o640).open(path).with_context(at)?;
    if let Some(reader) = reader {
        privilege::share(&file, reader).with_context(at)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all().with_context(at)
}

fn file_text(found: &Found, me: &Me, domain: &str, endpoint: &str) -> String {
    let networks = list(&found.networks);
    let host = found.own.iter().find(|address| address.is_ipv4());
    let host = host.map_or_else(|| "192.168.1.2".to_owned(), ToString::to_string);
    format!(
        r#"# hearthgate, written by `hearthgate init`. Say what this means: hearthgate check --config FILE
# Take a change over: hearthgate reload. Every key: config/reference.toml.

[node]
domain = {domain:?}
state  = {state:?}
user   = {user:?}           # become this user once the ports are bound

[lan]
interfaces = [{lan:?}]             # everybody on this wire is the LAN: {networks}

[dns]
listen = ["lan:53", "lo:53"]      # every address of the LAN, also tomorrow's; nobody else is answered

[dns.records]                     # names of the house, under node.domain
gate = [{host:?}]

# [[dns.list]]                    # a block list
# name   = "ads"
# source = "/etc/hearthgate/ads.txt"

[ingress]
http  = ["0.0.0.0:80", "[::]:80"]
https = ["0.0.0.0:443", "[::]:443"]

[[route]]
host   = "welcome.{domain}"
access = ["lan", "vpn"]           # "public": everybody. There is no default
to     = "builtin:welcome"        # or ["http://192.168.1.20:2342"]

[vpn]
listen   = ["0.0.0.0:443", "[::]:443"]    # UDP
endpoint = {endpoint:?}
"#,
        state = me.state.display().to_string(),
        user = me.user,
        lan = found.lan,
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, os::unix::fs::MetadataExt};

    use super::*;
    use crate::onlink::Address;

    fn address(interface: u32, text: &str) -> Address {
        let net: IpNet = text.parse().unwrap();
        Address { interface, address: net.addr(), net: net.trunc() }
    }

    fn behind_a_router() -> Kernel {
        Kernel {
            links: HashMap::from([("lo".into(), 1), ("eth0".into(), 2), ("docker0".into(), 3)]),
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "192.168.1.2/24"),
                address(2, "2001:db8:1::2/64"),
                address(2, "fe80::2/64"),
                address(3, "172.17.0.1/16"),
            ],
            gateways: vec![(Some(2), "192.168.1.1".parse().unwrap())],
            ..Kernel::default()
        }
    }

    #[test]
    fn behind_a_router_the_lan_is_where_the_router_is() {
        let found = Found::survey(&behind_a_router()).unwrap();

        assert_eq!(found.lan, "eth0");
        assert_eq!(list(&found.networks), "192.168.1.0/24, 2001:db8:1::/64");
        assert_eq!(list(&found.gateways), "192.168.1.1");
        assert_eq!(found.wan, None);
        assert_eq!(found.endpoint(), "192.168.1.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_router_has_its_lan_on_the_other_side() {
        let kernel = Kernel {
            links: HashMap::from([("wan0".into(), 2), ("lan0".into(), 3)]),
            addresses: vec![address(2, "8.8.4.4/24"), address(3, "192.168.1.1/24")],
            gateways: vec![(Some(2), "8.8.4.1".parse().unwrap())],
            ..Kernel::default()
        };

        let found = Found::survey(&kernel).unwrap();

        assert_eq!((found.lan.as_str(), found.wan), ("lan0", Some("8.8.4.4".parse().unwrap())));
    }

    #[test]
    fn shared_addresses_of_a_provider_are_not_the_routers_own() {
        assert!(!is_public("100.64.3.4".parse().unwrap()));
        assert!(is_public("100.128.3.4".parse().unwrap()));
    }

    #[test]
    fn the_file_is_read_by_the_service_and_changed_by_root() {
        let Ok(Some(nobody)) = privilege::user(Some("nobody")) else {
            return eprintln!("\nSKIPPED: only root can give anything away");
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hearthgate.toml");

        write_new(&file, "", Some(&nobody)).unwrap();

        let found = std::fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o640));
        assert_ne!(found.gid(), 0);
    }

    #[test]
    fn the_file_is_good_and_short() {
        let folder = tempfile::tempdir().unwrap();
        let me = Me { user: "hearthgate".into(), user_exists: true, service: None, state: folder.path().join("state") };
        let found = Found::survey(&behind_a_router()).unwrap();

        let text = file_text(&found, &me, "home.arpa", "vpn.example.org:443");

        assert!(text.lines().count() <= 40, "{}", text.lines().count());
        let file = folder.path().join("hearthgate.toml");
        write_new(&file, &text, None).unwrap();
        let options = config::Options::default();
        let loaded = config::check(config::Source::File(&file), &options, &mut PeerIds::default());
        let loaded = loaded.map_err(|problems| problems.to_string()).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert!(write_new(&file, &text, None).is_err(), "a file that is there is not overwritten");
    }
}
