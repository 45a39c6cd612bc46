//! `bowline ping`: each line to a server tried by itself.

use std::time::Duration;

use bowline::client::{ChannelState, Client, Session};
use bowline::model::{ChannelKind, Limits, LineId};
use bowline::net::{Clock, socket};
use serde::Serialize;

use super::arguments::PingArguments;
use super::failure::{Code, Failure};
use super::output::show_either;
use super::remote::{describe, known_peer};

/// A line and what it can do, as an object.
#[derive(Serialize)]
struct LineObject {
    #[serde(rename = "type")]
    kind: &'static str,
    peer: String,
    line: u8,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    role: String,
    reached: u16,
    asked: u16,
    /// Milliseconds that a connection takes, which is one way there and one back.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_min_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_median_ms: Option<f64>,
    /// How file data is protected on it; `None` where it carries none, or could not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    protection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) async fn run(arguments: PingArguments) -> Result<(), Failure> {
    let PingArguments { peer: name, count, client } = arguments;
    let (peer, own) = known_peer(&client, &name)?;
    let what = format!("cannot reach {name}");
    let mut objects = Vec::new();
    for (id, line) in (0..=u8::MAX).zip(&peer.lines) {
        let mut times = Vec::new();
        let mut why = None;
        for _ in 0..count {
            let start = Clock.now();
            let limit = Limits::default().handshake;
            match Clock.timeout(limit, socket::connect(line.address, line.via.as_ref())).await {
                Some(Ok(_)) => times.push(Clock.now().since(start)),
                Some(Err(error)) => why = Some(error.to_string()),
                None => why = Some(format!("no answer within {limit:?}")),
            }
            if why.is_some() {
                break;
            }
        }
        times.sort();
        objects.push(LineObject {
            kind: "line",
            peer: name.clone(),
            line: id,
            address: line.address.to_string(),
            via: line.via.as_ref().map(ToString::to_string),
            role: line.role.to_string(),
            reached: u16::try_from(times.len()).unwrap_or(u16::MAX),
            asked: count,
            rtt_min_ms: times.first().map(milliseconds),
            rtt_median_ms: times.get(times.len() / 2).map(milliseconds),
            protection: None,
            why,
        });
    }
    let session = Client::new(std::sync::Arc::clone(&own))
        .map_err(|error| Failure::of("cannot start", &error))?
        .connect(&peer)
        .await;
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            objects.iter().try_for_each(show_line)?;
            return Err(describe(&what, &error, &peer, &own));
        }
    };
    // A line that does not come up is told as one.
    let _some_may_not = session.all_lines_up(Limits::default().handshake).await;
    for object in &mut objects {
        look_at(&session, object);
    }
    session.close().await;
    objects.iter().try_for_each(show_line)?;
    match objects.iter().filter(|object| object.why.is_some()).count() {
        0 => Ok(()),
        failed => Err(Failure::coded(
            Code::SomeFailed,
            format!("{failed} of {} lines to {name} cannot be used", objects.len()),
        )
        .because("see above; files go over the others")
        .try_this("check cable, interface and address of those lines")),
    }
}

/// What the session makes of a line.
fn look_at(session: &Session, object: &mut LineObject) {
    let channels = session.channels();
    let of_line = || channels.iter().filter(|channel| channel.line == LineId(object.line));
    let live = || of_line().filter(|channel| channel.state == ChannelState::Live);
    object.protection = live()
        .find(|channel| channel.kind == ChannelKind::Data)
        .map(|channel| channel.protection.to_string());
    let is_used = live().next().is_some();
    if !is_used && object.why.is_none() && object.role != "keys" {
        let state =
            of_line().next_back().map_or_else(|| "no channel".to_owned(), |of| format!("{:?}", of.state));
        object.why = Some(format!("the address is reached, and no channel comes up: {state}"));
    }
}

fn show_line(object: &LineObject) -> Result<(), Failure> {
    show_either(object, || {
        let via = object.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
        let times = match (object.rtt_min_ms, object.rtt_median_ms) {
            (Some(min), Some(median)) => format!("rtt {median:.2} ms (least {min:.2})"),
            _ => "not reached".to_owned(),
        };
        let protection = match (&object.protection, &object.why) {
            (_, Some(why)) => format!(", {why}"),
            (Some(protection), None) => format!(", file data {protection}"),
            (None, None) => ", keys and names, sealed".to_owned(),
        };
        format!("line {} {}{via} ({}): {times}{protection}\n", object.line, object.address, object.role)
    })
}

fn milliseconds(span: &Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
