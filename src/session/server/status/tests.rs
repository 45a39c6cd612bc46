//! Pages of a large server's state, and what a page may cost.

use std::collections::BTreeMap;

use super::*;
use crate::model::{
    Access, BootId, CreateId, Entropy, EntropyError, Epoch, ExportPath, FileMark, Policy, ProtectionMinima,
    StoreId, SuiteSet, Verifier,
};
use crate::opens::{Admission, LockRequest};
use crate::session::server::{ServerKeys, ServerSetup};

/// No test here depends on a random byte.
struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(0);
        Ok(())
    }
}

const START: Time = Time(1_000_000);

/// Opens of ten clients in all, of which the list knows the first.
fn server() -> ServerCore<()> {
    let access = Access {
        name: "first".to_owned(),
        exports: ["data".parse().unwrap()].into(),
        rights: Rights::ALL,
        protection_min: Protection::Signed,
        expires_s: None,
    };
    let server_keys = ServerKeys { current: PublicKey([77; 32]), previous: None };
    ServerCore::new(ServerSetup {
        limits: Limits::default(),
        server_keys,
        policy: Policy { clients: BTreeMap::from([(PublicKey([0; 32]), access)]) },
        minima: ProtectionMinima::default(),
        suites: SuiteSet::ALWAYS,
        entropy: Box::new(Zeros),
        wall_start_us: 0,
        epoch: Epoch(1),
        verifier: Verifier { store: StoreId([1; 16]), boot: BootId([2; 16]), takeovers: 0 },
        stored: None,
    })
    .unwrap()
}

/// Puts open `n` into the table: of client `n % 10`, under an id that does not rise with `n`.
fn open(server: &mut ServerCore<()>, n: u64) -> (SessionId, HandleId, OpenId) {
    let client = u8::try_from(n % 10).unwrap();
    let mut create_id = [0; 16];
    create_id[..8].copy_from_slice(&n.to_le_bytes());
    let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let admission = Admission {
        session: SessionId([client; 16]),
        owner: PublicKey([client; 32]),
        open: OpenId(scattered),
        handle: HandleId(scattered),
        file: FileIdentity { device: 1, inode: n, born_ns: 0 },
        export: "data".parse().unwrap(),
        mode: OpenMode::READ_WRITE,
        rights: Rights::ALL,
        create_id: CreateId(create_id),
        grace: Duration::from_secs(60),
        lock: None,
        resumable: true,
        guard: false,
        path: ExportPath::new(*b"file").unwrap(),
        mark: FileMark { len: 0, changed_ns: 0 },
    };
    let (session, handle, open) = (admission.session, admission.handle, admission.open);
    server.table.admit(START, admission).unwrap();
    (session, handle, open)
}

/// All pages of at most `rows` rows.
fn pages(server: &ServerCore<()>, rows: usize) -> Vec<ServerStatus> {
    let mut pages = Vec::new();
    let mut next = Some(StatusQuery { rows, ..StatusQuery::default() });
    while let Some(query) = next {
        let page = server.status(START, query);
        next = page.next;
        pages.push(page);
    }
    pages
}

fn opens(pages: &[ServerStatus]) -> Vec<OpenId> {
    pages.iter().flat_map(|page| &page.opens).map(|open| open.open).collect()
}

#[test]
fn a_hundred_thousand_opens_come_in_pages_each_of_them_once() {
    let mut server = server();
    let mut expected: Vec<OpenId> = (0..100_000).map(|n| open(&mut server, n).2).collect();
    expected.sort();
    let pages = pages(&server, usize::MAX);
    assert_eq!(opens(&pages), expected);
    // Each has one holder, so a page has half as many opens as rows.
    assert!(pages.iter().all(|page| page.opens.len() <= Limits::STATUS_ROWS_MAX / 2));
    assert_eq!(pages.len(), 100_000_usize.div_ceil(Limits::STATUS_ROWS_MAX / 2));
    assert!(pages.iter().all(|page| page.counts.opens == 100_000));
}

#[test]
fn a_page_has_as_many_rows_as_were_asked_for_and_an_open_is_never_cut() {
    let mut server = server();
    let (session, handle, locked) = open(&mut server, 3);
    for at in 0..50 {
        let range = ByteRange::between(2 * at, 2 * at + 1).unwrap();
        let (mode, wait) = (LockMode::Shared, Duration::ZERO);
        let asked = LockRequest { request: crate::model::RequestId(at), range, mode, wait };
        server.table.lock(START, session, handle, asked).unwrap();
    }
    for n in 4..10 {
        open(&mut server, n);
    }
    let all = opens(&pages(&server, 1000));
    assert_eq!(all.len(), 7);
    for rows in [0, 1, 2, 3, 4, 51, 52, 53] {
        let pages = pages(&server, rows);
        assert_eq!(opens(&pages), all, "{rows} rows");
        for page in &pages {
            let len = |open: &OpenStatus| 1 + open.holders.len() + open.locks.len();
            let told: usize = page.opens.iter().map(len).sum();
            assert!(told <= rows || page.opens.len() == 1, "{told} rows instead of {rows}");
        }
        let found = pages.iter().flat_map(|page| &page.opens).find(|open| open.open == locked).unwrap();
        assert_eq!(found.locks.len(), 50);
    }
}

#[test]
fn an_open_that_goes_between_two_pages_takes_no_other_one_along() {
    let mut server = server();
    let ids: Vec<_> = (0..6).map(|n| open(&mut server, n)).collect();
    let first = server.status(START, StatusQuery { from: StatusFrom::Opens, rows: 4 });
    let last = first.opens.last().unwrap().open;
    let &(session, handle, _) = ids.iter().find(|(.., open)| *open == last).unwrap();
    server.table.begin_close(session, handle).unwrap();
    let mut rest = first.next.unwrap();
    rest.rows = 100;
    let second = server.status(START, rest);
    assert_eq!((first.opens.len(), second.opens.len(), second.next), (2, 4, None));
    assert!(second.opens.iter().all(|open| open.open > last));
}

#[test]
fn clients_have_the_names_of_the_list_and_handles_are_told_by_half() {
    let mut server = server();
    for n in [10, 11] {
        open(&mut server, n);
    }
    let status = server.status(START, StatusQuery::default());
    let names: BTreeMap<PublicKey, Option<&str>> =
        status.opens.iter().map(|open| (open.owner.key, open.owner.name.as_deref())).collect();
    let expected = [(PublicKey([0; 32]), Some("first")), (PublicKey([1; 32]), None)];
    assert_eq!(names, expected.into());
    for open in &status.opens {
        assert_eq!(u64::from(open.holders[0].handle), open.open.0 >> 32, "this test's handles are its opens");
        assert_eq!(open.holders[0].client, None, "its session is none of the server's");
    }
}

#[test]
fn a_grace_that_is_over_has_nothing_left() {
    let mut server = server();
    let (session, ..) = open(&mut server, 1);
    server.table.session_away(START, session);
    for (at, left) in [(0, 60), (59, 1), (60, 0), (100, 0)] {
        let at = START.after(Duration::from_secs(at));
        let status = server.status(at, StatusQuery::default());
        assert_eq!(status.opens[0].grace_left, Some(Duration::from_secs(left)));
        assert_eq!((status.opens[0].phase, status.counts.orphans), (OpenPhase::Orphaned, 1));
    }
    assert_eq!(server.table.opens_len(), 1, "to look changes nothing");
}
