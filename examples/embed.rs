//! bowline inside a program of one's own, here both ends: `cargo run --release --example embed`
use bowline::{client::*, model::*, net::SystemEntropy, secure::Identity, server::*};
use std::{error::Error, net::Ipv4Addr, sync::Arc, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (folder, new) = (tempfile::tempdir()?, || Identity::generate(&mut SystemEntropy).map(Arc::new));
    let (identity, me, listen) = (new()?, new()?, vec![(Ipv4Addr::LOCALHOST, 0).into()]);
    let entry = format!("[[client]]\nname = 'me'\nkey = '{}'\nexports = ['data']\n", me.public());
    let policy = parse_clients(&(entry + "rights = ['read', 'write', 'lock']"))?;
    let exports = Exports::open([("data".parse()?, folder.path().into())])?;
    let (key, config) = (identity.public(), ServerConfig::new(identity, exports, policy));
    let server = Server::start(ServerConfig { listen, ..config })?;

    let lines = server.addresses().iter().copied().map(LineConfig::new).collect();
    let peer = Peer { name: "store".into(), key, protection_min: None, lines };
    let data = Client::new(me)?.connect(&peer).await?.export("data")?;
    let file = data.open("notes", &OpenOptions::new().read(true).write(true).create_new(true)).await?;
    file.lock(ByteRange::ALL, LockMode::Exclusive, Duration::from_secs(5)).await?;
    file.write_at(0, b"one open file, many lines").await?;
    println!("read: {}", String::from_utf8_lossy(&file.read_chunk(0, 4096).await?));
    let mut entries = data.read_dir("").await?;
    while let Some(entry) = entries.next_entry().await? {
        println!("listed: {}", entry.file_name().display());
    }
    file.close().await?;
    server.stop().await;
    Ok(())
}
