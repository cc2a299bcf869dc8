//! How single values are written: durations, sizes, names, networks, addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::rr::Name;
use ipnet::IpNet;

use crate::{config::problems::Wrong, ingress::canonical::CanonicalHost};

/// Reads `500ms`, `10s`, `5m`, `24h`, `3d`, `2w`.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong =
        || Wrong::new(format!("\"{text}\" is no time span"), "write a number with its unit: ms, s, m, h, d or w");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        "w" => 7 * 24 * 3600 * 1000,
        _ => return Err(wrong()),
    };
    // A century is longer than anybody means, and additions to the present stay far from overflow.
    let longest = 100 * 366 * 24 * 3600 * 1000;
    number.checked_mul(millis).filter(|total| *total <= longest).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads a time span that is longer than nothing.
pub(crate) fn wait(text: &str) -> Result<Duration, Wrong> {
    let span = duration(text)?;
    if span.is_zero() {
        return Err(Wrong::new(format!("\"{text}\" leaves no time"), "write a longer time span"));
    }
    Ok(span)
}

/// Reads a day or a moment, `2026-12-31` or `2026-12-31T18:00:00Z`, as seconds since 1970. A day ends with its
/// last second in UTC.
pub(crate) fn moment(text: &str) -> Result<u64, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no date"), "write \"2026-12-31\" or \"2026-12-31T18:00:00Z\"");
    let moment = match text.parse::<jiff::civil::Date>() {
        Ok(day) if !text.contains(['T', ' ']) => {
            let last = day.tomorrow().and_then(|next| next.to_zoned(jiff::tz::TimeZone::UTC));
            last.map_err(|_| wrong())?.timestamp()
        }
        _ => text.parse::<jiff::Timestamp>().map_err(|_| wrong())?,
    };
    u64::try_from(moment.as_second()).map_err(|_| wrong())
}

/// Reads `16MiB`, `512KiB`, `1GiB`, `4096B`.
pub(crate) fn size(text: &str) -> Result<usize, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no size"), "write a number with its unit: B, KiB, MiB or GiB");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(wrong)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Reads a host name in full.
pub(crate) fn host(text: &str) -> Result<CanonicalHost, Wrong> {
    let wrong =
        || Wrong::new(format!("\"{text}\" is no host name"), "write letters, digits and \"-\", with dots between");
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.parse::<IpAddr>().is_ok() || name.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok()) {
        return Err(Wrong::new(
            format!("\"{text}\" is an address, not a host name"),
            "write the name that clients ask for",
        ));
    }
    let ascii = idna::domain_to_ascii_strict(name).map_err(|_| wrong())?;
    CanonicalHost::parse(&ascii).map_err(|_| wrong())
}

/// Reads a DNS name as it stands; services have underscores.
pub(crate) fn name(text: &str) -> Result<Name, Wrong> {
    let wrong =
        || Wrong::new(format!("\"{text}\" is no DNS name"), "write labels of at most 63 characters with dots between");
    if text == "." {
        return Ok(Name::root());
    }
    let ascii = idna::domain_to_ascii(text.strip_suffix('.').unwrap_or(text)).map_err(|_| wrong())?;
    if ascii.is_empty() || ascii.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(wrong());
    }
    let mut name = Name::from_ascii(&ascii).map_err(|_| wrong())?;
    name.set_fqdn(true);
    Ok(name)
}

/// Reads a network, or an address as a network of its own.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let net: IpNet = text.parse().map_err(|_| {
        Wrong::new(format!("\"{text}\" is no network"), "write an address and a length, as \"192.168.1.0/24\"")
    })?;
    if net.addr() != net.network() {
        let what = format!("\"{text}\" has bits set beyond its length");
        return Err(Wrong::new(what, format!("write \"{}\" for the network, or the address alone", net.trunc())));
    }
    Ok(net)
}

