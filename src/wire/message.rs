//! What all messages have in common: the kind byte in the head, and the rule which channel may carry them.

use super::codec::DecodeError;
use super::{ClientControl, ClientData, ServerControl, ServerData};
use crate::model::ChannelKind;

/// A message that can stand in a record. The four implementors are the four streams there are; a writer for one
/// of them takes no message of another, so that what only a control channel may carry cannot reach a data
/// channel.
pub trait Message: Sized {
    /// The channels that carry it.
    const CHANNEL: ChannelKind;

    /// The kind byte.
    fn kind(&self) -> u8;

    /// Appends the body's bytes to `to`.
    fn encode_body(&self, to: &mut Vec<u8>);

    /// The message of `kind` with this body.
    ///
    /// # Errors
    /// [`DecodeError`] when there is no such kind in this stream, or the body is not its encoding.
    fn decode_body(kind: u8, body: &[u8]) -> Result<Self, DecodeError>;
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
    ($(#[$doc:meta])* $stream:ident on $channel:ident { $($(#[$item_doc:meta])* $name:ident = $kind:literal,)+ }) => {
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
        }

        $(impl From<$name> for $stream {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })+
    };
}
pub(crate) use stream;
