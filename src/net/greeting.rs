//! The first flight on a socket: reading a hello within its bounds, sending one, and the answer to it.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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

/// Reads a client's hello: 8 bytes tell a stranger, and no more than the limit is ever read.
///
/// # Errors
/// [`GreetingError`].
///
/// # Cancel safety
/// Not cancel safe; the connection is closed after a failure.
pub async fn read_hello<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Hello, GreetingError> {
    let mut start = [0; START_LEN];
    stream.read_exact(&mut start).await?;
    let mut bytes = start.to_vec();
    append(stream, &mut bytes, hello::start(start)?).await?;
    let mut noise_len = [0; 2];
    stream.read_exact(&mut noise_len).await?;
    bytes.extend_from_slice(&noise_len);
    let rest = hello::part_len(noise_len)?.saturating_add(MAC1_LEN);
    append(stream, &mut bytes, rest).await?;
    Ok(Hello::decode(&bytes)?)
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
