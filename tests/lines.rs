//! What each line carries, and that losing one loses nothing: real sockets, recorded.
#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a panic fails the test")]

mod support;

use bowline::client::{ChannelState, OpenOptions};
use bowline::model::{ChannelKind, LineRole, LineSet, Protection, SyncScope};
use support::recorder::Kind;
use support::{EXPORT, Entry, World, new_identity, pattern, shows};

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_readable_bulk_on_one_line_and_encrypted_requests_on_the_other() {
    let content = pattern(4 << 20);
    let world = World::start(&content).await;
    let session = world.connect([LineRole::Bulk, LineRole::Keys]).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    world.key_of(&file).await;
    let mut read = vec![0; content.len()];
    file.read_at(0, &mut read).await.unwrap();
    assert!(read == content);
    let written = pattern(100_000);
    file.write_at(1 << 20, &written).await.unwrap();
    file.sync(SyncScope::Data).await.unwrap();
    file.close().await.unwrap();
    session.close().await;

    let bulk = world.recordings(0);
    assert!(bulk.iter().all(|recording| recording.kind == Kind::BindData), "data channels only");
    assert!(bulk.iter().any(|recording| shows(&recording.to_client, &content)), "what was read is readable");
    assert!(
        bulk.iter().any(|recording| shows(&recording.to_server, &written)),
        "what was written is readable"
    );
    let keys = world.recordings(1);
    assert!(keys.iter().all(|recording| matches!(recording.kind, Kind::Session | Kind::BindControl)));
    let carried: usize =
        keys.iter().map(|recording| recording.to_server.len() + recording.to_client.len()).sum();
    assert!(carried < 20_000, "requests only: {carried} bytes");
    for recording in &keys {
        for bytes in [&recording.to_server, &recording.to_client] {
            assert!(!shows(bytes, &content) && !shows(bytes, &written));
            assert!(
                !bytes.windows(4).any(|window| window == b"file" || window == EXPORT.as_bytes()),
                "no name"
            );
        }
    }
    // World's end checks that no key is readable anywhere.
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_sealed_data_channels_show_nothing() {
    let content = pattern(4 << 20);
    let world = World::start(&content).await;
    let session = world.connect([LineRole::Both; 2]).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    world.key_of(&file).await;
    let mut read = vec![0; content.len()];
    file.read_at(0, &mut read).await.unwrap();
    assert!(read == content);
    file.write_at(0, &content).await.unwrap();
    for line in [0, 1] {
        for recording in world.recordings(line) {
            assert!(!shows(&recording.to_client, &content) && !shows(&recording.to_server, &content));
            // Not even a piece of 16 bytes, which is what a cipher in a wrong mode would show.
            let pieces = (0..content.len() - 16).step_by(64 << 10).map(|at| &content[at..at + 16]);
            for piece in pieces {
                assert!(!recording.to_client.windows(16).any(|window| window == piece));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_the_stricter_side_decides_the_protection() {
    let content = pattern(1 << 20);
    let identity = new_identity();
    let entry = Entry { protection: Protection::Sealed, ..Entry::all(identity.public()) };
    let world = World::with_clients(&content, identity, &[entry]).await;
    // The client would be content with signed on its bulk line; its entry at the server is not.
    let session = world.connect([LineRole::Bulk, LineRole::Keys]).await;
    let data = session.channels().into_iter().find(|status| status.kind == ChannelKind::Data).unwrap();
    assert_eq!(data.protection, Protection::Sealed);
    let file = world.open(&session, &read_write()).await.unwrap();
    file.read_chunk(0, 1 << 20).await.unwrap();
    for recording in world.data_recordings(0) {
        assert_eq!(recording.protection, Some(Protection::Signed), "what it asked for");
        assert!(!shows(&recording.to_client, &content));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_both_channels_through_one_interface() {
    let content = pattern(2 << 20);
    let world = World::start(&content).await;
    let session = world.connect_as(&world.identity, &world.peer_on(0)).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let key = world.key_of(&file).await;
    let duplicate = world.resume(&session, &key, LineSet::ALL).await.unwrap();
    let mut read = vec![0; content.len()];
    duplicate.read_at(0, &mut read).await.unwrap();
    assert!(read == content);
    let kinds: Vec<Kind> = world.recordings(0).iter().map(|recording| recording.kind).collect();
    assert!(kinds.contains(&Kind::Session) && kinds.contains(&Kind::BindData), "{kinds:?}");
    assert!(world.recordings(1).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_one_open_file_over_two_interfaces() {
    let content = pattern(32 << 20);
    let world = World::start(&content).await;
    let session = world.connect([LineRole::Both; 2]).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    world.key_of(&file).await;
    let mut bytes = file.read_ahead(0, None);
    let mut read = Vec::new();
    while let Some(chunk) = bytes.next().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert!(read == content);
    let data: Vec<_> =
        session.channels().into_iter().filter(|status| status.kind == ChannelKind::Data).collect();
    assert_eq!(data.len(), 2);
    let total: u64 = data.iter().map(|status| status.read_bytes).sum();
    assert!(total >= 32 << 20);
    for status in &data {
        assert_eq!(status.state, ChannelState::Live);
        assert!(status.read_bytes > 1 << 20, "both lines carried their part: {data:?}");
        let carried: u64 = world.recorders[usize::from(status.line.0)]
            .labels()
            .iter()
            .filter(|label| label.kind == Kind::BindData)
            .map(|label| label.to_client_len)
            .sum();
        assert!(carried > status.read_bytes, "the recorder between them agrees");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_in_the_middle_loses_nothing() {
    let content = pattern(32 << 20);
    let world = World::start(&content).await;
    let session = world.connect([LineRole::Both; 2]).await;
    let file = world.open(&session, &read_write()).await.unwrap();
    let mut bytes = file.read_ahead(0, None);
    let mut read = Vec::new();
    while let Some(chunk) = bytes.next().await.unwrap() {
        read.extend_from_slice(&chunk);
        if read.len() == 4 << 20 {
            world.recorders[0].refuse(true);
            assert!(world.recorders[0].cut_all() >= 2);
        }
    }
    assert!(read == content);
    drop(bytes);
    // Writes as well, and the line comes back into use by itself.
    world.recorders[0].refuse(false);
    session.all_lines_up(support::LONG).await.unwrap();
    let written = pattern(16 << 20);
    let (cut, wrote) = tokio::join!(
        async {
            world.recorders[1]
                .until(|labels| {
                    labels.iter().any(|label| label.kind == Kind::BindData && label.to_server_len > 1 << 20)
                })
                .await
                .unwrap();
            world.recorders[1].cut_all()
        },
        file.write_at(3, &written)
    );
    assert!(cut > 0);
    wrote.unwrap();
    file.sync(SyncScope::All).await.unwrap();
    let on_disk = std::fs::read(world.file("file")).unwrap();
    assert!(on_disk[3..3 + written.len()] == written[..] && on_disk[..3] == content[..3]);
}
