//! `bowline resume`: the files that programs of this user had open when they died, listed or brought back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bowline::client::{Client, KeptOpen, Listed, Peer, Peers, Resumed, Survey};
use bowline::model::{OpenId, PublicKey};
use bowline::net::{Clock, with_sources};
use bowline::secure::Identity;
use serde::Serialize;

use super::admin;
use super::arguments::ResumeArguments;
use super::failure::{Code, Failure};
use super::lines::{Interfaces, with_vias};
use super::output::{say, show_either};
use super::places::{identity, key_rings, place};
use super::remote::{describe, unknown_peer};
use super::sessions::tell;

pub(super) async fn run(arguments: ResumeArguments) -> Result<(), Failure> {
    let ResumeArguments { list, all: _, id, peer, keep, ring, client } = arguments;
    let folder = key_rings(ring)?;
    let survey = Survey::of(&folder).map_err(|error| Failure::of("cannot list open files", &error))?;
    for problem in &survey.problems {
        say(&format!("warning: {}\n", with_sources(problem)));
    }
    let path = place(client.peers, "peers.toml")?;
    let known =
        Peers::load_or_none(&path).map_err(|error| Failure::of("cannot use the list of peers", &error))?;
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
    let mut failed = 0_usize;
    for server in servers {
        failed += match known.iter().find(|peer| peer.key == server) {
            Some(peer) => {
                let peer = with_vias(peer, &lines, &Interfaces::of_system)?;
                from(&peer, &own, &folder, (id, keep)).await?
            }
            None => {
                let fingerprint = server.fingerprint();
                say(&format!(
                    "no peer in {} has the key with the fingerprint {fingerprint}\n",
                    path.display()
                ));
                opens.iter().filter(|open| open.kept.server == server).count()
            }
        };
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::coded(Code::SomeFailed, "one file did not come back")),
        failed => Err(Failure::coded(Code::SomeFailed, format!("{failed} files did not come back"))),
    }
}

/// Brings back what there is of one server, and tells how many files did not come.
async fn from(
    peer: &Peer,
    own: &Arc<Identity>,
    folder: &Path,
    (id, keep): (Option<OpenId>, bool),
) -> Result<usize, Failure> {
    let cannot = |error: &(dyn std::error::Error + 'static)| {
        Failure::of(&format!("cannot ask \"{}\"", peer.name), error)
    };
    let client = Client::new(Arc::clone(own)).map_err(|error| cannot(&error))?;
    let client = client.with_key_ring(folder).map_err(|error| cannot(&error))?;
    let asking = format!("cannot ask \"{}\"", peer.name);
    let session = client.connect(peer).await.map_err(|error| describe(&asking, &error, peer, own))?;
    let _shown = admin::show(peer, own, &session);
    let is_wanted = |kept: &KeptOpen| id.is_none_or(|id| id == kept.id);
    let resumed = session.resume_some(is_wanted).await.map_err(|error| cannot(&error))?;
    let mut failed = 0;
    for Resumed { kept, outcome, .. } in resumed {
        let name = format!("{} {}", kept.id, place_of(&kept, &peer.name));
        let outcome = match outcome {
            Ok(file) => {
                let meanwhile = file
                    .meanwhile()
                    .map_or_else(|| "cannot tell".to_owned(), |meanwhile| meanwhile.to_string());
                let closed = if keep {
                    file.leave_open();
                    Ok(())
                } else {
                    file.close().await
                };
                closed.map(|()| meanwhile)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(meanwhile) => {
                let (open, place) = (kept.id.to_string(), place_of(&kept, &peer.name));
                let object = ResumedObject { kind: "resumed", open, place, meanwhile, kept: keep };
                show_either(&object, || {
                    format!("{name}: {}, {}\n", object.meanwhile, if keep { "kept open" } else { "closed" })
                })?;
            }
            Err(error) => {
                failed += 1;
                tell(&describe(&format!("{name} did not come back"), &error, peer, own))?;
            }
        }
    }
    session.close().await;
    Ok(failed)
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
