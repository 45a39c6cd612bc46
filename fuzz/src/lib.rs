//! What each fuzz target does with its bytes. `tests/corpus.rs` includes this file and does the same with the
//! committed corpus, so that what a fuzzer once found is tried in every test run, on every toolchain.

use bowline::model::{Limits, ResumeKey, len_u64};
use bowline::wire::hello::{self, Hello};
use bowline::wire::{ClientControl, ClientData, Head, Message, ServerControl, ServerData};

/// A hello is refused, or it is the one encoding of what it says.
pub fn hello(bytes: &[u8]) {
    let started = bytes.first_chunk().map(|start| hello::start(*start));
    let Ok(hello) = Hello::decode(bytes) else { return };
    assert!(matches!(started, Some(Ok(_))), "a hello was decoded whose start is refused");
    assert_eq!(hello.prologue, hello::prologue(&hello.offer), "two prologues of one offer");
    assert_eq!(hello.checked, hello::checked(&hello.prologue, &hello.noise));
    assert_eq!([&hello.checked[..], &hello.mac1].concat(), bytes, "two hellos with one meaning");
}

/// A head is refused, or it is the one encoding of what it says, within the limits.
pub fn head(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk() else { return };
    let Ok(head) = Head::decode(bytes) else { return };
    assert!(u64::from(head.body_len) <= len_u64(Limits::BODY_LEN_MAX));
    assert!(u64::from(head.payload_len) <= len_u64(Limits::PAYLOAD_LEN_MAX));
    assert_eq!(&head.encode(), bytes, "two heads with one meaning");
}

/// The first byte is a kind, the others are a body: each stream refuses them, or they are the one encoding of
/// what they say.
pub fn body(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    decodes::<ClientControl>(*kind, body);
    decodes::<ServerControl>(*kind, body);
    decodes::<ClientData>(*kind, body);
    decodes::<ServerData>(*kind, body);
}

/// Whether `body` is a message of this kind in the stream `M`.
///
/// # Panics
/// If it is one, but not as that message is encoded.
pub fn decodes<M: Message>(kind: u8, body: &[u8]) -> bool {
    let Ok(message) = M::decode_body(kind, body) else { return false };
    assert_eq!(message.kind(), kind);
    let mut encoded = Vec::new();
    message.encode_body(&mut encoded);
    assert_eq!(encoded, body, "two bodies with one meaning");
    true
}

/// A text is refused, or it is the one text of its key.
pub fn resume_key_text(bytes: &[u8]) {
    let Some(key) = str::from_utf8(bytes).ok().and_then(|text| text.parse::<ResumeKey>().ok()) else {
        return;
    };
    assert_eq!(key.to_text().as_bytes(), bytes, "two texts of one key");
    assert!(ResumeKey::from_bytes(&key.to_bytes()) == key, "the binary form does not come back");
}
