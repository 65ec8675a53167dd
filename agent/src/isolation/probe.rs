//! `muster-agent probe-from PID`: TCP connections from a container's network namespace. Addresses come in on standard
//! input, one a line; those that answered go out on standard output. Nothing is sent over a connection.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::targets::MAX;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// Connections tried at one time: below the usual limit of open files.
const AT_ONCE: usize = 512;
/// Longest time of a whole probe.
const LIMIT: Duration = Duration::from_secs(5);

/// The subcommand.
#[must_use]
pub fn main(pid: u32) -> ExitCode {
    match run(pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(pid: u32) -> Result<(), String> {
    let mut text = String::new();
    let limit = u64::try_from(MAX * 24).unwrap_or(u64::MAX);
    std::io::stdin().take(limit).read_to_string(&mut text).map_err(|why| format!("standard input: {why}"))?;
    let targets: Vec<SocketAddrV4> = text.lines().filter_map(|line| line.parse().ok()).collect();
    // Before any other thread exists: a namespace belongs to a thread.
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).map_err(|why| format!("{path}: {why}"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|why| format!("cannot enter {path}: {why}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
    let reached = runtime.block_on(try_all(&targets));
    let mut out = std::io::stdout().lock();
    for address in reached {
        writeln!(out, "{address}").map_err(|why| why.to_string())?;
    }
    Ok(())
}

/// Those of `targets` that answer from here. A refusal is an answer: something got through.
pub async fn try_all(targets: &[SocketAddrV4]) -> BTreeSet<SocketAddrV4> {
    let mut reached = BTreeSet::new();
    for some in targets.chunks(AT_ONCE) {
        let mut tries = JoinSet::new();
        for target in some.iter().copied() {
            tries.spawn(async move { answers(target).await.then_some(target) });
        }
        while let Some(tried) = tries.join_next().await {
            reached.extend(tried.ok().flatten());
        }
    }
    reached
}

async fn answers(target: SocketAddrV4) -> bool {
    let Ok(socket) = TcpSocket::new_v4() else { return false };
    match tokio::time::timeout(PATIENCE, socket.connect(SocketAddr::V4(target))).await {
        Ok(Ok(_)) => true,
        Ok(Err(why)) => why.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Those of `targets` that answer from the network namespace of a process, tried by a process of its own.
///
/// # Errors
/// Why it could not be tried.
pub async fn from(pid: u32, targets: &[SocketAddrV4]) -> Result<BTreeSet<SocketAddrV4>, String> {
    let work = async {
        let mut child = Command::new("/proc/self/exe")
            .args(["probe-from", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|why| why.to_string())?;
        let lines: String = targets.iter().map(|target| format!("{target}\n")).collect();
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).await.map_err(|why| why.to_string())?;
        }
        let ended = child.wait_with_output().await.map_err(|why| why.to_string())?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            return Err(said.lines().next().unwrap_or("it failed and said nothing").chars().take(200).collect());
        }
        Ok(String::from_utf8_lossy(&ended.stdout).lines().filter_map(|line| line.parse().ok()).collect())
    };
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| Err("the probe does not end".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_port_and_a_refusal_are_answers_and_silence_is_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let v4 = |address: SocketAddr| address.to_string().parse::<SocketAddrV4>().expect("an address");
        let (open, refused) = (v4(listener.local_addr().expect("an address")), v4(gone));
        // Reserved for documents: nobody answers there.
        let silent = "192.0.2.77:9".parse().expect("an address");
        let reached = try_all(&[open, refused, silent]).await;
        assert_eq!(reached, BTreeSet::from([open, refused]));
    }
}
