//! How a file is open: what its holders may do and what others may do meanwhile.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! bit_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $bit:expr, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        pub struct $name(u8);

        impl $name {
            $($(#[$item_doc])* pub const $item: Self = Self($bit);)+
            /// Nothing of it.
            pub const NONE: Self = Self(0);
            /// All of it.
            pub const ALL: Self = Self($($bit)|+);

            /// What is in either.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// What is in both.
            #[must_use]
            pub const fn intersection(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// Whether all of `other` is in this.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The member that is written `text`.
            #[must_use]
            pub fn from_name(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$item),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut between = "";
                $(if self.contains(Self::$item) {
                    write!(f, "{between}{}", $text)?;
                    between = "|";
                })+
                if between.is_empty() { f.write_str("none") } else { Ok(()) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bits = u8::deserialize(deserializer)?;
                if bits & !Self::ALL.0 != 0 {
                    return Err(serde::de::Error::custom(concat!("unknown bit in ", stringify!($name))));
                }
                Ok(Self(bits))
            }
        }
    };
}

bit_set! {
    /// What a handle may be used for.
    Rights {
        /// Read bytes and attributes.
        READ = 1, "read";
        /// Write bytes.
        WRITE = 2, "write";
        /// Change byte-range locks and the share mode.
        LOCK = 4, "lock";
        /// Hand a subset of its rights to another identity.
        GRANT = 8, "grant";
        /// Add bytes at the end, and write nowhere else. [`Rights::WRITE`] has it in it: see [`Rights::permits`].
        APPEND = 16, "append";
    }
}

impl Rights {
    /// Any of the rights that touch a file's bytes.
    pub const BYTES: Self = Self::READ.union(Self::WRITE).union(Self::APPEND);

    /// These rights and what they have in them: who may write may append.
    #[must_use]
    pub const fn with_implied(self) -> Self {
        if self.contains(Self::WRITE) { self.union(Self::APPEND) } else { self }
    }

    /// Whether these rights are enough for `needed`.
    #[must_use]
    pub const fn permits(self, needed: Self) -> bool {
        self.with_implied().contains(needed)
    }

    /// Whether any of these rights changes a file's bytes.
    #[must_use]
    pub const fn is_writing(self) -> bool {
        self.permits(Self::APPEND)
    }
}

bit_set! {
    /// What other opens of the same file may do while this one lasts.
    ShareMode {
        /// Others may read.
        READ = 1, "read";
        /// Others may write.
        WRITE = 2, "write";
        /// Others may rename or remove the file.
        DELETE = 4, "delete";
    }
}

/// The mode in which a file is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenMode {
    /// What the opener wants to do; at least one of [`Rights::BYTES`].
    pub rights: Rights,
    /// What others may do meanwhile.
    pub share: ShareMode,
}

impl OpenMode {
    /// Read only; others may do what they like.
    pub const READ: Self = Self { rights: Rights::READ, share: ShareMode::ALL };
    /// Read and write; others may do what they like.
    pub const READ_WRITE: Self = Self { rights: Rights::READ.union(Rights::WRITE), share: ShareMode::ALL };

    /// The same rights, with everybody else kept out.
    #[must_use]
    pub const fn exclusive(self) -> Self {
        Self { rights: self.rights, share: ShareMode::NONE }
    }

    /// Whether this open keeps everybody else out.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self.share == ShareMode::NONE
    }

    /// Whether two opens of one file can exist side by side: each shares what the other does.
    #[must_use]
    pub fn is_compatible(self, other: Self) -> bool {
        self.share.contains(other.uses()) && other.share.contains(self.uses())
    }

    /// What others must share for this open: its reads and writes. An exclusive open that does neither does
    /// not exist, so exclusive conflicts with every other open.
    fn uses(self) -> ShareMode {
        let read = if self.rights.contains(Rights::READ) { ShareMode::READ } else { ShareMode::NONE };
        let write = if self.rights.is_writing() { ShareMode::WRITE } else { ShareMode::NONE };
        read.union(write)
    }
}

impl fmt::Display for OpenMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exclusive() {
            write!(f, "{}, exclusive", self.rights)
        } else {
            write!(f, "{}, sharing {}", self.rights, self.share)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_is_symmetric_and_exclusive_excludes() {
        let modes = [
            OpenMode::READ,
            OpenMode::READ_WRITE,
            OpenMode { rights: Rights::READ, share: ShareMode::READ },
            OpenMode::READ.exclusive(),
            OpenMode { rights: Rights::WRITE, share: ShareMode::READ },
        ];
        for a in modes {
            for b in modes {
                assert_eq!(a.is_compatible(b), b.is_compatible(a), "{a} and {b}");
                if a.is_exclusive() {
                    assert!(!a.is_compatible(b), "{a} beside {b}");
                }
            }
        }
        assert!(OpenMode::READ.is_compatible(OpenMode::READ_WRITE));
        assert!(
            !OpenMode { rights: Rights::READ, share: ShareMode::READ }.is_compatible(OpenMode::READ_WRITE)
        );
    }

    #[test]
    fn names_and_bits_agree() {
        assert_eq!(Rights::from_name("grant"), Some(Rights::GRANT));
        assert_eq!(Rights::from_name("delete"), None);
        assert_eq!(Rights::READ.union(Rights::LOCK).to_string(), "read|lock");
        assert_eq!(Rights::NONE.to_string(), "none");
    }
}
