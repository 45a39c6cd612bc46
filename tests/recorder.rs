//! The recording proxy does what the other tests believe of it.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bowline::model::{AttemptNonce, ChannelKind, ChannelNumber, Locator, Protection, Suite};
use bowline::wire::hello::{self, BindOffer, MAC1_LEN, Offer, SessionOffer};
use recorder::{Kind, Recorder, contains_secret};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[path = "support/recorder.rs"]
mod recorder;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that sends everything back, and ends when its client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

fn first_flight(offer: &Offer) -> Vec<u8> {
    let mut bytes = hello::checked(&hello::prologue(offer), b"noise");
    bytes.extend([9; MAC1_LEN]);
    bytes
}

fn bind(number: u32, kind: ChannelKind, protection: Protection) -> Offer {
    Offer::Bind(BindOffer {
        locator: Locator([1; 16]),
        number: ChannelNumber(number),
        nonce: AttemptNonce([2; 16]),
        kind,
        protection,
        suite: Suite::ChaCha20Poly1305,
    })
}

/// Sends `bytes` and waits for the same bytes.
async fn round(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).await?;
    assert_eq!(back, bytes);
    Ok(())
}

/// Waits for the end of `stream` and tells how it ended.
async fn end(mut stream: TcpStream) -> io::Result<usize> {
    stream.read(&mut [0; 1]).await
}

#[tokio::test]
async fn connections_are_passed_on_recorded_and_told_apart() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let flights = [
        first_flight(&Offer::Session(SessionOffer::OURS)),
        first_flight(&bind(1, ChannelKind::Control, Protection::Sealed)),
        first_flight(&bind(7, ChannelKind::Data, Protection::Signed)),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ];
    for flight in &flights {
        let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
        round(&mut stream, flight).await.unwrap();
        round(&mut stream, b"records").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(end(stream).await.unwrap(), 0, "the end came back through both ends");
    }
    recorder.until(|labels| labels.iter().all(|label| !label.is_open)).await.unwrap();
    let recordings = recorder.connections();
    let told: Vec<_> = recordings.iter().map(|it| (it.number, it.kind, it.channel, it.protection)).collect();
    assert_eq!(
        told,
        [
            (0, Kind::Session, None, None),
            (1, Kind::BindControl, Some(ChannelNumber(1)), Some(Protection::Sealed)),
            (2, Kind::BindData, Some(ChannelNumber(7)), Some(Protection::Signed)),
            (3, Kind::Unknown, None, None),
        ]
    );
    for (recording, flight) in recordings.iter().zip(&flights) {
        let sent = [flight.as_slice(), b"records"].concat();
        assert_eq!((&recording.to_server, &recording.to_client), (&sent, &sent));
    }
}

#[tokio::test]
async fn a_hello_in_pieces_is_unknown_until_it_is_whole() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let flight = first_flight(&bind(7, ChannelKind::Data, Protection::Signed));
    let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
    for byte in &flight[..flight.len() - 1] {
        round(&mut stream, &[*byte]).await.unwrap();
        assert_eq!(recorder.labels()[0].kind, Kind::Unknown);
    }
    round(&mut stream, &flight[flight.len() - 1..]).await.unwrap();
    assert_eq!(recorder.labels()[0].kind, Kind::BindData);
}

#[tokio::test]
async fn more_bytes_than_are_kept_are_passed_on_and_counted() {
    let recorder = Recorder::keeping(LOCALHOST, echo().await, 5).await.unwrap();
    let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
    round(&mut stream, b"abc").await.unwrap();
    round(&mut stream, b"defghi").await.unwrap();
    let (label, recording) = (recorder.labels()[0], recorder.connections().remove(0));
    assert_eq!(
        (recording.to_server.as_slice(), recording.to_client.as_slice()),
        (&b"abcde"[..], &b"abcde"[..])
    );
    assert_eq!((label.to_server_len, label.to_client_len), (9, 9));
}

