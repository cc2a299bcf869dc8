//! Link and routes of the device, by netlink.

use std::{io, net::IpAddr, time::Duration};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use socket2::SockRef;

/// How long the kernel may take for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Packets that wait to be read; the kernel's 500 are too few for a burst of many streams.
const QUEUE: u32 = 1_000;

/// Brings a link up.
pub(super) fn up(index: u32, mtu: usize) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::Mtu(u32::try_from(mtu).map_err(io::Error::other)?));
    link.attributes.push(LinkAttribute::TxQueueLen(QUEUE));
    ask(RouteNetlinkMessage::SetLink(link), 0)
}

/// Has the kernel send a prefix to a link; an error if it sends it somewhere already.
pub(super) fn route(index: u32, prefix: IpNet) -> io::Result<()> {
    let mut route = RouteMessage::default();
    route.header.destination_prefix_length = prefix.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.kind = RouteType::Unicast;
    let destination = match prefix.addr() {
        IpAddr::V4(v4) => {
            route.header.address_family = AddressFamily::Inet;
            route.header.scope = RouteScope::Link;
            RouteAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            route.header.address_family = AddressFamily::Inet6;
            RouteAddress::Inet6(v6)
        }
    };
    route.attributes.push(RouteAttribute::Destination(destination));
    route.attributes.push(RouteAttribute::Oif(index));
    ask(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
}

fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    SockRef::from(&socket).set_read_timeout(Some(DEADLINE))?;
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    packet.header.sequence_number = 1;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
