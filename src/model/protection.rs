//! How a channel is protected, what kind of channel it is, and what a line may carry.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$item_doc])* $item,)+ }

        impl $name {
            /// All of them, in order.
            pub const EACH: &'static [Self] = &[$(Self::$item),+];

            /// The word for it, in configuration, messages and tables.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            /// # Errors
            /// A sentence that lists the words there are.
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$item),)+
                    _ => Err(format!("\"{}\" is none of {}", text.escape_debug(), [$($text),+].join(", "))),
                }
            }
        }
    };
}
pub(super) use named_enum;

named_enum! {
    /// Protection of a channel, weakest first, so that the stricter of two is their maximum.
    Protection {
        /// Heads and bodies are authenticated and readable. Payload is readable and not authenticated: whoever can
        /// change the wire can change file bytes unnoticed, and nothing else. Only where both sides ask for it.
        Clear = "clear",
        /// Everything is authenticated and readable.
        Signed = "signed",
        /// Everything is authenticated, bodies and payload are encrypted.
        Sealed = "sealed",
    }
}

named_enum! {
    /// What a channel carries.
    ChannelKind {
        /// Everything that bears secrets or names; always sealed.
        Control = "control",
        /// Reads, writes, their answers and their payload; nothing else.
        Data = "data",
    }
}

named_enum! {
    /// What the user wants to see on a line.
    LineRole {
        /// Control and data channels.
        Both = "both",
        /// Data channels only.
        Bulk = "bulk",
        /// Control channels only.
        Keys = "keys",
    }
}

named_enum! {
    /// The cipher of a channel's records.
    Suite {
        /// ChaCha20-Poly1305 (RFC 8439): always there, and the only one on control channels.
        ChaCha20Poly1305 = "chacha20-poly1305",
        /// AEGIS-128X2 (draft-irtf-cfrg-aegis-aead) with tags of 128 bits: data channels only, where the processors of
        /// both ends have instructions for AES.
        Aegis128X2 = "aegis-128x2",
    }
}

/// Some of the suites there are. On the wire it is one byte, one bit for each suite in the order of [`Suite::EACH`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct SuiteSet(u8);

impl SuiteSet {
    /// The suite that every end has.
    pub const ALWAYS: Self = Self::of(Suite::ChaCha20Poly1305);

    /// The set of one suite.
    #[must_use]
    pub const fn of(suite: Suite) -> Self {
        match suite {
            Suite::ChaCha20Poly1305 => Self(1),
            Suite::Aegis128X2 => Self(2),
        }
    }

    /// The set with another suite in it.
    #[must_use]
    pub const fn with(self, suite: Suite) -> Self {
        Self(self.0 | Self::of(suite).0)
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether `suite` is in the set.
    #[must_use]
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & Self::of(suite).0 != 0
    }

    /// The suites of the set, in the order of [`Suite::EACH`].
    pub fn iter(self) -> impl Iterator<Item = Suite> {
        Suite::EACH.iter().copied().filter(move |&suite| self.contains(suite))
    }

    /// The suite that a channel of `kind` is to use, among those that both ends have: control channels have one, and
    /// on data channels the fastest wins.
    #[must_use]
    pub fn best_for(self, kind: ChannelKind) -> Suite {
        match kind {
            ChannelKind::Data if self.contains(Suite::Aegis128X2) => Suite::Aegis128X2,
            ChannelKind::Control | ChannelKind::Data => Suite::ChaCha20Poly1305,
        }
    }
}

impl From<SuiteSet> for u8 {
    fn from(suites: SuiteSet) -> Self {
        suites.0
    }
}

impl TryFrom<u8> for SuiteSet {
    type Error = &'static str;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        let all = Suite::EACH.iter().fold(0, |bits, &suite| bits | Self::of(suite).0);
        if bits & !all == 0 { Ok(Self(bits)) } else { Err("a suite that this version does not know") }
    }
}

impl fmt::Display for SuiteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Suite::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

impl LineRole {
    /// Whether a line of this role may carry a channel of `kind`.
    #[must_use]
    pub fn carries(self, kind: ChannelKind) -> bool {
        matches!(
            (self, kind),
            (Self::Both, _) | (Self::Bulk, ChannelKind::Data) | (Self::Keys, ChannelKind::Control)
        )
    }

    /// The protection of data channels where nobody asks for another one; never [`Protection::Clear`].
    #[must_use]
    pub fn default_protection(self) -> Protection {
        match self {
            Self::Bulk => Protection::Signed,
            Self::Both | Self::Keys => Protection::Sealed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_protection_is_the_greater() {
        assert_eq!(Protection::Signed.max(Protection::Sealed), Protection::Sealed);
        assert_eq!(Protection::Clear.max(Protection::Signed), Protection::Signed);
    }

    #[test]
    fn roles_keep_their_traffic() {
        assert!(LineRole::Both.carries(ChannelKind::Control) && LineRole::Both.carries(ChannelKind::Data));
        assert!(!LineRole::Bulk.carries(ChannelKind::Control) && LineRole::Bulk.carries(ChannelKind::Data));
        assert!(LineRole::Keys.carries(ChannelKind::Control) && !LineRole::Keys.carries(ChannelKind::Data));
    }

    #[test]
    fn sets_of_suites_hold_what_was_put_in() {
        let both = SuiteSet::ALWAYS.with(Suite::Aegis128X2);
        assert_eq!(both.iter().collect::<Vec<_>>(), Suite::EACH);
        assert_eq!(both.intersection(SuiteSet::ALWAYS), SuiteSet::ALWAYS);
        assert!(!SuiteSet::ALWAYS.contains(Suite::Aegis128X2));
        assert_eq!(both.to_string(), "chacha20-poly1305, aegis-128x2");
        assert_eq!((SuiteSet::try_from(3), SuiteSet::try_from(4).is_err()), (Ok(both), true));
        assert_eq!(both.best_for(ChannelKind::Data), Suite::Aegis128X2);
        assert_eq!(both.best_for(ChannelKind::Control), Suite::ChaCha20Poly1305);
        assert_eq!(SuiteSet::ALWAYS.best_for(ChannelKind::Data), Suite::ChaCha20Poly1305);
    }

    #[test]
    fn words_parse_and_print() {
        for role in LineRole::EACH {
            assert_eq!(role.to_string().parse::<LineRole>().unwrap(), *role);
        }
        assert!("Bulk".parse::<LineRole>().unwrap_err().contains("both, bulk, keys"));
    }
}
