//! Bytes between a client and this host: a command in a container, or a connection to a published port. The agent dials,
//! as it always does; the coordinator joins the two ends by the order's id. Flow control is gRPC's own, from end to end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use proto::v1;
use proto::v1::tunnel_frame::Frame;
use proto::v1::tunnel_order::What;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::engine::{Attached, ExecSpec};
use crate::environments::{Environments, Guest};
use crate::host::Host;
use crate::session;

/// Frames on their way to the client.
const QUEUE: usize = 4;
/// Bytes of one frame.
const CHUNK: usize = 32 << 10;
/// Longest wait for a sleeping environment.
const WAKE: Duration = Duration::from_secs(120);
/// Pause before it is asked again whether a command has begun.
const BEGUN: Duration = Duration::from_millis(3);
/// Longest wait until the last frames have arrived.
const GOODBYE: Duration = Duration::from_secs(30);
/// Longest command line.
const MAX_ARGV: usize = 64 << 10;

/// Why a tunnel ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not opened: code and text for the client.
    #[error("{code}: {text}")]
    Refused {
        /// Stable.
        code: String,
        /// For people.
        text: String,
    },
    /// The other side is gone.
    #[error("the client is gone")]
    Gone,
}

impl Error {
    fn refused(code: &str, text: impl Into<String>) -> Self {
        Self::Refused { code: code.to_owned(), text: text.into() }
    }
}

impl From<crate::environments::failure::Failure> for Error {
    fn from(why: crate::environments::failure::Failure) -> Self {
        Self::Refused { code: why.code, text: why.text }
    }
}

impl From<crate::engine::Error> for Error {
    fn from(why: crate::engine::Error) -> Self {
        Self::refused(why.code(), why.to_string())
    }
}

type Up = mpsc::Sender<v1::TunnelFrame>;

fn frame(frame: Frame) -> v1::TunnelFrame {
    v1::TunnelFrame { tunnel: String::new(), frame: Some(frame) }
}

async fn send(up: &Up, one: Frame) -> Result<(), Error> {
    up.send(frame(one)).await.map_err(|_| Error::Gone)
}

/// Carries one order to its end.
pub async fn serve(host: Arc<Host>, environments: Arc<Environments>, channel: Channel, order: v1::TunnelOrder) {
    let (up, frames) = mpsc::channel(QUEUE);
    let first = v1::TunnelFrame { tunnel: order.id.clone(), frame: None };
    if up.send(first).await.is_err() {
        return;
    }
    let stream = tokio_stream::wrappers::ReceiverStream::new(frames);
    let mut down = match session::client(channel).tunnel(stream).await {
        Ok(answer) => answer.into_inner(),
        Err(why) => {
            tracing::debug!(tunnel = %order.id, %why, "nobody waits for a tunnel any more");
            return;
        }
    };
    let ended = match order.what {
        Some(What::Exec(ref exec)) => self::exec(&host, &environments, &order, exec, &up, &mut down).await,
        Some(What::Port(port)) => connect(&host, &environments, &order, port, &up, &mut down).await,
        Some(What::Diff(ref diff)) => compare(&host, &environments, &order, diff, &up, &mut down).await,
        Some(What::Sync(_)) => {
            crate::upload::run(&host, &environments, &order.environment, &up, &mut down).await.map_err(Error::from)
        }
        None => Err(Error::refused("E_TUNNEL", "the order says nothing that this agent knows; upgrade it")),
    };
    if let Err(Error::Refused { code, text }) = ended {
        let _ = send(&up, Frame::Refused(v1::Reason { code, text })).await;
    }
    // To let go of the answers cancels the call, with what is still on its way up: the coordinator ends it.
    drop(up);
    let _ = tokio::time::timeout(GOODBYE, async { while let Ok(Some(_)) = down.message().await {} }).await;
}

/// The comparison of its data with its seed, for as long as somebody listens.
async fn compare(
    host: &Host,
    environments: &Arc<Environments>,
    order: &v1::TunnelOrder,
    diff: &v1::DiffOrder,
    up: &Up,
    down: &mut Streaming<v1::TunnelFrame>,
) -> Result<(), Error> {
    let gone = async { while let Ok(Some(_)) = down.message().await {} };
    tokio::select! {
        ended = crate::changes::run(host, environments, &order.environment, diff, up) => Ok(ended?),
        () = gone => Err(Error::Gone),
    }
}

/// A connection to a published port, through the relay: so it wakes what sleeps, and counts as use.
async fn connect(
    host: &Host,
    environments: &Environments,
    order: &v1::TunnelOrder,
    port: u32,
    up: &Up,
    down: &mut Streaming<v1::TunnelFrame>,
) -> Result<(), Error> {
    let published = u16::try_from(port)
        .ok()
        .and_then(|port| environments.published(&order.environment, &order.service, port))
        .ok_or_else(|| {
            let text = format!("{} does not publish port {port}; `ports` in the stack file does", order.service);
            Error::refused("E_TUNNEL_PORT", text)
        })?;
    let refused = |why: io::Error| Error::refused("E_TUNNEL_PORT", format!("port {published}: {why}"));
    let mut stream = TcpStream::connect((host.listen_address, published)).await.map_err(refused)?;
    let _ = stream.set_nodelay(true);
    send(up, Frame::Open(true)).await?;
    let (mut read, mut write) = stream.split();
    let inward = async {
        while let Ok(Some(message)) = down.message().await {
            match message.frame {
                Some(Frame::Data(bytes)) => write.write_all(&bytes).await.map_err(|_| Error::Gone)?,
                Some(Frame::End(_)) => write.shutdown().await.map_err(|_| Error::Gone)?,
                _ => {}
            }
        }
        Err(Error::Gone)
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = read.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return send(up, Frame::End(true)).await;
            }
            send(up, Frame::Data(bytes::Bytes::copy_from_slice(&buffer[..count]))).await?;
        }
    };
    // The connection ends with its answer, or with the client; a client that only ends its half waits for the rest.
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}

