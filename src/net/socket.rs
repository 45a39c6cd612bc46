//! TCP sockets, set up the way channels need them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpSocket, TcpStream};

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

/// A listener whose connections cost nothing but the call that accepts them until somebody wants them.
#[derive(Debug)]
pub struct Listener(AsyncFd<std::net::TcpListener>);

/// A connection that was accepted and that nothing is known of yet. Dropping it resets it: nothing of it stays behind,
/// neither here nor in the kernel.
#[derive(Debug)]
pub struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

/// A listener on `at`; port 0 takes a free one. Its connections are reset where they end (`SO_LINGER` with 0 s, which they
/// have from it) until [`keep`].
///
/// # Errors
/// What the kernel says, most often that the address is in use or not this machine's.
pub fn listen(at: SocketAddr) -> io::Result<Listener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    adopt(socket.listen(BACKLOG)?.into_std()?)
}

/// The listener of a socket that listens already. Its connections end as those of [`listen`].
///
/// # Errors
/// What the kernel says.
#[expect(
    deprecated,
    reason = "what is to be used instead is unsafe code, and asks that the descriptor stays open as long as it is registered: std's listener sees to that"
)]
pub fn adopt(listener: std::net::TcpListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    // A connection has it from its listener: whoever is not wanted is reset, and leaves no memory of itself with the
    // kernel for the next minute. A connection whose handshake is answered takes it back.
    SockRef::from(&listener).set_linger(Some(Duration::ZERO))?;
    Ok(Listener(AsyncFd::new(listener)?))
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// What the kernel says, most often that there are no descriptors left.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.0.async_io(Interest::READABLE, std::net::TcpListener::accept).await?;
        Ok(Accepted { stream, peer })
    }
}

impl Accepted {
    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Makes it a stream of the current runtime. It is still reset where it ends, until [`keep`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        self.stream.set_nonblocking(true)?;
        TcpStream::from_std(self.stream)
    }
}

/// From now on an accepted connection ends in order: the kernel goes on sending what was given to it, also after the
/// connection was closed. For connections whose handshake is answered.
///
/// # Errors
/// What the kernel says.
pub fn keep(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(None)
}

/// From now on a connection is reset where it ends: what was sent on it and has not arrived is thrown away.
///
/// # Errors
/// What the kernel says.
pub fn discard(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
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