#[tokio::test]
async fn a_cut_resets_what_it_means_and_nothing_else() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let mut streams = Vec::new();
    for number in [1, 2] {
        let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
        let flight = first_flight(&bind(number, ChannelKind::Data, Protection::Sealed));
        round(&mut stream, &flight).await.unwrap();
        streams.push(stream);
    }
    assert_eq!(recorder.cut(|label| label.channel == Some(ChannelNumber(1))), 1);
    let error = end(streams.remove(0)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    recorder.until(|labels| !labels[0].is_open).await.unwrap();
    round(&mut streams[0], b"still here").await.unwrap();
    assert_eq!(recorder.cut_all(), 1, "one was cut before");
    assert_eq!(end(streams.remove(0)).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_by_one_end_reaches_the_other() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let recorder = Recorder::start(LOCALHOST, listener.local_addr().unwrap()).await.unwrap();
    let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server.write_all(b"x").await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    assert_eq!(end(stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nothing_passes_a_frozen_line_until_it_thaws() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
    round(&mut stream, b"before").await.unwrap();
    recorder.freeze(true);
    stream.write_all(b"during").await.unwrap();
    stream.shutdown().await.unwrap();
    // What is right can never fail here; what is wrong passes within microseconds.
    let silent = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 6])).await;
    assert!(silent.is_err(), "bytes or an end passed: {silent:?}");
    assert!(recorder.labels()[0].is_open);
    recorder.freeze(false);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"during");
}

#[tokio::test]
async fn a_frozen_line_can_be_cut() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let mut stream = TcpStream::connect(recorder.address()).await.unwrap();
    round(&mut stream, b"before").await.unwrap();
    recorder.freeze(true);
    stream.write_all(b"during").await.unwrap();
    recorder.cut_all();
    assert_eq!(end(stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(recorder.connections()[0].to_server, b"before", "what was not passed on is not recorded");
}

#[tokio::test]
async fn new_connections_can_be_refused() {
    let recorder = Recorder::start(LOCALHOST, echo().await).await.unwrap();
    let mut old = TcpStream::connect(recorder.address()).await.unwrap();
    round(&mut old, b"old").await.unwrap();
    recorder.refuse(true);
    let outcome = match TcpStream::connect(recorder.address()).await {
        Ok(stream) => end(stream).await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    round(&mut old, b"goes on").await.unwrap();
    recorder.refuse(false);
    round(&mut TcpStream::connect(recorder.address()).await.unwrap(), b"new").await.unwrap();
    assert_eq!(recorder.labels().len(), 2, "the refused one is not recorded");
}

#[tokio::test]
async fn an_unreachable_server_is_a_reset() {
    // It does not listen, and while it is held nobody else does.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from((LOCALHOST, 0)).into()).unwrap();
    let closed = held.local_addr().unwrap().as_socket().unwrap();
    let recorder = Recorder::start(LOCALHOST, closed).await.unwrap();
    let stream = TcpStream::connect(recorder.address()).await.unwrap();
    assert_eq!(end(stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    recorder.until(|labels| !labels[0].is_open).await.unwrap();
}

const SECRET: [u8; 16] =
    [0xd1, 0x4e, 0x8b, 0xf0, 0x37, 0xa9, 0x5c, 0x12, 0xee, 0x63, 0x0d, 0xb8, 0x94, 0x2f, 0xc7, 0x7a];

#[test]
fn a_secret_is_found_in_each_form() {
    use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

    let inside = |text: String| format!("some text {text} and more").into_bytes();
    assert_eq!(contains_secret(&[b"x", &SECRET[..], b"y"].concat(), &SECRET), Some("the bytes"));
    assert_eq!(contains_secret(&SECRET[..8], &SECRET), Some("half of the bytes"));
    assert_eq!(contains_secret(&SECRET[8..], &SECRET), Some("half of the bytes"));
    assert_eq!(contains_secret(&inside(HEXLOWER.encode(&SECRET)), &SECRET), Some("hex, lower case"));
    assert_eq!(contains_secret(&inside(HEXUPPER.encode(&SECRET)), &SECRET), Some("hex, upper case"));
    for before in 0..15 {
        // What stands around the secret shares digits with it.
        let bytes = [&vec![0xa5; before][..], &SECRET, b"\xff\x5a"].concat();
        let base32 = BASE32_NOPAD.encode(&bytes);
        let found = |text: String| contains_secret(&inside(text), &SECRET);
        assert_eq!(found(base32.to_lowercase()), Some("base32, lower case"), "behind {before}");
        assert_eq!(found(base32), Some("base32, upper case"), "behind {before}");
        assert!(found(BASE64_NOPAD.encode(&bytes)).is_some_and(|form| form.starts_with("base64")));
        assert!(found(BASE64URL_NOPAD.encode(&bytes)).is_some_and(|form| form.starts_with("base64")));
    }
}

#[test]
fn a_secret_is_not_found_where_it_is_not() {
    let noise: Vec<u8> = (0..1_u32 << 16).flat_map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    assert_eq!(contains_secret(&noise, &SECRET), None);
    assert_eq!(contains_secret(&[&SECRET[..7], b"x", &SECRET[9..]].concat(), &SECRET), None);
    for short in [&b""[..], b"x"] {
        assert_eq!(contains_secret(short, &SECRET), None);
    }
}
