//! The first flight on a socket: reading a hello within its bounds, sending one, and the answer to it.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::model::Limits;
use crate::wire::hello::{self, Hello, HelloError, MAC1_LEN, START_LEN};

/// Why a first flight failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GreetingError {
    /// The connection ended or broke.
    #[error("the connection ended during the handshake")]
    Connection(#[from] io::Error),
    /// What came is no hello.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// The longest hello, in bytes.
const ROOM: usize = START_LEN + 2 + 2 * Limits::HELLO_LEN_MAX + MAC1_LEN;

/// Reads a client's hello: 8 bytes tell a stranger, and no more than a hello is ever read. Memory is taken for a whole
/// one only.
///
/// # Errors
/// [`GreetingError`].
///
/// # Cancel safety
/// Not cancel safe; the connection is closed after a failure.
pub async fn read_hello<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Hello, GreetingError> {
    let mut room = [0; ROOM];
    let start = fill(stream, &mut room, 0, START_LEN).await?;
    let offer_len = hello::start(start.try_into().map_err(|_| HelloError::Length)?)?;
    let noise_at = START_LEN.saturating_add(offer_len).saturating_add(2);
    let parts = fill(stream, &mut room, START_LEN, noise_at).await?;
    let noise_len = hello::part_len(*parts.last_chunk().ok_or(HelloError::Length)?)?;
    let end = noise_at.saturating_add(noise_len).saturating_add(MAC1_LEN);
    fill(stream, &mut room, noise_at, end).await?;
    Ok(Hello::decode(room.get(..end).unwrap_or_default())?)
}

/// Reads what belongs between two places of `room`, all of it.
async fn fill<'a, R: AsyncRead + Unpin>(
    stream: &mut R,
    room: &'a mut [u8; ROOM],
    from: usize,
    to: usize,
) -> Result<&'a [u8], GreetingError> {
    let part = room.get_mut(from..to).ok_or(HelloError::TooLong)?;
    stream.read_exact(part).await?;
    Ok(part)
}

/// Sends a hello and reads the server's Noise message 2.
///
/// # Errors
/// [`GreetingError::Connection`] when the server closes, which is how it refuses.
///
/// # Cancel safety
/// Not cancel safe; the connection is closed after a failure.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    hello: &[u8],
) -> Result<Vec<u8>, GreetingError> {
    stream.write_all(hello).await?;
    let mut noise_len = [0; 2];
    stream.read_exact(&mut noise_len).await?;
    let mut message = Vec::new();
    append(stream, &mut message, hello::part_len(noise_len)?).await?;
    Ok(message)
}

async fn append<R: AsyncRead + Unpin>(stream: &mut R, bytes: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let at = bytes.len();
    bytes.resize(at.saturating_add(len), 0);
    stream.read_exact(bytes.get_mut(at..).unwrap_or_default()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::{Identity, SessionInitiator};
    use crate::wire::hello::SessionOffer;

    fn hello() -> Vec<u8> {
        let mut entropy = crate::net::SystemEntropy;
        let identity = Identity::generate(&mut entropy).unwrap();
        let server = Identity::generate(&mut entropy).unwrap().public();
        SessionInitiator::begin(&identity, &server, SessionOffer::OURS, &mut entropy).unwrap().1
    }

    async fn read(parts: &[&[u8]]) -> Result<Hello, GreetingError> {
        let mut stream = in_parts(parts);
        read_hello(&mut stream).await
    }

    /// A stream that gives each part to a read of its own.
    fn in_parts(parts: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        struct Parts(std::collections::VecDeque<Vec<u8>>);
        impl AsyncRead for Parts {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                to: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                let Some(part) = self.0.pop_front() else { return std::task::Poll::Ready(Ok(())) };
                let (now, later) = part.split_at(part.len().min(to.remaining()));
                to.put_slice(now);
                if !later.is_empty() {
                    self.0.push_front(later.to_vec());
                }
                std::task::Poll::Ready(Ok(()))
            }
        }
        Parts(parts.iter().map(|part| part.to_vec()).collect())
    }

    #[tokio::test]
    async fn a_hello_may_come_in_any_pieces() {
        let bytes = hello();
        let whole = read(&[&bytes]).await.unwrap();
        for cut in 1..bytes.len() {
            assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]).await.unwrap(), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single).await.unwrap(), whole);
    }

    #[tokio::test]
    async fn cut_hellos_end_and_what_comes_behind_one_is_left_there() {
        let bytes = hello();
        for cut in 0..bytes.len() {
            assert!(
                matches!(read(&[&bytes[..cut]]).await, Err(GreetingError::Connection(_))),
                "cut at {cut}"
            );
        }
        let longer = [&bytes[..], b"behind"].concat();
        let mut longer = in_parts(&[&longer]);
        read_hello(&mut longer).await.unwrap();
        let mut behind = Vec::new();
        longer.read_to_end(&mut behind).await.unwrap();
        assert_eq!(behind, b"behind");
    }

    #[tokio::test]
    async fn strangers_are_known_by_8_bytes_and_long_parts_by_their_length() {
        let read_start = async |start: &[u8]| match read(&[start, &[0; 4096]]).await {
            Err(GreetingError::Hello(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(read_start(b"GET / HT").await, HelloError::Magic);
        assert_eq!(read_start(b"BWLN\x01\x01\xff\xff").await, HelloError::TooLong);
        assert_eq!(read_start(b"BWLN\x01\x01\x00\x00\xff\xff").await, HelloError::TooLong);
        // The longest that there can be is read to its end, and is refused for what it holds.
        let len = u16::try_from(Limits::HELLO_LEN_MAX).unwrap().to_le_bytes();
        let part = [0; Limits::HELLO_LEN_MAX];
        let longest = [b"BWLN\x01\x01", &len[..], &part, &len, &part, &[0; MAC1_LEN]].concat();
        assert_eq!(longest.len(), ROOM);
        assert!(matches!(read(&[&longest]).await, Err(GreetingError::Hello(HelloError::Offer(_)))));
    }
}
