//! `bowline resume`: the files that programs of this user had open when they died, listed or brought back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bowline::client::{Client, Error, File, KeptOpen, Listed, Peer, Peers, Resumed, Survey};
use bowline::model::{OpenId, PublicKey};
use bowline::net::{Clock, with_sources};
use bowline::secure::Identity;
use serde::Serialize;

use super::admin;
use super::arguments::{LineArguments, ResumeArguments};
use super::failure::{Code, Failure};
use super::lines::{Interfaces, with_vias};
use super::output::{say, show_either, warn};
use super::places::{identity, key_rings, place};
use super::remote::{describe, describe_peers, unknown_peer};
use super::sessions::Tally;

pub(super) async fn run(arguments: ResumeArguments) -> Result<(), Failure> {
    let ResumeArguments { list, all: _, id, peer, keep, ring, client } = arguments;
    let folder = key_rings(ring)?;
    let survey = Survey::of(&folder).map_err(|error| Failure::of("cannot list open files", &error))?;
    for problem in &survey.problems {
        warn(&with_sources(problem));
    }
    let path = place(client.peers, "peers.toml")?;
    let known = Peers::load_or_none(&path).map_err(|error| describe_peers(&error, &path))?;
    let only = match &peer {
        Some(name) => {
            Some(known.named(name).map(|peer| peer.key).ok_or_else(|| unknown_peer(name, &known, &path))?)
        }
        None => None,
    };
    let is_meant =
        |kept: &KeptOpen| only.is_none_or(|key| key == kept.server) && id.is_none_or(|id| id == kept.id);
    let opens: Vec<Listed> = survey.opens.into_iter().filter(|open| is_meant(&open.kept)).collect();
    if list {
        let now_us = Clock.wall_us();
        return opens.iter().try_for_each(|open| show_row(open, &known, now_us));
    }
    if let Some(id) = id {
        check_one(id, &opens)?;
    }
    let servers: BTreeSet<PublicKey> =
        opens.iter().filter(|open| !open.is_owner_living).map(|open| open.kept.server).collect();
    if servers.is_empty() {
        say("there is nothing to bring back\n");
        return Ok(());
    }
    let own = identity(client.key)?;
    let lines = client.lines.or_settings()?;
    let mut tally = Tally::default();
    for server in servers {
        let here = opens.iter().filter(|open| open.kept.server == server && !open.is_owner_living).count();
        let asked = match known.iter().find(|peer| peer.key == server) {
            Some(peer) => from(peer, &own, &lines, &folder, &mut tally, (id, keep)).await?,
            None => Err(unlisted(&server, &path)),
        };
        if let Err(failure) = asked {
            // The others are asked all the same.
            tally.failed_all(here, failure)?;
        }
    }
    tally.outcome("brought back")
}

/// Brings back what there is of one server. Within, why that has nothing to bring back.
async fn from(
    peer: &Peer,
    own: &Arc<Identity>,
    lines: &LineArguments,
    folder: &Path,
    tally: &mut Tally,
    (id, keep): (Option<OpenId>, bool),
) -> Result<Result<(), Failure>, Failure> {
    let what = format!("cannot ask \"{}\"", peer.name);
    let asking = async {
        let peer = with_vias(peer, lines, &Interfaces::of_system)?;
        let cannot = |error: Error| describe(&what, &error, &peer, own);
        let client = Client::new(Arc::clone(own)).map_err(|error| Failure::of(&what, &error))?;
        let client = client.with_key_ring(folder).map_err(|error| Failure::of(&what, &error))?;
        let session = client.connect(&peer).await.map_err(cannot)?;
        let shown = admin::show(&peer, own, &session);
        let is_wanted = |kept: &KeptOpen| id.is_none_or(|id| id == kept.id);
        let resumed = session.resume_some(is_wanted).await.map_err(cannot)?;
        Ok((peer, session, shown, resumed))
    };
    let (peer, session, _shown, resumed) = match asking.await {
        Ok(asked) => asked,
        Err(failure) => return Ok(Err(failure)),
    };
    for Resumed { kept, outcome, .. } in resumed {
        let name = format!("{} {}", kept.id, place_of(&kept, &peer.name));
        match settle(outcome, keep).await {
            Ok(meanwhile) => {
                tally.done();
                let (open, place) = (kept.id.to_string(), place_of(&kept, &peer.name));
                let object = ResumedObject { kind: "resumed", open, place, meanwhile, kept: keep };
                show_either(&object, || {
                    format!("{name}: {}, {}\n", object.meanwhile, if keep { "kept open" } else { "closed" })
                })?;
            }
            Err(error) => {
                tally.failed(describe(&format!("{name} did not come back"), &error, &peer, own))?;
            }
        }
    }
    session.close().await;
    Ok(Ok(()))
}

