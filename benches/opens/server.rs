//! The server's side: this program again, as a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::net::key_file;
use bowline::secure::Identity;
use bowline::server::{Exports, Server, ServerConfig, StateConfig, parse_clients};
use bowline::session::server::StatusQuery;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::runtime::Runtime;

use super::Outcome;

/// With which the program is told to be the server; durability, address and folder follow.
pub(crate) const ARGUMENT: &str = "--serve-opens";

/// The folder of the server that this process is to be.
pub(crate) fn asked_for() -> Option<PathBuf> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let is_server = arguments.get(1).is_some_and(|first| first == ARGUMENT);
    arguments.get(4).filter(|_| is_server).map(PathBuf::from)
}

pub(crate) fn serve(folder: &Path) -> Outcome<()> {
    let mut words = std::env::args().skip(2);
    let (durability, listen) = (words.next().ok_or("no durability")?, words.next().ok_or("no address")?);
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let identity = Identity::from_text(&key_file::read(&folder.join("server.key"))?)?;
        let exports = Exports::open([("data".parse()?, folder.join("data"))])?;
        let policy = parse_clients(&std::fs::read_to_string(folder.join("clients.toml"))?)?;
        let state = StateConfig { folder: folder.join("state"), durability: durability.parse()? };
        let config = ServerConfig::new(Arc::new(identity), exports, policy);
        let server =
            Server::start(ServerConfig { listen: vec![listen.parse()?], state: Some(state), ..config })?;
        println!("{}", server.addresses()[0]);
        // Each line is a question.
        let mut questions = BufReader::new(tokio::io::stdin()).lines();
        while questions.next_line().await?.is_some() {
            println!("{} orphans", server.status(StatusQuery::default()).counts.orphans);
        }
        server.stop().await;
        Outcome::Ok(())
    })?;
    // A thread waits for standard input, and it has closed.
    runtime.shutdown_background();
    Ok(())
}
