//! The acts between real machines: a server that is in the list of peers, two interfaces of this one, and a cable that
//! somebody pulls.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline::client::{ChannelState, Client, LineConfig, OpenOptions, Peer, Peers, Session, parse_via};
use bowline::model::{ChannelKind, LineRole, LineSet};
use bowline::net::{Clock, Via, key_file};
use bowline::secure::Identity;

use super::{Outcome, check, digest_of, expect, mib_per_s, short, table};

/// How the example is called.
pub(super) const USAGE: &str =
    "two_interfaces [--peer PEER --via INTERFACE_OR_ADDRESS --via INTERFACE_OR_ADDRESS EXPORT/PATH]";
/// How long a cable is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is played, and where.
pub(super) struct Stage {
    peer: String,
    vias: [Via; 2],
    export: String,
    path: String,
}

impl Stage {
    /// What the arguments say.
    pub(super) fn parse(arguments: &[String]) -> Outcome<Self> {
        let (mut peer, mut vias, mut file) = (None, Vec::new(), None);
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--peer" => peer = rest.next().cloned(),
                "--via" => vias.push(rest.next().and_then(|via| parse_via(via)).ok_or(USAGE)?),
                other => file = other.split_once('/'),
            }
        }
        let (export, path) = file.ok_or(USAGE)?;
        let vias = <[Via; 2]>::try_from(vias).map_err(|_| USAGE)?;
        Ok(Self { peer: peer.ok_or(USAGE)?, vias, export: export.to_owned(), path: path.to_owned() })
    }

    /// The peer over one line from each interface, to its addresses in their order.
    fn peer(&self, known: &Peer, roles: [LineRole; 2]) -> Peer {
        let addresses = known.lines.iter().map(|line| line.address).cycle();
        let lines = self.vias.iter().zip(addresses).zip(roles);
        let lines = lines.map(|((via, address), role)| LineConfig {
            via: Some(via.clone()),
            role,
            ..LineConfig::new(address)
        });
        Peer { lines: lines.collect(), ..known.clone() }
    }
}

/// The folder with this user's settings.
pub(super) fn settings() -> Outcome<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    Ok(home.ok_or("neither HOME nor XDG_CONFIG_HOME is set")?.join("bowline"))
}

