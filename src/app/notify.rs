//! What the service manager is told, if there is one that waits for it: systemd's protocol of datagrams
//! (sd_notify(3)), which supervise programs of other systems speak as well.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The service manager's socket, if the process was given one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Connects to the socket that the environment names. It is done before privileges are dropped: a
    /// connected socket may be written to whoever the process becomes.
    pub(super) fn from_environment() -> Self {
        let named = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = named.and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(socket = ?name, %error, "the service manager cannot be told anything");
                None
            }
        });
        let microseconds = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        // Another process of the same unit may be meant.
        let is_for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = microseconds.filter(|&at_most| at_most > 0 && is_for_us && socket.is_some());
        Self { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// How often it must hear that the process is well: twice as often as it demands, as sd_watchdog_enabled(3)
    /// advises. A day where it demands nothing.
    pub(super) fn interval(&self) -> Duration {
        self.watchdog.map_or(Duration::from_secs(86_400), |at_most| (at_most / 2).max(Duration::from_millis(1)))
    }

    /// Everything listens and every policy is in force.
    pub(super) fn ready(&self) {
        self.tell("READY=1");
    }

    pub(super) fn well(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(state.as_bytes())
        {
            tracing::warn!(state, %error, "the service manager was not told");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the edge.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
