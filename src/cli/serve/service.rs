//! What a service manager is told, and what it hands over: systemd's protocols of readiness, watchdog and sockets.

use std::env;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};

use crate::cli::failure::{Code, Failure};

/// Sockets that the service manager has opened for this process, in its order.
#[derive(Debug)]
pub(in crate::cli) struct Handed {
    pub(super) listeners: Vec<TcpListener>,
}

impl Handed {
    /// Takes what was handed over (`LISTEN_FDS`), if it is for this process (`LISTEN_PID`). Called while the process has one
    /// thread: the variables are removed, so that no child takes them for its own.
    ///
    /// # Errors
    /// One of them is no listening TCP socket.
    pub(in crate::cli) fn take() -> Result<Self, Failure> {
        let mut handed = ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..handed.len() {
            let listener = handed.take_tcp_listener(index).map_err(|error| {
                Failure::of("cannot use a socket that the service manager handed over", &error)
                    .code(Code::Settings)
                    .try_this("ListenStream=ADDR:PORT, without Accept=yes, in the socket unit")
            })?;
            listeners.extend(listener);
        }
        Ok(Self { listeners })
    }
}

/// The service manager that waits to hear of this process; nobody, if there is none.
#[derive(Debug)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
}

impl Manager {
    /// Whoever `NOTIFY_SOCKET` names.
    pub(super) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            let address = address(&name.into_vec());
            let socket = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            socket.inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET names no socket")).ok()
        });
        let text = |name: &str| env::var(name).ok();
        let every = interval(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id());
        Self { every: every.filter(|_| socket.is_some()), socket }
    }

    pub(super) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing what is executing");
    }

    /// [`Manager::ready`] says when it is over.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, rest) = (now.tv_sec, now.tv_nsec / 1_000);
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={}",
            seconds.saturating_mul(1_000_000).saturating_add(rest)
        ));
    }

    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often it wants to hear that the server is alive.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.every
    }

    fn tell(&self, what: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }
}

/// How often the process `own` is to say that it is alive: twice in the time that the manager waits, if it is meant.
fn interval(limit_us: Option<String>, process: Option<String>, own: u32) -> Option<Duration> {
    if process.is_some_and(|process| process != own.to_string()) {
        return None;
    }
    let limit_us: u64 = limit_us?.parse().ok()?;
    Some(Duration::from_micros(limit_us / 2)).filter(|every| !every.is_zero())
}

/// A path, or a name in the kernel's own space of names behind `@`.
fn address(name: &[u8]) -> std::io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_process_s_watchdog_is_fed() {
        let interval = |limit: &str, process: Option<&str>| {
            interval(Some(limit.to_owned()), process.map(str::to_owned), 7)
        };
        assert_eq!(interval("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some("7")), Some(Duration::from_secs(15)));
        for (limit, process) in [("30000000", Some("8")), ("30000000", Some("")), ("0", None), ("soon", None)]
        {
            assert_eq!(interval(limit, process), None, "{limit} {process:?}");
        }
    }
}