/// Plays the three acts with a server that is running, as whom and with whom the settings say.
pub(super) async fn play(stage: Stage, settings: &Path) -> Outcome<()> {
    let identity = Arc::new(Identity::from_text(&key_file::read(&settings.join("key"))?)?);
    let known = Peers::load(&settings.join("peers.toml"))?;
    let known = known.named(&stage.peer).ok_or("there is no such peer: bowline peer ls")?;
    let connect = async |roles| -> Outcome<Session> {
        let session = Client::new(Arc::clone(&identity))?.connect(&stage.peer(known, roles)).await?;
        session.all_lines_up(Duration::from_secs(10)).await?;
        Ok(session)
    };

    println!("Act 1: the split. {} is for bulk data, {} for keys.", stage.vias[0], stage.vias[1]);
    let session = connect([LineRole::Bulk, LineRole::Keys]).await?;
    let first = session.open(&stage.export, &stage.path, &OpenOptions::new().read(true)).await?;
    let key = first.resume_key().await?;
    let duplicate = session.resume(&key, LineSet::ALL).await?;
    let digest = digest_of(&duplicate).await?;
    println!("  the duplicate's bytes: digest {}", short(&digest));
    table(&session);
    duplicate.close().await?;
    first.leave_open();
    session.close().await;

    println!(
        "\nAct 2: the sum. The file of act 1 is still open; its key brings a handle that uses both lines."
    );
    let session = connect([LineRole::Both; 2]).await?;
    let file = session.resume(&key, LineSet::ALL).await?;
    let (len, begin) = (file.state().attributes.len, Clock.now());
    check("the bytes over both lines", &digest_of(&file).await?, &digest)?;
    println!("  both lines together: {} MiB/s", mib_per_s(len, Clock.now().since(begin)));
    table(&session);

    println!(
        "\nAct 3: the loss. Pull the cable of {} now; the file is read until that is noticed.",
        stage.vias[0]
    );
    let begin = Clock.now();
    let is_lost = || {
        session.channels().iter().any(|channel| {
            channel.kind == ChannelKind::Data && matches!(channel.state, ChannelState::Lost(_))
        })
    };
    while !is_lost() && Clock.now().since(begin) < PATIENCE {
        check("the bytes while a cable is pulled", &digest_of(&file).await?, &digest)?;
    }
    expect("a line was lost", is_lost())?;
    check("the bytes over what is left", &digest_of(&file).await?, &digest)?;
    table(&session);
    file.close().await?;
    session.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bowline::server::{Exports, Server, ServerConfig, parse_clients};

    use super::super::recorder::Recorder;
    use super::super::{LINES, new_identity, prepare};
    use super::*;

    fn parse(line: &str) -> Outcome<Stage> {
        Stage::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_stage_is_a_peer_two_interfaces_and_a_file() {
        let stage = parse("--peer store --via eth0 --via 10.0.1.2 media/clips/first.mov").unwrap();
        assert_eq!((stage.peer.as_str(), stage.export.as_str()), ("store", "media"));
        assert_eq!(stage.path, "clips/first.mov");
        assert_eq!(stage.vias.map(|via| via.to_string()), ["eth0", "10.0.1.2"]);
        for wrong in [
            "--peer store --via eth0 media/a",
            "--via eth0 --via eth1 media/a",
            "--peer store --via eth0 --via eth1 media",
            "--peer store --via eth0 --via eth1",
            "--peer store --via eth0 --via",
        ] {
            assert_eq!(parse(wrong).err().map(|error| error.to_string()).as_deref(), Some(USAGE), "{wrong}");
        }
    }

    /// The whole play against a server of the list; somebody pulls the cable of the first line when act 3 is under way.
    #[tokio::test(flavor = "multi_thread")]
    async fn b10_the_acts_are_played_with_a_peer_of_the_list_over_the_named_lines() {
        const LEN: usize = 8 << 20;
        let folder = tempfile::tempdir().unwrap();
        let (own, client) = (new_identity().unwrap(), new_identity().unwrap());
        prepare(folder.path(), &own, &client).unwrap();
        std::fs::write(folder.path().join("data/film.raw"), vec![7; LEN]).unwrap();
        let exports = Exports::open([("data".parse().unwrap(), folder.path().join("data"))]).unwrap();
        let policy = std::fs::read_to_string(folder.path().join("clients.toml")).unwrap();
        let key = own.public();
        let server = Server::start(ServerConfig {
            listen: LINES.map(|line| (line, 0).into()).to_vec(),
            ..ServerConfig::new(own, exports, parse_clients(&policy).unwrap())
        })
        .unwrap();
        let mut recorders = Vec::new();
        for (line, address) in LINES.into_iter().zip(server.addresses()) {
            recorders.push(Recorder::start(line, *address).await.unwrap());
        }
        let addresses: Vec<_> = recorders.iter().map(|recorder| recorder.address().to_string()).collect();
        let entry = format!("[[peer]]\nname = \"store\"\nkey = \"{key}\"\naddresses = {addresses:?}\n");
        std::fs::write(folder.path().join("peers.toml"), entry).unwrap();
        key_file::create(&folder.path().join("key"), &client.to_text()).unwrap();

        let stage = parse("--peer store --via 127.0.0.1 --via 127.0.0.2 data/film.raw").unwrap();
        let pulled = async {
            // Act 1 carries all of the file over this line, act 2 a part of it, and act 3 reads it again and again.
            let len = 3 * u64::try_from(LEN).unwrap();
            let carried = recorders[0]
                .until(|labels| labels.iter().map(|label| label.to_client_len).sum::<u64>() > len)
                .await;
            carried.unwrap();
            recorders[0].refuse(true);
            recorders[0].cut_all();
        };
        let (played, ()) = tokio::join!(play(stage, folder.path()), pulled);
        played.unwrap();
        for recorder in &recorders {
            assert!(recorder.labels().len() >= 3, "each line has carried its part: {:?}", recorder.labels());
        }
        server.stop().await;
    }
}
