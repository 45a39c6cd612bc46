//! The first flight of a connection, before there are keys. protocol.md: Hello.
//!
//! ```text
//! client: "BWLN" | version 1 | pattern | offer length (2) | offer | noise length (2) | noise message 1 | mac1 (16)
//! server:                                                           noise length (2) | noise message 2
//! ```
//!
//! Everything before the Noise message is its prologue. The server refuses by closing the connection.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::codec::{self, DecodeError};
use crate::model::{AttemptNonce, ChannelKind, ChannelNumber, Limits, Locator, Protection, SessionId, Suite};

/// First four bytes of every connection.
pub const MAGIC: [u8; 4] = *b"BWLN";
/// The version of the hello's form.
pub const HELLO_VERSION: u8 = 1;
/// The version of the protocol behind the hello that this code speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Length of the fixed start of a hello: magic, version, pattern, length of the offer.
pub const START_LEN: usize = 8;
/// Length of the keyed check at the end of a hello.
pub const MAC1_LEN: usize = 16;

/// The handshake that a client begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// `IK`: start a session, or ask for one.
    Session,
    /// `KKpsk0`: bind a further channel to a session.
    Bind,
    /// `XX`: learn the server's key, and nothing else.
    Enrol,
}

impl Pattern {
    /// All of them.
    pub const EACH: [Self; 3] = [Self::Session, Self::Bind, Self::Enrol];

    /// The byte in the hello.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Bind => 2,
            Self::Enrol => 3,
        }
    }

    /// The handshake that this byte in a hello begins.
    ///
    /// # Errors
    /// [`HelloError::Pattern`].
    pub fn of(byte: u8) -> Result<Self, HelloError> {
        Self::EACH.into_iter().find(|pattern| pattern.byte() == byte).ok_or(HelloError::Pattern(byte))
    }
}

/// What a client offers when it starts a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOffer {
    /// Lowest protocol version that it speaks.
    pub version_min: u16,
    /// Highest protocol version that it speaks.
    pub version_max: u16,
}

impl SessionOffer {
    /// What this code offers.
    pub const OURS: Self = Self { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION };

    /// Whether a version is one that was offered.
    #[must_use]
    pub fn has(&self, version: u16) -> bool {
        (self.version_min..=self.version_max).contains(&version)
    }
}

/// What the server chose for a session; stands in message 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChoice {
    /// The version that both speak.
    pub version: u16,
    /// Names the session, if one comes of it.
    pub session: SessionId,
}

/// What a client offers when it binds a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindOffer {
    /// Names the session.
    pub locator: Locator,
    /// Number of the channel.
    pub number: ChannelNumber,
    /// New for each attempt.
    pub nonce: AttemptNonce,
    /// What the channel is for.
    pub kind: ChannelKind,
    /// The protection that the client wants; the server may choose a stronger one.
    pub protection: Protection,
    /// The cipher that the client wants.
    pub suite: Suite,
}

/// What the server chose for a channel; stands in message 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindChoice {
    /// The channel's protection.
    pub protection: Protection,
    /// The channel's cipher.
    pub suite: Suite,
}

/// What a client offers when it asks for the server's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolOffer {
    /// Lowest protocol version that it speaks.
    pub version_min: u16,
    /// Highest protocol version that it speaks.
    pub version_max: u16,
}

impl EnrolOffer {
    /// What this code offers.
    pub const OURS: Self = Self { version_min: PROTOCOL_VERSION, version_max: PROTOCOL_VERSION };

    /// The server's choice: the version of this code, if it is among the offered ones.
    #[must_use]
    pub fn choice(&self) -> Option<EnrolChoice> {
        let choice = EnrolChoice { version: PROTOCOL_VERSION };
        self.allows(choice).then_some(choice)
    }

    /// Whether a choice is one that was offered.
    #[must_use]
    pub fn allows(&self, choice: EnrolChoice) -> bool {
        (self.version_min..=self.version_max).contains(&choice.version)
    }
}

/// What the server chose for showing its key; stands in message 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolChoice {
    /// The version that both speak.
    pub version: u16,
}

