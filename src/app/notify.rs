//! What the service manager is told, if there is one that waits for it: systemd's protocol of datagrams
//! (sd_notify(3)), which supervise programs of other systems speak as well.

use std::{
    env,
    ffi::{OsStr, OsString},
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

use crate::handover::Testament;

/// The service manager's socket, if the process was given one.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    name: Option<OsString>,
}

impl Manager {
    /// Connects to the socket that the environment names. It is done before privileges are dropped: a
    /// connected socket may be written to whoever the process becomes.
    pub(super) fn from_environment() -> Self {
        let named = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let microseconds = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok());
        // Another process of the same unit may be meant.
        let is_for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        Self::new(named, microseconds.filter(|_| is_for_us))
    }

    /// The same for a process that takes over: where its own environment says nothing, what the one before was told.
    pub(super) fn or_inherited(self, testament: &Testament) -> Self {
        match self.socket {
            Some(_) => self,
            None => Self::new(testament.notify.as_ref().map(OsString::from), testament.watchdog),
        }
    }

    fn new(named: Option<OsString>, microseconds: Option<u64>) -> Self {
        let socket = named.as_ref().and_then(|name| match connect(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(socket = ?name, %error, "the service manager cannot be told anything");
                None
            }
        });
        let watchdog = microseconds.filter(|&at_most| at_most > 0 && socket.is_some());
        Self { socket, watchdog: watchdog.map(Duration::from_micros), name: named }
    }

    /// What the next process is told of it.
    pub(super) fn testament(&self) -> Testament {
        Testament {
            version: env!("CARGO_PKG_VERSION").into(),
            notify: self.name.as_ref().and_then(|name| name.to_str()).map(str::to_owned),
            watchdog: self.watchdog.and_then(|at_most| u64::try_from(at_most.as_micros()).ok()),
        }
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

    /// Another process is the service from now on.
    pub(super) fn is_now(&self, process: i32) {
        self.tell(&format!("MAINPID={process}"));
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
