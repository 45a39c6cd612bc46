//! What all messages have in common: the kind byte in the head, and the rule which channel may carry them.

use super::codec::DecodeError;
use super::data::{Rekey, Trailer};
use super::{ClientControl, ClientData, ServerControl, ServerData};
use crate::model::{ChannelKind, Refusal};

/// A message that can stand in a record. The four implementors are the four streams there are; a writer for one
/// of them takes no message of another, so that what only a control channel may carry cannot reach a data
/// channel.
pub trait Message: Sized + From<Rekey> {
    /// The channels that carry it.
    const CHANNEL: ChannelKind;

    /// Whether a payload of this stream is followed by a trailer on a clear channel.
    const HAS_TRAILERS: bool = false;

    /// The kind byte.
    fn kind(&self) -> u8;

    /// Appends the body's bytes to `to`.
    fn encode_body(&self, to: &mut Vec<u8>);

    /// The message of `kind` with this body.
    ///
    /// # Errors
    /// [`DecodeError`] when there is no such kind in this stream, or the body is not its encoding.
    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, DecodeError>;

    /// A trailer as a message; `None` where payload has none.
    #[must_use]
    fn trailer(_trailer: Trailer) -> Option<Self> {
        None
    }

    /// What this message says as a trailer; `None` if it is none.
    #[must_use]
    fn as_trailer(&self) -> Option<Trailer> {
        None
    }

    /// The answer that refuses a request whose payload a trailer takes back; `None` where payload has no trailer.
    #[must_use]
    fn refused(_refusal: Refusal) -> Option<Self> {
        None
    }
}

/// Every message: its stream, its name and its kind byte.
#[must_use]
pub fn kinds() -> Vec<(&'static str, &'static str, u8)> {
    let streams = [
        ("ClientControl", ClientControl::KINDS),
        ("ServerControl", ServerControl::KINDS),
        ("ClientData", ClientData::KINDS),
        ("ServerData", ServerData::KINDS),
    ];
    streams
        .into_iter()
        .flat_map(|(stream, kinds)| kinds.iter().map(move |&(name, kind)| (stream, name, kind)))
        .collect()
}

/// Whether any stream has a message of this kind. A known kind in the wrong stream is an offence; an unknown one
/// may come from a newer version and is refused politely.
#[must_use]
pub fn is_known(kind: u8) -> bool {
    kinds().iter().any(|&(_, _, known)| known == kind)
}

/// Declares one stream: an enum of message structs and their kind bytes.
macro_rules! stream {
    (@trailers) => {};
    (@trailers with trailers) => {
        const HAS_TRAILERS: bool = true;

        fn trailer(trailer: $crate::wire::data::Trailer) -> Option<Self> {
            Some(Self::Trailer(trailer))
        }

        fn as_trailer(&self) -> Option<$crate::wire::data::Trailer> {
            match self {
                Self::Trailer(trailer) => Some(*trailer),
                _ => None,
            }
        }

        fn refused(refusal: $crate::model::Refusal) -> Option<Self> {
            Some(Self::Refused($crate::wire::control::Refused { refusal }))
        }
    };
    ($(#[$doc:meta])* $stream:ident on $channel:ident $(, $with:ident $trailers:ident)? { $($(#[$item_doc:meta])* $name:ident = $kind:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $stream {
            $($(#[$item_doc])* $name($name),)+
        }

        impl $stream {
            /// The names and kind bytes of this stream's messages.
            pub const KINDS: &'static [(&'static str, u8)] = &[$((stringify!($name), $kind)),+];
        }

        impl $crate::wire::Message for $stream {
            const CHANNEL: $crate::model::ChannelKind = $crate::model::ChannelKind::$channel;

            fn kind(&self) -> u8 {
                match self { $(Self::$name(_) => $kind,)+ }
            }

            fn encode_body(&self, to: &mut Vec<u8>) {
                match self { $(Self::$name(message) => $crate::wire::codec::encode(message, to),)+ }
            }

            fn decode_body(kind: u8, body: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                match kind {
                    $($kind => $crate::wire::codec::decode(body).map(Self::$name),)+
                    other => Err($crate::wire::DecodeError::UnknownKind(other)),
                }
            }

            $crate::wire::message::stream!(@trailers $($with $trailers)?);
        }

        $(impl From<$name> for $stream {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })+
    };
}
pub(crate) use stream;