/// A parsed offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Of a session.
    Session(SessionOffer),
    /// Of a bind.
    Bind(BindOffer),
    /// Of an enrolment.
    Enrol(EnrolOffer),
}

/// A client's hello, split into its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the client offers.
    pub offer: Offer,
    /// Everything before the Noise message: the prologue.
    pub prologue: Vec<u8>,
    /// Noise message 1.
    pub noise: Vec<u8>,
    /// Everything that the keyed check covers.
    pub checked: Vec<u8>,
    /// The keyed check.
    pub mac1: [u8; MAC1_LEN],
}

/// Why bytes are no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Not our magic: some other protocol.
    #[error("this is no bowline connection")]
    Magic,
    /// A hello of another version.
    #[error("the hello has version {0}, this side knows version {HELLO_VERSION}")]
    Version(u8),
    /// A handshake that this side does not offer.
    #[error("the hello begins handshake {0}, which is not offered")]
    Pattern(u8),
    /// A length over the limit.
    #[error("the hello states a length over the limit of {max} bytes", max = Limits::HELLO_LEN_MAX)]
    TooLong,
    /// The bytes end early or do not fit the stated lengths.
    #[error("the hello's parts do not fit its lengths")]
    Length,
    /// The offer is not the encoding of one.
    #[error("the hello's offer is malformed")]
    Offer(#[source] DecodeError),
}

/// The prologue of a hello with this offer.
#[must_use]
pub fn prologue(offer: &Offer) -> Vec<u8> {
    let mut body = Vec::new();
    let pattern = match offer {
        Offer::Session(offer) => {
            codec::encode(offer, &mut body);
            Pattern::Session
        }
        Offer::Bind(offer) => {
            codec::encode(offer, &mut body);
            Pattern::Bind
        }
        Offer::Enrol(offer) => {
            codec::encode(offer, &mut body);
            Pattern::Enrol
        }
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend([HELLO_VERSION, pattern.byte()]);
    bytes.extend(length(body.len()));
    bytes.append(&mut body);
    bytes
}

/// The bytes that the keyed check covers: prologue, length of the Noise message, Noise message.
#[must_use]
pub fn checked(prologue: &[u8], noise: &[u8]) -> Vec<u8> {
    let mut bytes = prologue.to_vec();
    bytes.extend(length(noise.len()));
    bytes.extend_from_slice(noise);
    bytes
}

/// A Noise message behind its length, as the server sends message 2.
#[must_use]
pub fn framed(noise: &[u8]) -> Vec<u8> {
    checked(&[], noise)
}

/// How long the part is whose length these two bytes state.
///
/// # Errors
/// [`HelloError::TooLong`] over [`Limits::HELLO_LEN_MAX`].
pub fn part_len(bytes: [u8; 2]) -> Result<usize, HelloError> {
    let len = usize::from(u16::from_le_bytes(bytes));
    if len > Limits::HELLO_LEN_MAX { Err(HelloError::TooLong) } else { Ok(len) }
}

/// Checks the fixed start of a hello and tells the length of the offer behind it.
///
/// # Errors
/// [`HelloError`] at the first field that does not fit, so that strangers are told apart with 8 bytes.
pub fn start(bytes: [u8; START_LEN]) -> Result<usize, HelloError> {
    let [m0, m1, m2, m3, version, pattern, l0, l1] = bytes;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(HelloError::Magic);
    }
    if version != HELLO_VERSION {
        return Err(HelloError::Version(version));
    }
    Pattern::of(pattern)?;
    part_len([l0, l1])
}