/// Closes what has come back, or leaves it open; and tells what became of it meanwhile.
async fn settle(outcome: Result<File, Error>, keep: bool) -> Result<String, Error> {
    let file = outcome?;
    let meanwhile =
        file.meanwhile().map_or_else(|| "cannot tell".to_owned(), |meanwhile| meanwhile.to_string());
    match keep {
        true => file.leave_open(),
        false => file.close().await?,
    }
    Ok(meanwhile)
}

/// The server of an open is not on the list.
fn unlisted(server: &PublicKey, path: &Path) -> Failure {
    let fingerprint = server.fingerprint();
    Failure::coded(Code::UnknownPeer, format!("no peer has the key with the fingerprint {fingerprint}"))
        .because(format!("{} has no entry with it, and files were open there", path.display()))
        .try_this(format!("bowline peer add NAME {server} HOST"))
}

/// Refuses an id that names nothing, or nothing that can be had.
fn check_one(id: OpenId, opens: &[Listed]) -> Result<(), Failure> {
    let list = "bowline resume --list";
    if opens.is_empty() {
        return Err(Failure::coded(Code::NotFound, format!("no program had the open {id}")).try_this(list));
    }
    if opens.iter().all(|open| open.is_owner_living) {
        return Err(
            Failure::new(format!("the program that has the open {id} is running")).try_this("end it first")
        );
    }
    Ok(())
}

/// An open whose key is kept, as an object.
#[derive(Serialize)]
struct KeptObject {
    #[serde(rename = "type")]
    kind: &'static str,
    open: String,
    place: String,
    mode: String,
    age_s: u64,
    in_use: bool,
}

/// An open that has come back, as an object.
#[derive(Serialize)]
struct ResumedObject {
    #[serde(rename = "type")]
    kind: &'static str,
    open: String,
    place: String,
    meanwhile: String,
    kept: bool,
}

fn show_row(open: &Listed, known: &Peers, now_us: u64) -> Result<(), Failure> {
    let Listed { kept, is_owner_living, .. } = open;
    let peer = known.iter().find(|peer| peer.key == kept.server);
    let peer = peer.map_or_else(|| kept.server.fingerprint(), |peer| peer.name.clone());
    let object = KeptObject {
        kind: "kept_open",
        open: kept.id.to_string(),
        place: place_of(kept, &peer),
        mode: kept.mode.to_string(),
        age_s: now_us.saturating_sub(kept.kept_us) / 1_000_000,
        in_use: *is_owner_living,
    };
    show_either(&object, || {
        let state = if object.in_use { "  in use" } else { "" };
        format!("{}  {}  {}  {} s ago{state}\n", object.open, object.place, object.mode, object.age_s)
    })
}

/// `PEER:EXPORT/PATH`, fit for a terminal.
fn place_of(kept: &KeptOpen, peer: &str) -> String {
    let path = String::from_utf8_lossy(kept.path.as_bytes()).into_owned();
    format!("{peer}:{}/{}", kept.export, path.escape_debug())
}
