//! The floor: `pread` and send on one side, receive on the other, and the mirror image for writes; for what nothing
//! protects, `sendfile` in place of `pread` and send.
//!
//! A pass begins with 9 bytes, the direction and the length. The side that sends the bytes of a read is the server;
//! a write ends with a byte from the server, as bowline's writes end with an answer.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bowline::model::{Limits, Protection};

use super::{Direction, FILE, FLOOR_SERVER, Outcome, Server};

const READ: u8 = b'r';
const SEND_FILE: u8 = b'f';
const WRITE: u8 = b'w';

/// A connection to a bare server, and the one buffer that the client receives into and sends from.
pub(crate) struct Floor {
    stream: TcpStream,
    buffer: Vec<u8>,
    server: Server,
}

impl Floor {
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        let server = Server::start(FLOOR_SERVER, folder)?;
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: new_buffer(), server })
    }

    /// The process id of the server.
    pub(crate) fn server(&self) -> u32 {
        self.server.child.id()
    }

    pub(crate) fn pass(&mut self, protection: Protection, direction: Direction, bytes: u64) -> Outcome<()> {
        let mark = match (direction, protection) {
            (Direction::Read, Protection::Clear) => SEND_FILE,
            (Direction::Read, _) => READ,
            (Direction::Write, _) => WRITE,
        };
        let mut request = vec![mark];
        request.extend_from_slice(&bytes.to_le_bytes());
        self.stream.write_all(&request)?;
        for len in lengths(bytes) {
            match direction {
                Direction::Read => self.stream.read_exact(&mut self.buffer[..len])?,
                Direction::Write => self.stream.write_all(&self.buffer[..len])?,
            }
        }
        if direction == Direction::Write {
            self.stream.read_exact(&mut [0])?;
        }
        Ok(())
    }
}

/// The server process: one connection, until it ends.
pub(crate) fn serve(folder: &Path) -> Outcome<()> {
    let file = File::options().read(true).write(true).open(folder.join("data").join(FILE))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut buffer = new_buffer();
    let mut request = [0; 9];
    while stream.read_exact(&mut request).is_ok() {
        let bytes = u64::from_le_bytes(request[1..].try_into()?);
        let mut at = 0;
        for len in lengths(bytes) {
            let part = &mut buffer[..len];
            if request[0] == SEND_FILE {
                let mut from = at;
                let end = at + len as u64;
                while from < end {
                    let rest = (end - from) as usize;
                    rustix::fs::sendfile(&stream, &file, Some(&mut from), rest)?;
                }
            } else if request[0] == READ {
                file.read_exact_at(part, at)?;
                stream.write_all(part)?;
            } else {
                stream.read_exact(part)?;
                file.write_all_at(part, at)?;
            }
            at += len as u64;
        }
        if request[0] == WRITE {
            stream.write_all(&[0])?;
        }
    }
    Ok(())
}

fn new_buffer() -> Vec<u8> {
    vec![0x5a; Limits::default().chunk as usize]
}

fn lengths(bytes: u64) -> impl Iterator<Item = usize> {
    let chunk = u64::from(Limits::default().chunk);
    (0..bytes.div_ceil(chunk)).map(move |at| (bytes - at * chunk).min(chunk) as usize)
}
