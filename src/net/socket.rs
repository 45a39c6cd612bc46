//! TCP sockets, set up the way channels need them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long unacknowledged bytes may stay so before the kernel gives a connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that the kernel completes ahead of `accept`.
const BACKLOG: u32 = 1024;

/// Where a connection is to leave this machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Via {
    /// From this local address.
    Address(IpAddr),
    /// Through this interface (`SO_BINDTODEVICE`), from whichever address it has.
    Interface(String),
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// Connects to `to`, leaving by `via` where given.
///
/// # Errors
/// What the kernel says; binding to an interface needs a kernel that lets this user do so (Linux 5.7 or newer, or
/// root).
///
/// # Cancel safety
/// Dropping the future closes the socket.
pub async fn connect(to: SocketAddr, via: Option<&Via>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match via {
        Some(Via::Address(address)) => socket.bind(&SocketAddr::new(*address, 0).into())?,
        Some(Via::Interface(name)) => socket.bind_device(Some(name.as_bytes()))?,
        None => {}
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    tune(&stream)?;
    Ok(stream)
}

/// A listener on `at`; port 0 takes a free one.
///
/// # Errors
/// What the kernel says, most often that the address is in use or not this machine's.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Options of every connection, on both sides: small records leave at once, a peer that is gone is noticed.
///
/// # Errors
/// What the kernel says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(30)))
}
