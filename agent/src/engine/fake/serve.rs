//! What fake containers answer, and how image archives are read.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::Ipv4Addr;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::Image;
use super::Behaviour;

/// Listens as the behaviour says; ends when the tasks are aborted.
pub(super) async fn begin(address: Ipv4Addr, behaviour: &Behaviour) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut servers = Vec::new();
    if let Some((port, status)) = behaviour.http {
        let answer = format!("HTTP/1.1 {status} Answer\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        servers.push(listen(address, port, answer.into_bytes()).await?);
    }
    if let Some(port) = behaviour.redis {
        servers.push(listen(address, port, b"+PONG\r\n".to_vec()).await?);
    }
    if let Some(port) = behaviour.postgres {
        servers.push(listen(address, port, b"R\0\0\0\x08\0\0\0\x03".to_vec()).await?);
    }
    Ok(servers)
}

async fn listen(address: Ipv4Addr, port: u16, answer: Vec<u8>) -> std::io::Result<JoinHandle<()>> {
    let listener = TcpListener::bind((address, port)).await?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_one(stream, answer.clone()));
        }
    }))
}

async fn answer_one(mut stream: TcpStream, answer: Vec<u8>) {
    let mut question = [0_u8; 2048];
    if matches!(stream.read(&mut question).await, Ok(read) if read > 0) {
        let _ = stream.write_all(&answer).await;
    }
}

/// Reads an image archive as `docker load` does: its names and what it is.
pub(super) fn read_archive(bytes: &[u8]) -> Result<(Vec<String>, Image), String> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(|why| why.to_string())? {
        let mut entry = entry.map_err(|why| why.to_string())?;
        let path = entry.path().map_err(|why| why.to_string())?.to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(|why| why.to_string())?;
        files.insert(path, content);
    }
    let manifest = files.get("manifest.json").ok_or("no manifest.json")?;
    let manifest: serde_json::Value = serde_json::from_slice(manifest).map_err(|why| why.to_string())?;
    let config = files.get(manifest[0]["Config"].as_str().ok_or("no Config")?).ok_or("no configuration")?;
    let read: serde_json::Value = serde_json::from_slice(config).map_err(|why| why.to_string())?;
    let texts = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let image = Image {
        id: format!("sha256:{}", hex::encode(Sha256::digest(config))),
        diff_ids: texts(&read["rootfs"]["diff_ids"]),
        ..Image::default()
    };
    Ok((texts(&manifest[0]["RepoTags"]), image))
}
