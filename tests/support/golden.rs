//! The golden bytes of every message, and every field in which not all bytes spell something. A second account of
//! docs/protocol.md, beside the code.

/// Stream, sample, kind byte and body. Each group is a field of docs/protocol.md, in the order in which it stands
/// there; `03x16` is the byte 03 sixteen times, and what stands in quotes is text.
pub(crate) const GOLDEN: &[(&str, &str, u8, &str)] = &[
    // Offer (2 · 2), choice (2 · 16), instance (16), process id (4), purpose (4, and what it carries).
    ("ClientControl", "Begin", 0x01, "0100 0302  0200 03x16  04x16 67120000 00000000 00"),
    ("ClientControl", "Begin_in_place", 0x01, "0100 0302  0200 03x16  04x16 67120000 00000000 01 09x16"),
    ("ClientControl", "Begin_ask", 0x01, "0100 0302  0200 03x16  04x16 67120000 01000000 05x16"),
    // Locator (16), number (4), nonce (16), kind (4), protection (4), suite (4); then protection (4), suite (4).
    ("ClientControl", "Attach", 0x02, "01x16 07000000 02x16 00000000 02000000 00000000  02000000 00000000"),
    ("ClientControl", "Ping", 0x30, ""),
    ("ClientControl", "Pong", 0x31, ""),
    ("ClientControl", "Farewell", 0x32, ""),
    ("ClientControl", "Rekey", 0x34, ""),
    // Export (8 and text), path (8 and bytes), rights (1), share (1), create (4), truncate (1), permission bits (4), option
    // of a lock (1; mode (4), start (8), length (8)), resumable (1), create id (16), with key (1), grace (8), guard (1).
    (
        "ClientControl",
        "Open",
        0x10,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  03 00  02000000 01 a0010000  01 01000000 0a00000000000000 0b00000000000000  01  06x16 01 3075000000000000 01",
    ),
    (
        "ClientControl",
        "Open_shared",
        0x10,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0e 05  00000000 00 00000000  00  00  06x16 00 0000000000000000 00",
    ),
    // File id (8), time stamp (8), process id (4), generation (4), secret (16); predecessor (1, and 8), with key (1).
    (
        "ClientControl",
        "Resume",
        0x11,
        "1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre'  01 0807060504030201 00",
    ),
    (
        "ClientControl",
        "Resume_replacing_nothing",
        0x11,
        "1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre'  00 01",
    ),
    // Handle (8).
    ("ClientControl", "IssueKey", 0x12, "0807060504030201"),
    ("ClientControl", "Close", 0x13, "0807060504030201"),
    ("ClientControl", "Stat", 0x14, "0807060504030201"),
    // Handle (8), scope (4).
    ("ClientControl", "Sync", 0x15, "0807060504030201 00000000"),
    ("ClientControl", "Sync_all", 0x15, "0807060504030201 01000000"),
    // Handle (8), key (32), rights (1), time (8), delivered (1), given up (1).
    ("ClientControl", "Grant", 0x1c, "0807060504030201 15x32 05 80ee360000000000 01 00"),
    ("ClientControl", "Grant_move", 0x1c, "0807060504030201 15x32 05 0000000000000000 00 01"),
    // Handle (8), grant (8).
    ("ClientControl", "Revoke", 0x1d, "0807060504030201 2827262524232221"),
    ("ClientControl", "TakeGrant", 0x1e, "2827262524232221"),
    // Session (16), request (8), epoch (8).
    ("ClientControl", "Inquire", 0x1f, "19x16 2211000000000000 0300000000000000"),
    // Target (4; handle (8) or export and path), options of: length (8), permission bits (4), accessed and modified (4; 8).
    (
        "ClientControl",
        "Change",
        0x16,
        "00000000 0807060504030201  01 0700000000000000 01 a0010000 01 00000000 01 01000000 fe ffx7",
    ),
    (
        "ClientControl",
        "Change_of_a_name",
        0x16,
        "01000000 0500000000000000 'media'  0800000000000000 'films/a' ff  00 00 00 00",
    ),
    // Handle (8), start (8), length (8), how (4).
    ("ClientControl", "Allocate", 0x17, "0807060504030201 0a00000000000000 0b00000000000000 00000000"),
    ("ClientControl", "Allocate_keep", 0x17, "0807060504030201 0a00000000000000 0b00000000000000 01000000"),
    ("ClientControl", "Allocate_punch", 0x17, "0807060504030201 0a00000000000000 0b00000000000000 02000000"),
    // Handle (8), offset (8), what (4).
    ("ClientControl", "Seek", 0x18, "0807060504030201 0900000000000000 00000000"),
    ("ClientControl", "Seek_hole", 0x18, "0807060504030201 0900000000000000 01000000"),
    // Handle (8), mode (4), start (8), length (8), wait (8).
    (
        "ClientControl",
        "Lock",
        0x19,
        "0807060504030201 01000000 0a00000000000000 0b00000000000000 8813000000000000",
    ),
    (
        "ClientControl",
        "Lock_shared",
        0x19,
        "0807060504030201 00000000 0a00000000000000 0b00000000000000 0000000000000000",
    ),
    ("ClientControl", "Unlock", 0x1a, "0807060504030201 0a00000000000000 0b00000000000000"),
    ("ClientControl", "CancelLock", 0x1b, "0c00000000000000"),
    ("ClientControl", "Heard", 0x33, "0300000000000000"),
    // Export, path; follow (1).
    ("ClientControl", "Lookup", 0x40, "0500000000000000 'media'  0800000000000000 'films/a' ff  01"),
    // Export, path; option of a cookie (1, and 24), with attributes (1).
    ("ClientControl", "List", 0x41, "0500000000000000 'media'  0800000000000000 'films/a' ff  01 04x24 01"),
    ("ClientControl", "List_from_the_start", 0x41, "0500000000000000 'media'  0000000000000000  00 00"),
    ("ClientControl", "ReadLink", 0x42, "0500000000000000 'media'  0800000000000000 'films/a' ff"),
    ("ClientControl", "StatSpace", 0x43, "0500000000000000 'media'  0800000000000000 'films/a' ff"),
    // Export, path; permission bits (4).
    (
        "ClientControl",
        "MakeDirectory",
        0x44,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  ed010000",
    ),
    // Export, path; what (4).
    ("ClientControl", "Remove", 0x45, "0500000000000000 'media'  0800000000000000 'films/a' ff  00000000"),
    (
        "ClientControl",
        "Remove_directory",
        0x45,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  01000000",
    ),
    // Export, from, to; how (4).
    (
        "ClientControl",
        "Rename",
        0x46,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0100000000000000 'b'  00000000",
    ),
    (
        "ClientControl",
        "Rename_no_replace",
        0x46,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0100000000000000 'b'  01000000",
    ),
    (
        "ClientControl",
        "Rename_exchange",
        0x46,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0100000000000000 'b'  02000000",
    ),
    // Export, path; target (8 and bytes).
    (
        "ClientControl",
        "Symlink",
        0x47,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0400000000000000 '../x'",
    ),
    (
        "ClientControl",
        "HardLink",
        0x48,
        "0500000000000000 'media'  0800000000000000 'films/a' ff  0100000000000000 'b'",
    ),
    // Target; name (8 and bytes), and how (4).
    (
        "ClientControl",
        "XattrGet",
        0x49,
        "01000000 0500000000000000 'media'  0800000000000000 'films/a' ff  0800000000000000 'user.tag'",
    ),
    ("ClientControl", "XattrSet", 0x4a, "00000000 0807060504030201  0800000000000000 'user.tag'  00000000"),
    (
        "ClientControl",
        "XattrSet_create",
        0x4a,
        "00000000 0807060504030201  0800000000000000 'user.tag'  01000000",
    ),
    (
        "ClientControl",
        "XattrSet_replace",
        0x4a,
        "00000000 0807060504030201  0800000000000000 'user.tag'  02000000",
    ),
    ("ClientControl", "XattrList", 0x4b, "00000000 0807060504030201"),
    ("ClientControl", "XattrRemove", 0x4c, "00000000 0807060504030201  0800000000000000 'user.tag'"),
    // Offer, choice; answer (4), locator (16), session secret (32), requests (4), bytes (8), longest payload (4),
    // suites (1), epoch (8), store (16), boot (16), take-overs (8).
    (
        "ServerControl",
        "Welcome",
        0x81,
        "0100 0302  0200 03x16  00000000 01x16 07x32 40000000 0000800000000000 00001000 03  3100000000000000 32x16 33x16 3400000000000000",
    ),
    ("ServerControl", "Welcome_lives", 0x81, "0100 0302  0200 03x16  01000000"),
    ("ServerControl", "Welcome_gone", 0x81, "0100 0302  0200 03x16  02000000"),
    ("ServerControl", "Attached", 0x82, "01x16 07000000 02x16 00000000 02000000 00000000  02000000 00000000"),
    ("ServerControl", "Ping", 0x30, ""),
    ("ServerControl", "Pong", 0x31, ""),
    ("ServerControl", "Farewell", 0x32, ""),
    ("ServerControl", "Rekey", 0x34, ""),
    // Handle (8); rights (1), share (1), rights of the handle (1); kind (4), length (8), storage (8), permission bits (4),
    // links (8), accessed (8), modified (8), changed (8); option of a resume key (1, and 40), option of what became of the file (1, and 4).
    (
        "ServerControl",
        "Opened",
        0x90,
        "0807060504030201  1f 07 09  00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000 \
         01 1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre' 00",
    ),
    (
        "ServerControl",
        "Opened_again",
        0x90,
        "0807060504030201  1f 07 09  00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000 \
         01 1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre' 01 01000000",
    ),
    (
        "ServerControl",
        "Opened_without_key",
        0x90,
        "0807060504030201  1f 07 09  00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000  00 00",
    ),
    (
        "ServerControl",
        "Opened_again_without_key",
        0x90,
        "0807060504030201  1f 07 09  00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000  00 01 03000000",
    ),
    (
        "ServerControl",
        "KeyIssued",
        0x92,
        "01 1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre'",
    ),
    ("ServerControl", "KeyIssued_again", 0x92, "00"),
    ("ServerControl", "Closed", 0x93, ""),
    (
        "ServerControl",
        "Stated",
        0x94,
        "1f 07 09  00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000",
    ),
    ("ServerControl", "Synced", 0x95, ""),
    // Reason (4), retry after (8).
    ("ServerControl", "Refused", 0x9f, "02000000 dc05000000000000"),
    ("ServerControl", "Refused_for_good", 0x9f, "0f000000 0000000000000000"),
    // Reason (4).
    ("ServerControl", "Ended", 0xb0, "01000000"),
    ("ServerControl", "Ended_not_allowed", 0xb0, "00000000"),
    (
        "ServerControl",
        "Changed",
        0x96,
        "00000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000",
    ),
    ("ServerControl", "Done", 0x97, ""),
    ("ServerControl", "Sought", 0x98, "01 0d00000000000000"),
    ("ServerControl", "Sought_nothing", 0x98, "00"),
    // Handle (8), start (8), length (8).
    ("ServerControl", "Locked", 0x99, "0807060504030201 0a00000000000000 0b00000000000000"),
    ("ServerControl", "LockQueued", 0x9a, ""),
    // Notice (8), request (8), outcome (4; handle, start and length, or reason (4) and retry after (8)).
    (
        "ServerControl",
        "LockEnded",
        0xb1,
        "0200000000000000 0300000000000000 00000000 0807060504030201 0a00000000000000 0b00000000000000",
    ),
    (
        "ServerControl",
        "LockEnded_refused",
        0xb1,
        "0400000000000000 0500000000000000 01000000 02000000 dc05000000000000",
    ),
    // Handle (8), grant (8), option of a resume key (1, and 40).
    (
        "ServerControl",
        "Granted",
        0x9c,
        "0807060504030201 2827262524232221 01 1817161514131211 00401e18240a0600 67120000 01000000 'a seed, no secre'",
    ),
    // What became of it (4; offset (8), written (4)).
    ("ServerControl", "Outcome", 0x9d, "00000000"),
    ("ServerControl", "Outcome_appended", 0x9d, "01000000 0010000000000000 20000000"),
    ("ServerControl", "Outcome_none", 0x9d, "02000000"),
    ("ServerControl", "Outcome_unknown", 0x9d, "03000000"),
    ("ServerControl", "Granted_without_key", 0x9c, "0807060504030201 2827262524232221 00"),
    // Notice (8), grant (8), key (32), export, path, rights (1).
    (
        "ServerControl",
        "GrantOffered",
        0xb2,
        "0600000000000000 2827262524232221 15x32 0500000000000000 'media'  0800000000000000 'films/a' ff  05",
    ),
    // Notice (8), handle (8), reason (4), retry after (8).
    ("ServerControl", "HandleEnded", 0xb3, "0700000000000000 0807060504030201 1f000000 0000000000000000"),
    (
        "ServerControl",
        "Found",
        0xc0,
        "01000000 0010000000000000 0020000000000000 a0010000 0200000000000000 00105e5f00000000 ffx8 00f1536500000000",
    ),
    ("ServerControl", "Listed", 0xc1, "01 05x24"),
    ("ServerControl", "Listed_the_last", 0xc1, "00"),
    ("ServerControl", "Link", 0xc2, "0400000000000000 '../x'"),
    (
        "ServerControl",
        "SpaceStated",
        0xc3,
        "0900000000000000 0800000000000000 0700000000000000 0600000000000000 0500000000000000",
    ),
    ("ServerControl", "XattrValue", 0xc9, ""),
    ("ServerControl", "XattrNames", 0xcb, ""),
    ("ClientData", "Attach", 0x02, "01x16 07000000 02x16 01000000 01000000 00000000  02000000 00000000"),
    ("ClientData", "Ping", 0x30, ""),
    ("ClientData", "Pong", 0x31, ""),
    ("ClientData", "Farewell", 0x32, ""),
    ("ClientData", "Rekey", 0x34, ""),
    // Handle (8), offset (8), length (4).
    ("ClientData", "Read", 0x20, "0807060504030201 0000000000010000 00000800"),
    // Handle (8), offset (8).
    ("ClientData", "Write", 0x21, "0807060504030201 ffx8"),
    ("ClientData", "Append", 0x22, "0807060504030201"),
    ("ServerData", "Attached", 0x82, "01x16 07000000 02x16 01000000 01000000 00000000  02000000 00000000"),
    ("ServerData", "Ping", 0x30, ""),
    ("ServerData", "Pong", 0x31, ""),
    ("ServerData", "Farewell", 0x32, ""),
    ("ServerData", "Rekey", 0x34, ""),
    ("ServerData", "ReadDone", 0xa0, ""),
    // Valid (4), option of a refusal (1; reason (4), retry after (8)).
    ("ServerData", "Trailer", 0xa3, "11000000 00"),
    ("ServerData", "Trailer_refused", 0xa3, "00000000 01 0f000000 0000000000000000"),
    // Written (4), stability (4).
    ("ServerData", "WriteDone", 0xa1, "00100000 01000000"),
    ("ServerData", "WriteDone_received", 0xa1, "00000000 00000000"),
    // Offset (8), written (4), stability (4).
    ("ServerData", "AppendDone", 0xa2, "0e00000000000000 0f000000 00000000"),
    ("ServerData", "Refused", 0x9f, "02000000 dc05000000000000"),
];