async fn exec(
    host: &Host,
    environments: &Environments,
    order: &v1::TunnelOrder,
    exec: &v1::ExecCommand,
    up: &Up,
    down: &mut Streaming<v1::TunnelFrame>,
) -> Result<(), Error> {
    host.policy.exec().map_err(|why| Error::refused("E_POLICY", why.to_string()))?;
    if exec.argv.is_empty() || exec.argv.iter().map(String::len).sum::<usize>() > MAX_ARGV {
        return Err(Error::refused("E_EXEC", "a command has between one word and 64 KiB"));
    }
    // As long as the command runs, the environment stays awake.
    let guest = environments
        .guest(&order.environment)
        .ok_or_else(|| Error::refused("E_ENV_NOT_FOUND", "this host does not have the environment (any more)"))?;
    let id = container(host, environments, &guest, order).await?;
    let spec = ExecSpec {
        argv: exec.argv.clone(),
        terminal: exec.terminal,
        environment: exec.environment.clone().into_iter().collect(),
    };
    let entering = guest.entering().await;
    let attached = host.engine.attach(&id, &spec).await?;
    begun(host, &attached.exec).await;
    drop(entering);
    send(up, Frame::Open(true)).await?;
    if let Some(size) = exec.size.filter(|_| exec.terminal) {
        resize(host, &attached.exec, size).await;
    }
    let name = attached.exec.clone();
    let ended = pump(host, attached, exec.terminal, up, down).await;
    if ended.is_err() {
        // Nobody listens any more: as if the terminal had been closed.
        signal(host, &name, rustix::process::Signal::HUP).await;
    }
    ended
}

/// Waits until the engine has begun a command that it was given, or knows that it cannot.
async fn begun(host: &Host, exec: &str) {
    let begun = async {
        while host.engine.executed(exec).await.is_ok_and(|state| state.pid.is_none() && state.status.is_none()) {
            tokio::time::sleep(BEGUN).await;
        }
    };
    // It holds up a snapshot no longer than a snapshot may hold up others.
    let _ = tokio::time::timeout(crate::seeds::snapshot::LIMIT, begun).await;
}

/// The service's running container; waits for an environment that sleeps.
async fn container(
    host: &Host,
    environments: &Environments,
    guest: &Guest,
    order: &v1::TunnelOrder,
) -> Result<String, Error> {
    environments.poke(&order.environment);
    if tokio::time::timeout(WAKE, guest.awake()).await.is_err() {
        return Err(Error::refused("E_WAKE_FAILED", format!("it did not wake within {} s", WAKE.as_secs())));
    }
    let found = crate::environments::containers(host, &order.environment).await?;
    let own = found.into_iter().find(|one| one.labels.part == order.service && one.running);
    own.map(|one| one.id).ok_or_else(|| {
        let text = format!("no container of {} runs; `muster env show` says why", order.service);
        Error::refused("E_EXEC", text)
    })
}

async fn resize(host: &Host, exec: &str, size: v1::TerminalSize) {
    let most = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    if let Err(why) = host.engine.resize(exec, most(size.columns), most(size.rows)).await {
        tracing::debug!(%why, "a terminal keeps its size");
    }
}

async fn signal(host: &Host, exec: &str, signal: rustix::process::Signal) {
    let Ok(state) = host.engine.executed(exec).await else { return };
    // Its number may belong to another process as soon as it has ended.
    let pid = state.pid.filter(|_| state.status.is_none()).and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn known(name: &str) -> Option<rustix::process::Signal> {
    use rustix::process::Signal;
    Some(match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "QUIT" => Signal::QUIT,
        _ => return None,
    })
}

async fn pump(
    host: &Host,
    attached: Attached,
    terminal: bool,
    up: &Up,
    down: &mut Streaming<v1::TunnelFrame>,
) -> Result<(), Error> {
    let Attached { exec, mut input, mut output } = attached;
    let inward = async {
        let mut open = true;
        while let Ok(Some(message)) = down.message().await {
            match message.frame {
                // What a command that does not read leaves over is nobody's.
                Some(Frame::Data(bytes)) if open => open = input.write_all(&bytes).await.is_ok(),
                Some(Frame::End(_)) if !terminal => {
                    open = false;
                    let _ = input.shutdown().await;
                }
                Some(Frame::Size(size)) if terminal => resize(host, &exec, size).await,
                Some(Frame::Signal(name)) => {
                    if let Some(one) = known(&name) {
                        signal(host, &exec, one).await;
                    }
                }
                _ => {}
            }
        }
        Err(Error::Gone)
    };
    let outward = async {
        while let Some(piece) = output.next().await {
            let (errors, bytes) = piece?;
            send(up, if errors { Frame::Errors(bytes) } else { Frame::Data(bytes) }).await?;
        }
        // The output may end an instant before the engine knows the status.
        for _ in 0..200 {
            if let Some(status) = host.engine.executed(&exec).await?.status {
                return send(up, Frame::Exit(status)).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Error::refused("E_EXEC", "the command closed its output and goes on; its status is not waited for"))
    };
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}
