//! Which running of this machine's system it is.

use crate::model::{BootId, Entropy as _, EntropyError};
use crate::net::SystemEntropy;

/// The running system's id, which the kernel draws when it starts. Where the kernel does not tell it, a random one stands
/// in: then what was kept under an earlier one is taken for lost, which is the safe side.
///
/// # Errors
/// [`EntropyError`] where a random one is needed and cannot be had.
pub fn boot_id() -> Result<BootId, EntropyError> {
    let told = std::fs::read_to_string(BOOT_ID).ok().and_then(|text| parse(&text));
    told.map_or_else(|| SystemEntropy.bytes().map(BootId), Ok)
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id that a UUID's text spells: 32 hexadecimal digits with dashes between them, and a line's end.
fn parse(text: &str) -> Option<BootId> {
    let digits: String = text.trim_end().chars().filter(|&digit| digit != '-').collect();
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok().map(BootId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_same_id_each_time() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn a_uuid_is_its_digits_and_anything_else_is_none() {
        let id =
            [0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0];
        assert_eq!(parse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n"), Some(BootId(id)));
        for other in ["", "\n", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1fg"]
        {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
