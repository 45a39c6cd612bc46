//! `bowline cat`: files of a server to standard output.

use bowline::client::{Error, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use super::arguments::CatArguments;
use super::failure::{Code, Failure};
use super::output::{style, unless_closed};
use super::remote::{Connected, Remote, connect};

pub(super) async fn run(arguments: CatArguments) -> Result<(), Failure> {
    let CatArguments { sources, client } = arguments;
    if style().json {
        return Err(Failure::coded(Code::Settings, "what a file holds is no JSON")
            .try_this("bowline cat without --json"));
    }
    let mut connected: Option<Connected> = None;
    for source in &sources {
        let what = format!("cannot read {}", source.shown());
        let here = match connected.take().filter(|connected| connected.peer.name == source.peer) {
            Some(here) => here,
            None => connect(&client, &source.peer, &what).await?,
        };
        let is_wanted = copy(&here, source).await.map_err(|error| error.described(&here, source, &what))?;
        connected = Some(here);
        if !is_wanted {
            break;
        }
    }
    if let Some(connected) = connected {
        connected.session.close().await;
    }
    Ok(())
}

/// What can go wrong on either side.
enum Trouble {
    Remote(Error),
    Output(Failure),
}

impl Trouble {
    fn described(self, connected: &Connected, place: &Remote, what: &str) -> Failure {
        match self {
            Self::Remote(error) => connected.failure_at(place, what, &error),
            Self::Output(failure) => failure,
        }
    }
}

/// Writes a file to standard output, and says whether that takes more.
async fn copy(connected: &Connected, source: &Remote) -> Result<bool, Trouble> {
    let options = OpenOptions::new().read(true).with_key(false);
    let opened = connected.session.open(&source.export, source.path.as_bytes(), &options).await;
    let file = opened.map_err(Trouble::Remote)?;
    let mut out = tokio::io::stdout();
    let mut bytes = file.read_ahead(0, None);
    let mut is_wanted = true;
    while is_wanted && let Some(chunk) = bytes.next().await.map_err(Trouble::Remote)? {
        is_wanted = unless_closed(out.write_all(&chunk).await).map_err(Trouble::Output)?;
    }
    // Also what was taken before may only now turn out to have gone nowhere.
    is_wanted &= unless_closed(out.flush().await).map_err(Trouble::Output)?;
    drop(bytes);
    file.close().await.map_err(Trouble::Remote)?;
    Ok(is_wanted)
}