impl Hello {
    /// The hello that `bytes` spell, all of them.
    ///
    /// # Errors
    /// [`HelloError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let (head, rest) = bytes.split_first_chunk::<START_LEN>().ok_or(HelloError::Length)?;
        let offer_len = start(*head)?;
        let (offer_bytes, rest) = rest.split_at_checked(offer_len).ok_or(HelloError::Length)?;
        let (noise_len, rest) = rest.split_first_chunk::<2>().ok_or(HelloError::Length)?;
        let (noise, rest) = rest.split_at_checked(part_len(*noise_len)?).ok_or(HelloError::Length)?;
        let mac1: [u8; MAC1_LEN] = rest.try_into().map_err(|_| HelloError::Length)?;
        let [_, _, _, _, _, pattern, ..] = *head;
        let offer = match Pattern::of(pattern)? {
            Pattern::Session => codec::decode(offer_bytes).map(Offer::Session),
            Pattern::Bind => codec::decode(offer_bytes).map(Offer::Bind),
            Pattern::Enrol => codec::decode(offer_bytes).map(Offer::Enrol),
        }
        .map_err(HelloError::Offer)?;
        let prologue = head.iter().chain(offer_bytes).copied().collect::<Vec<u8>>();
        let checked = checked(&prologue, noise);
        Ok(Self { offer, prologue, noise: noise.to_vec(), checked, mac1 })
    }
}

/// A part's length, as two bytes. All parts are bounded far below 65,536; one that is not is refused by its reader.
fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> Offer {
        Offer::Bind(BindOffer {
            locator: Locator([1; 16]),
            number: ChannelNumber(7),
            nonce: AttemptNonce([2; 16]),
            kind: ChannelKind::Data,
            protection: Protection::Signed,
            suite: Suite::ChaCha20Poly1305,
        })
    }

    fn bytes(offer: &Offer) -> Vec<u8> {
        let mut bytes = checked(&prologue(offer), b"noise");
        bytes.extend([9; MAC1_LEN]);
        bytes
    }

    #[test]
    fn hellos_come_back() {
        for offer in [Offer::Session(SessionOffer::OURS), bind(), Offer::Enrol(EnrolOffer::OURS)] {
            let hello = Hello::decode(&bytes(&offer)).unwrap();
            assert_eq!((hello.offer, hello.noise.as_slice(), hello.mac1), (offer, &b"noise"[..], [9; 16]));
            assert_eq!(hello.prologue, prologue(&offer));
        }
    }

    #[test]
    fn golden_bytes() {
        let session = bytes(&Offer::Session(SessionOffer::OURS));
        let golden = b"BWLN\x01\x01\x04\x00\x01\x00\x01\x00\x05\x00noise\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09";
        assert_eq!(session, golden);
        let enrol = bytes(&Offer::Enrol(EnrolOffer::OURS));
        assert_eq!(enrol[..5], golden[..5]);
        assert_eq!(enrol[5], 3);
        assert_eq!(enrol[6..], golden[6..], "the offers have one form, and the pattern tells them apart");
        let start = b"BWLN\x01\x02\x30\x00";
        let offer: Vec<u8> = [1; 16]
            .into_iter()
            .chain([7, 0, 0, 0])
            .chain([2; 16])
            .chain([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
            .collect();
        assert_eq!(prologue(&bind()), [&start[..], &offer].concat());
    }

    #[test]
    fn a_choice_is_among_the_offered_versions() {
        let choice = |version_min, version_max| EnrolOffer { version_min, version_max }.choice();
        let ours = Some(EnrolChoice { version: PROTOCOL_VERSION });
        assert_eq!((choice(1, 1), choice(0, 9)), (ours, ours));
        assert_eq!((choice(2, 9), choice(0, 0), choice(9, 0)), (None, None, None));
    }

    #[test]
    fn cut_and_long_hellos_are_refused() {
        let whole = bytes(&bind());
        for len in 0..whole.len() {
            assert!(Hello::decode(&whole[..len]).is_err(), "cut to {len}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(Hello::decode(&longer), Err(HelloError::Length));
        assert_eq!(start(*b"BWLN\x01\x01\xff\xff"), Err(HelloError::TooLong));
        assert_eq!(start(*b"BWLN\x02\x01\x04\x00"), Err(HelloError::Version(2)));
        for pattern in [0, 4, 0xff] {
            let bytes = [b'B', b'W', b'L', b'N', 1, pattern, 4, 0];
            assert_eq!(start(bytes), Err(HelloError::Pattern(pattern)));
        }
        assert_eq!(start(*b"GET / HT"), Err(HelloError::Magic));
    }
}
