//! hearthgate: the DNS server, the HTTP ingress and the VPN gate at the edge of a home, in one process.
//!
//! The house has four storeys, and imports go down only:
//!
//! - [`cli`] turns arguments into one of the commands; [`app`] is the only room that knows all planes:
//!   it builds them, reloads them, hands their handles to one another and reports their state.
//! - [`config`] reads what the owner wrote and compiles it into each plane's own `Config`.
//! - The planes [`dns`], [`ingress`] and [`vpn`] never import one another, nor does [`wan`], which keeps names at this
//!   box's address, nor the [`watch`], which looks whether everything is up, nor the [`console`], which shows all of them through one trait. Each is a struct with four
//!   verbs: `bind` takes ports and may fail, `prepare` builds a new policy and may fail, `commit` swaps it
//!   in and cannot fail, `run` works until told to stop.
//! - The floor carries what they share: [`origin`] is the threat model as types, [`onlink`] follows what
//!   is on the LAN, [`neighbours`] which devices are, [`announce`] tells IPv6 clients of
//!   us, [`listen`] binds every kernel socket, [`stream`] is an accepted
//!   stream or datagram with its origin, [`https`] and [`public_dns`] ask other servers, [`provider`] holds the owner's
//!   public zones, [`helper`] runs the owner's programs, [`limit`] holds per-client limits in fixed memory, [`lookup`]
//!   turns names into addresses, [`questions`] carries DNS messages to whoever answers them and [`pages`] requests to whoever writes the page, [`identity`] the certificates
//!   of that server,
//!   [`event`] carries what they report to the [`history`], which keeps the questions of the house,
//!   [`audit`] writes down who changed what, [`supervise`] names and restarts tasks, [`clock`] says whether the time can be right, [`descriptors`] is how many sockets there may be, [`metrics`] is the registry and its naming rule, [`week`] is spans of the week, [`store`]
//!   writes state that is never torn, [`backup`] puts it into one encrypted file, [`handover`] passes what is open to the next process, [`privilege`] drops what is not needed, [`sandbox`] shuts the rest off, [`image`]
//!   gives the memory back that only the start needed.

pub mod announce;
pub mod app;
pub mod cli;
pub mod config;

pub mod console;
pub mod dns;
pub mod ingress;
pub mod vpn;
pub mod wan;
pub mod watch;

pub mod audit;
pub mod backup;
pub mod clock;
pub mod descriptors;
pub mod event;
pub mod handover;
pub mod helper;
pub mod history;
pub mod https;
pub mod identity;
pub mod image;
pub mod limit;
pub mod listen;
pub mod lookup;
pub mod metrics;
pub mod neighbours;
pub mod onlink;
pub mod origin;
pub mod pages;
pub mod privilege;
pub mod provider;
pub mod public_dns;
pub mod questions;
pub mod sandbox;
pub mod store;
pub mod stream;
pub mod supervise;
pub mod week;