/// Reads an address that keeps the length of its network: `10.77.0.1/24`.
pub(crate) fn address_in_network(text: &str) -> Result<IpNet, Wrong> {
    let wrong = || Wrong::new(format!("\"{text}\" is no address with a length"), "write it as \"10.77.0.1/24\"");
    let net: IpNet = text.parse().map_err(|_| wrong())?;
    let reserved = net.addr() == net.network() || net.addr() == net.broadcast();
    if net.prefix_len() >= net.max_prefix_len() - 1 || reserved {
        let what = format!("\"{text}\" leaves no addresses for peers beside the gate's own");
        return Err(Wrong::new(what, "write the gate's address with the length of a network, as \"10.77.0.1/24\""));
    }
    Ok(net)
}

/// Reads an address.
pub(crate) fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_| Wrong::new(format!("\"{text}\" is no address"), "write an IPv4 or IPv6 address"))
}

/// Where to listen, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// `lan:53`: every address of the LAN interfaces, also tomorrow's.
    Lan(u16),
    /// `lo:53`: loopback.
    Loopback(u16),
    /// As it stands.
    Address(SocketAddr),
}

/// Reads `lan:53`, `lo:53`, `192.168.1.2:53`, `[::]:53`.
pub(crate) fn listen(text: &str) -> Result<Listen, Wrong> {
    let wrong = || {
        let hint = "write an address and a port, as \"192.168.1.2:53\" or \"[::]:53\", or \"lan:53\" or \"lo:53\"";
        Wrong::new(format!("\"{text}\" is no place to listen"), hint)
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen::Address(address));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let hint = format!("write \"{}\", with the port you want", SocketAddr::new(address, 53));
        return Err(Wrong::new(format!("\"{text}\" has no port"), hint));
    }
    let (place, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    match place {
        "lan" => Ok(Listen::Lan(port)),
        "lo" => Ok(Listen::Loopback(port)),
        _ => Err(wrong()),
    }
}

/// Returns loopback with this port, in both families.
pub(crate) fn loopback(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

/// Returns every address with this port, in both families.
pub(crate) fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

/// A secret of the owner's: written here, or in a file of its own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    /// As it stands.
    Here(String),
    /// The first line of this file.
    File(PathBuf),
}

/// Reads `file:/etc/hearthgate/token`, or the secret itself.
pub(crate) fn secret(text: &str) -> Result<Secret, Wrong> {
    match text.strip_prefix("file:") {
        Some("") => Err(Wrong::new("\"file:\" names no file", "write \"file:\" and the path of the file")),
        Some(path) => Ok(Secret::File(path.into())),
        None if text.trim().is_empty() => Err(Wrong::new("the secret is empty", "write it, or \"file:\" and a path")),
        None => Ok(Secret::Here(text.to_owned())),
    }
}

/// Reads where a program of the owner's is.
pub(crate) fn program(text: &str) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(text);
    match path.is_absolute() && !text.contains(char::is_control) {
        true => Ok(path),
        false => {
            Err(Wrong::new(format!("\"{text}\" is no absolute path"), "write where the program is, from \"/\" on"))
        }
    }
}

/// Reads what the owner calls something: it stands in logs, metrics and `vpn:NAME`.
pub(crate) fn label(text: &str) -> Result<String, Wrong> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        let hint = "write at most 63 letters, digits, \"-\", \"_\" or \".\"";
        return Err(Wrong::new(format!("\"{text}\" cannot be a name"), hint));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_need_their_units() {
        assert_eq!(duration("3d").unwrap(), Duration::from_secs(3 * 86400));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(size("16MiB").unwrap(), 16 << 20);
        for wrong in ["", "10", "s", "10 parsecs", "-1s", "99999999999999999999s", "18446744073709551615w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["16", "16MB", "MiB", "18446744073709551615GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_are_brought_into_one_form() {
        assert_eq!(host("Photos.Home.Example.").unwrap().as_str(), "photos.home.example");
        assert_eq!(host("bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
        for wrong in ["", ".", "a..b", "a b", "-a.example", "192.168.1.1", "::1", "1.2.3", "a/b", "a:80"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_length() {
        assert_eq!(network("192.168.1.0/24").unwrap().to_string(), "192.168.1.0/24");
        assert_eq!(network("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert!(network("192.168.1.7/24").unwrap_err().hint.contains("192.168.1.0/24"));
    }
}
