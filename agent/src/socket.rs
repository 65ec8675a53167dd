//! The local socket: a user on this host grants the agent a folder of theirs.
//!
//! The client connects to the Unix stream socket and sends one byte (any) with one descriptor of the opened folder as
//! `SCM_RIGHTS`. The server answers one JSON line and closes:
//!
//! - `{"grant":"<64 hexadecimal digits>","host_id":"…","host":"<name>","path":"/home/asha/bot"}`
//! - `{"error":"E_GRANT_OWNER","text":"…"}`
//!
//! The caller's uid (`SO_PEERCRED`) must be the folder's owner, root's too, and the folder must lie under a root that
//! the host's policy allows. A grant is good for one environment, within ten minutes.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};

use crate::clock;
use crate::host::Host;
use crate::state::environments::Folder;

/// How long a grant may wait for its use.
const GOOD_FOR: Duration = Duration::from_mins(10);
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients at once.
const CLIENTS: usize = 32;

/// Why a folder is not granted.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("send one byte with the descriptor of an opened folder")]
    Protocol,
    #[error("this is not a folder")]
    NotAFolder,
    #[error("{path} belongs to user {owner}, and you are {caller}; only its owner can grant it")]
    Owner { path: String, owner: u32, caller: u32 },
    #[error("{0}")]
    Policy(#[from] crate::policy::Denied),
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{0}")]
    State(#[from] crate::state::Error),
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Protocol => "E_GRANT_PROTOCOL",
            Self::NotAFolder => "E_GRANT_NOT_A_FOLDER",
            Self::Owner { .. } => "E_GRANT_OWNER",
            Self::Policy(_) => "E_POLICY",
            Self::System(_) | Self::State(_) => "E_GRANT",
        }
    }
}

/// Listens, replacing what an earlier agent left. Everybody on this host may connect; what they get depends on who
/// they are.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(path: &std::path::Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
        let mode = std::fs::metadata(parent)?.permissions().mode();
        // Users must be able to pass through; everything else in the folder is private by itself.
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode | 0o011))?;
    }
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Answers clients for as long as it is polled.
pub async fn serve(host: Arc<Host>, listener: UnixListener) {
    let places = Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(&host, stream)).await;
                    drop(place);
                });
            }
            // For example too many open files: others end in between.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(host: &Host, mut stream: UnixStream) -> io::Result<()> {
    let line = match grant(host, &stream).await {
        Ok((grant, folder)) => serde_json::json!({
            "grant": grant, "host_id": host.id, "host": host.name, "path": folder.path,
        }),
        Err(why) => serde_json::json!({ "error": why.code(), "text": why.to_string() }),
    };
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    stream.shutdown().await
}

async fn grant(host: &Host, stream: &UnixStream) -> Result<(String, Folder), Refusal> {
    let caller = stream.peer_cred()?.uid();
    let opened = stream.async_io(Interest::READABLE, || receive(stream)).await?.ok_or(Refusal::Protocol)?;
    let (folder, owner) = look(&opened)?;
    if owner != caller {
        return Err(Refusal::Owner { path: folder.path.display().to_string(), owner, caller });
    }
    host.policy.mount(&folder.path)?;
    let grant = hex::encode(clock::random::<32>()?);
    let now = clock::now();
    host.state.put_grant(&grant, &folder, owner, now.plus(GOOD_FOR), now).await?;
    Ok((grant, folder))
}

/// The first descriptor that comes with the first byte; others are closed.
fn receive(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0_u8; 1];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok(rights)
}

fn look(opened: &OwnedFd) -> Result<(Folder, u32), Refusal> {
    let stat = rustix::fs::fstat(opened).map_err(io::Error::from)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(Refusal::NotAFolder);
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    Ok((Folder { path, device: stat.st_dev, inode: stat.st_ino }, stat.st_uid))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, IoSlice};
    use std::os::fd::AsFd as _;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;
    use crate::engine::fake::Fake;

    async fn ask(what: &std::path::Path, allowed: &std::path::Path) -> serde_json::Value {
        let (host, folder) = crate::host::tests::host(Arc::new(Fake::new()), allowed).await;
        let socket = folder.path().join("agent.sock");
        let listener = listen(&socket).expect("a socket");
        tokio::spawn(serve(Arc::clone(&host), listener));
        let opened = std::fs::File::open(what).expect("opened");
        let answer = tokio::task::spawn_blocking(move || {
            let stream = std::os::unix::net::UnixStream::connect(socket).expect("connected");
            let fds = [opened.as_fd()];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
            rustix::net::sendmsg(&stream, &[IoSlice::new(b"g")], &mut ancillary, SendFlags::empty()).expect("sent");
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).expect("answered");
            line
        });
        let answer: serde_json::Value = serde_json::from_str(&answer.await.expect("ran")).expect("JSON");
        if let Some(grant) = answer["grant"].as_str() {
            let spent = host.state.spend_grant(grant, "e", clock::now()).await.expect("asked");
            assert_eq!(spent.expect("known").path, what);
        }
        answer
    }

    #[tokio::test]
    async fn an_own_folder_under_an_allowed_root_is_granted() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().canonicalize().expect("resolved");
        let answer = ask(&path, &path).await;
        assert_eq!(answer["grant"].as_str().map(str::len), Some(64), "{answer}");
        assert_eq!(answer["host"], "box");
    }

    #[tokio::test]
    async fn files_and_folders_elsewhere_are_refused() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().canonicalize().expect("resolved");
        assert_eq!(ask(&path, std::path::Path::new("/nowhere")).await["error"], "E_POLICY");
        let file = path.join("file");
        std::fs::write(&file, "").expect("written");
        assert_eq!(ask(&file, &path).await["error"], "E_GRANT_NOT_A_FOLDER");
    }
}
