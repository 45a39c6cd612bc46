//! The floor: `pread` and send on one side, receive on the other, and the mirror image for writes; for what nothing
//! protects, `sendfile` in place of `pread` and send.
//!
//! A pass begins with 9 bytes, the direction and the length. The side that sends the bytes of a read is the server;
//! a write ends with a byte from the server, as bowline's writes end with an answer. A pass of reads at random has the
//! number of reads in place of the length; each is asked for with 16 bytes, offset and length, and answered with `pread`
//! and send.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bowline::model::{Limits, Protection};

use super::{BLOCK, FILE, FLOOR_SERVER, Offsets, Outcome, Pass, Server};

const READ: u8 = b'r';
const SEND_FILE: u8 = b'f';
const WRITE: u8 = b'w';
const RANDOM: u8 = b'4';

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

    pub(crate) fn pass(&mut self, protection: Protection, pass: Pass) -> Outcome<()> {
        match pass {
            Pass::Read(bytes) => {
                self.begin(if protection == Protection::Clear { SEND_FILE } else { READ }, bytes)?;
                lengths(bytes).try_for_each(|len| self.stream.read_exact(&mut self.buffer[..len]))?;
            }
            Pass::Write(bytes) => {
                self.begin(WRITE, bytes)?;
                lengths(bytes).try_for_each(|len| self.stream.write_all(&self.buffer[..len]))?;
                self.stream.read_exact(&mut [0])?;
            }
            Pass::Random { reads, blocks, depth } => {
                self.begin(RANDOM, reads)?;
                let mut offsets = Offsets::new(0, blocks);
                let ahead = reads.min(depth as u64);
                (0..ahead).try_for_each(|_| self.ask(offsets.next()))?;
                for at in 0..reads {
                    self.stream.read_exact(&mut self.buffer[..BLOCK])?;
                    if at + ahead < reads {
                        self.ask(offsets.next())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, mark: u8, number: u64) -> io::Result<()> {
        let mut request = [mark; 9];
        request[1..].copy_from_slice(&number.to_le_bytes());
        self.stream.write_all(&request)
    }

    fn ask(&mut self, offset: u64) -> io::Result<()> {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&offset.to_le_bytes());
        request[8..].copy_from_slice(&(BLOCK as u64).to_le_bytes());
        self.stream.write_all(&request)
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
        let number = u64::from_le_bytes(request[1..].try_into()?);
        if request[0] == RANDOM {
            answer_reads(&mut stream, &file, number, &mut buffer)?;
            continue;
        }
        let mut at = 0;
        for len in lengths(number) {
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

fn answer_reads(stream: &mut TcpStream, file: &File, reads: u64, buffer: &mut [u8]) -> Outcome<()> {
    let mut request = [0; 16];
    for _ in 0..reads {
        stream.read_exact(&mut request)?;
        let (offset, len) = request.split_at(8);
        let len = u64::from_le_bytes(len.try_into()?) as usize;
        file.read_exact_at(&mut buffer[..len], u64::from_le_bytes(offset.try_into()?))?;
        stream.write_all(&buffer[..len])?;
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