/// What can be wrong with a field.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// One of so many variants that carry nothing, in 32 bits.
    Variant(u32),
    /// The same, where some carry fields.
    Carrying(u32),
    /// A byte that is 0 or 1: a truth, or whether an option's value follows.
    Tag,
    /// A byte with these bits.
    Bits(u8),
    /// A 64-bit length, and so many bytes.
    Text(usize),
}

/// Every field that not all bytes spell: stream, the samples that have it, where, and what it is.
pub(crate) const FIELDS: &[(&str, &[&str], usize, Field)] = &[
    ("ClientControl", &["Begin", "Begin_in_place", "Begin_ask"], 42, Field::Carrying(2)),
    ("ClientControl", &["Begin", "Begin_in_place"], 46, Field::Tag),
    ("ServerControl", &["Welcome", "Welcome_lives", "Welcome_gone"], 22, Field::Carrying(3)),
    ("ServerControl", &["Welcome"], 90, Field::Bits(0b11)),
    ("ClientControl", &["Attach"], 36, Field::Variant(2)),
    ("ClientControl", &["Attach"], 40, Field::Variant(3)),
    ("ClientControl", &["Attach"], 44, Field::Variant(2)),
    ("ClientControl", &["Attach"], 48, Field::Variant(3)),
    ("ClientControl", &["Attach"], 52, Field::Variant(2)),
    ("ServerControl", &["Attached"], 36, Field::Variant(2)),
    ("ServerControl", &["Attached"], 40, Field::Variant(3)),
    ("ServerControl", &["Attached"], 44, Field::Variant(2)),
    ("ServerControl", &["Attached"], 48, Field::Variant(3)),
    ("ServerControl", &["Attached"], 52, Field::Variant(2)),
    ("ClientData", &["Attach"], 36, Field::Variant(2)),
    ("ClientData", &["Attach"], 40, Field::Variant(3)),
    ("ClientData", &["Attach"], 44, Field::Variant(2)),
    ("ClientData", &["Attach"], 48, Field::Variant(3)),
    ("ClientData", &["Attach"], 52, Field::Variant(2)),
    ("ServerData", &["Attached"], 36, Field::Variant(2)),
    ("ServerData", &["Attached"], 40, Field::Variant(3)),
    ("ServerData", &["Attached"], 44, Field::Variant(2)),
    ("ServerData", &["Attached"], 48, Field::Variant(3)),
    ("ServerData", &["Attached"], 52, Field::Variant(2)),
    ("ClientControl", &["Open", "Open_shared"], 0, Field::Text(5)),
    ("ClientControl", &["Open", "Open_shared"], 13, Field::Text(8)),
    ("ClientControl", &["Open", "Open_shared"], 29, Field::Bits(0b1_1111)),
    ("ClientControl", &["Open", "Open_shared"], 30, Field::Bits(0b111)),
    ("ClientControl", &["Open", "Open_shared"], 31, Field::Variant(3)),
    ("ClientControl", &["Open", "Open_shared"], 35, Field::Tag),
    ("ClientControl", &["Open", "Open_shared"], 40, Field::Tag),
    ("ClientControl", &["Open"], 41, Field::Variant(2)),
    ("ClientControl", &["Open"], 61, Field::Tag),
    ("ClientControl", &["Open"], 78, Field::Tag),
    ("ClientControl", &["Open"], 87, Field::Tag),
    ("ClientControl", &["Open_shared"], 41, Field::Tag),
    ("ClientControl", &["Open_shared"], 58, Field::Tag),
    ("ClientControl", &["Open_shared"], 67, Field::Tag),
    ("ClientControl", &["Resume", "Resume_replacing_nothing"], 40, Field::Tag),
    ("ClientControl", &["Resume"], 49, Field::Tag),
    ("ClientControl", &["Resume_replacing_nothing"], 41, Field::Tag),
    ("ClientControl", &["Sync", "Sync_all"], 8, Field::Variant(2)),
    ("ServerControl", OPENED, 8, Field::Bits(0b1_1111)),
    ("ServerControl", OPENED, 9, Field::Bits(0b111)),
    ("ServerControl", OPENED, 10, Field::Bits(0b1_1111)),
    ("ServerControl", OPENED, 11, Field::Variant(4)),
    ("ServerControl", OPENED, 67, Field::Tag),
    ("ServerControl", &["Opened", "Opened_again"], 108, Field::Tag),
    ("ServerControl", &["Opened_again"], 109, Field::Variant(4)),
    ("ServerControl", &["Opened_without_key", "Opened_again_without_key"], 68, Field::Tag),
    ("ServerControl", &["Opened_again_without_key"], 69, Field::Variant(4)),
    ("ServerControl", &["KeyIssued", "KeyIssued_again"], 0, Field::Tag),
    ("ServerControl", &["Granted", "Granted_without_key"], 16, Field::Tag),
    (
        "ServerControl",
        &["Outcome", "Outcome_appended", "Outcome_none", "Outcome_unknown"],
        0,
        Field::Carrying(4),
    ),
    ("ServerControl", &["GrantOffered"], 47, Field::Bits(0x7f)),
    ("ServerControl", &["GrantOffered"], 48, Field::Text(5)),
    ("ServerControl", &["GrantOffered"], 61, Field::Text(8)),
    ("ServerControl", &["GrantOffered"], 77, Field::Bits(0b1_1111)),
    ("ServerControl", &["HandleEnded"], 16, Field::Variant(32)),
    ("ServerControl", &["Stated"], 0, Field::Bits(0b1_1111)),
    ("ServerControl", &["Stated"], 1, Field::Bits(0b111)),
    ("ServerControl", &["Stated"], 2, Field::Bits(0b1_1111)),
    ("ServerControl", &["Stated"], 3, Field::Variant(4)),
    ("ServerControl", &["Changed", "Found"], 0, Field::Variant(4)),
    ("ServerControl", &["Sought", "Sought_nothing", "Listed", "Listed_the_last"], 0, Field::Tag),
    ("ServerControl", &["LockEnded", "LockEnded_refused"], 16, Field::Carrying(2)),
    ("ServerControl", &["LockEnded_refused"], 20, Field::Variant(32)),
    ("ServerControl", &["Link"], 0, Field::Text(4)),
    ("ClientControl", &["Change", "Change_of_a_name"], 0, Field::Carrying(2)),
    ("ClientControl", &["Change_of_a_name", "XattrGet"], 4, Field::Text(5)),
    ("ClientControl", &["Change_of_a_name", "XattrGet"], 17, Field::Text(8)),
    ("ClientControl", &["Change_of_a_name"], 33, Field::Tag),
    ("ClientControl", &["Change_of_a_name"], 34, Field::Tag),
    ("ClientControl", &["Change_of_a_name"], 35, Field::Tag),
    ("ClientControl", &["Change_of_a_name"], 36, Field::Tag),
    ("ClientControl", &["Change"], 12, Field::Tag),
    ("ClientControl", &["Change"], 21, Field::Tag),
    ("ClientControl", &["Change"], 26, Field::Tag),
    ("ClientControl", &["Change"], 27, Field::Carrying(2)),
    ("ClientControl", &["Change"], 31, Field::Tag),
    ("ClientControl", &["Change"], 32, Field::Carrying(2)),
    ("ClientControl", &["Allocate", "Allocate_keep", "Allocate_punch"], 24, Field::Variant(3)),
    ("ClientControl", &["Seek", "Seek_hole"], 16, Field::Variant(2)),
    ("ClientControl", &["Lock", "Lock_shared"], 8, Field::Variant(2)),
    ("ClientControl", &["Grant", "Grant_move"], 39, Field::Bits(0x7f)),
    ("ClientControl", &["Grant", "Grant_move"], 40, Field::Bits(0b1_1111)),
    ("ClientControl", &["Grant", "Grant_move"], 49, Field::Tag),
    ("ClientControl", &["Grant", "Grant_move"], 50, Field::Tag),
    ("ClientControl", PLACES, 0, Field::Text(5)),
    ("ClientControl", PLACES, 13, Field::Text(8)),
    ("ClientControl", &["Lookup"], 29, Field::Tag),
    ("ClientControl", &["List"], 29, Field::Tag),
    ("ClientControl", &["List"], 54, Field::Tag),
    ("ClientControl", &["List_from_the_start"], 0, Field::Text(5)),
    ("ClientControl", &["List_from_the_start"], 13, Field::Text(0)),
    ("ClientControl", &["List_from_the_start"], 21, Field::Tag),
    ("ClientControl", &["List_from_the_start"], 22, Field::Tag),
    ("ClientControl", &["Remove", "Remove_directory"], 29, Field::Variant(2)),
    ("ClientControl", RENAMES, 29, Field::Text(1)),
    ("ClientControl", &["Rename", "Rename_no_replace", "Rename_exchange"], 38, Field::Variant(3)),
    ("ClientControl", &["Symlink"], 29, Field::Text(4)),
    ("ClientControl", &["XattrGet"], 0, Field::Carrying(2)),
    ("ClientControl", &["XattrGet"], 33, Field::Text(8)),
    ("ClientControl", XATTRS, 0, Field::Carrying(2)),
    ("ClientControl", XATTRS_NAMED, 12, Field::Text(8)),
    ("ClientControl", &["XattrSet", "XattrSet_create", "XattrSet_replace"], 28, Field::Variant(3)),
    ("ServerControl", &["Refused", "Refused_for_good"], 0, Field::Variant(32)),
    ("ServerControl", &["Ended", "Ended_not_allowed"], 0, Field::Variant(2)),
    ("ServerData", &["Refused"], 0, Field::Variant(32)),
    ("ServerData", &["Trailer", "Trailer_refused"], 4, Field::Tag),
    ("ServerData", &["Trailer_refused"], 5, Field::Variant(32)),
    ("ServerData", &["WriteDone", "WriteDone_received"], 4, Field::Variant(2)),
    ("ServerData", &["AppendDone"], 12, Field::Variant(2)),
];

/// The samples of a handle that was given.
const OPENED: &[&str] = &["Opened", "Opened_again", "Opened_without_key", "Opened_again_without_key"];

/// The samples that begin with an export and a path.
const PLACES: &[&str] = &[
    "Lookup",
    "List",
    "ReadLink",
    "StatSpace",
    "MakeDirectory",
    "Remove",
    "Remove_directory",
    "Rename",
    "Rename_no_replace",
    "Rename_exchange",
    "Symlink",
    "HardLink",
];

/// The samples with a second path.
const RENAMES: &[&str] = &["Rename", "Rename_no_replace", "Rename_exchange", "HardLink"];

/// The samples about extended attributes of a handle's file.
const XATTRS: &[&str] = &["XattrSet", "XattrSet_create", "XattrSet_replace", "XattrList", "XattrRemove"];

/// Those of them with a name.
const XATTRS_NAMED: &[&str] = &["XattrSet", "XattrSet_create", "XattrSet_replace", "XattrRemove"];
