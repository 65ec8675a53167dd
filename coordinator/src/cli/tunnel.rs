//! A client's end of a tunnel: a command in a container, or a connection to a service.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use proto::v1;
use proto::v1::tunnel_frame::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::client::Client;
use super::error::Error;
use super::screen;

/// Frames on their way to the coordinator.
const QUEUE: usize = 4;
/// Bytes of one frame.
const CHUNK: usize = 32 << 10;

/// A command to run in a service's container.
#[derive(Debug, Default)]
pub struct Command {
    /// The environment.
    pub environment: String,
    /// The service.
    pub service: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables of the command beside those of the container.
    pub variables: Vec<(String, String)>,
}

fn frame(frame: Frame) -> v1::TunnelFrame {
    v1::TunnelFrame { tunnel: String::new(), frame: Some(frame) }
}

fn broken() -> Error {
    Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the coordinator ended the stream"))
}

fn refused(reason: &v1::Reason) -> Error {
    Error::Status(tonic::Status::failed_precondition(format!("{}: {}", reason.code, reason.text)))
}

/// Runs a command; with a terminal when both ends of ours are one. Answers its exit status.
///
/// # Errors
/// It cannot be run, or the connection breaks.
pub async fn exec(client: &Client, command: Command) -> Result<ExitCode, Error> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && screen::KNOWN;
    let (up, frames) = mpsc::channel(QUEUE);
    let mut variables: std::collections::BTreeMap<String, String> = command.variables.into_iter().collect();
    if terminal && let Ok(kind) = std::env::var("TERM") {
        variables.entry("TERM".to_owned()).or_insert(kind);
    }
    let start = v1::ExecStart {
        environment: command.environment,
        service: command.service,
        command: Some(v1::ExecCommand { argv: command.argv, terminal, size: screen::size(), environment: variables }),
    };
    let first = v1::ExecRequest { part: Some(v1::exec_request::Part::Start(start)) };
    let rest = |frame| v1::ExecRequest { part: Some(v1::exec_request::Part::Frame(frame)) };
    let requests = futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(frames), rest);
    let requests = futures::StreamExt::chain(tokio_stream::once(first), requests);
    let mut answers = client.environments().exec(requests).await?.into_inner();
    // Until the command runs, the terminal is the user's: Ctrl-C ends the wait.
    let mut raw = None;
    let mut out = std::io::stdout();
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(answer) = answers.message().await? {
        match answer.frame {
            Some(Frame::Open(_)) => {
                raw = terminal.then(screen::raw).flatten();
                tasks.spawn(read_input(up.clone()));
                tasks.spawn(screen::watch(up.clone(), terminal));
            }
            Some(Frame::Data(bytes)) => {
                let _ = out.write_all(&bytes).and_then(|()| out.flush());
            }
            Some(Frame::Errors(bytes)) => {
                let _ = std::io::stderr().write_all(&bytes);
            }
            Some(Frame::Exit(status)) => {
                drop(raw);
                return Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)));
            }
            Some(Frame::Refused(reason)) => {
                drop(raw);
                return Err(refused(&reason));
            }
            _ => {}
        }
    }
    drop(raw);
    Err(broken())
}

/// Standard input, piece by piece, then its end.
async fn read_input(up: mpsc::Sender<v1::TunnelFrame>) {
    let (pieces, mut read) = mpsc::channel::<Vec<u8>>(1);
    // A thread of its own, which nothing waits for: a read of a terminal cannot be taken back.
    std::thread::spawn(move || {
        let mut input = std::io::stdin();
        let mut buffer = vec![0; CHUNK];
        while let Ok(count) = std::io::Read::read(&mut input, &mut buffer) {
            if count == 0 || pieces.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    while let Some(piece) = read.recv().await {
        if up.send(frame(Frame::Data(piece.into()))).await.is_err() {
            return;
        }
    }
    let _ = up.send(frame(Frame::End(true))).await;
}

/// Carries one connection to a service's container port.
///
/// # Errors
/// The service cannot be reached.
pub async fn forward<S>(client: &Client, environment: &str, service: &str, port: u16, stream: S) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (up, frames) = mpsc::channel(QUEUE);
    let start =
        v1::ForwardStart { environment: environment.to_owned(), service: service.to_owned(), port: u32::from(port) };
    let first = v1::ForwardRequest { part: Some(v1::forward_request::Part::Start(start)) };
    let rest = |frame| v1::ForwardRequest { part: Some(v1::forward_request::Part::Frame(frame)) };
    let requests = futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(frames), rest);
    let requests = futures::StreamExt::chain(tokio_stream::once(first), requests);
    let mut answers = client.environments().forward(requests).await?.into_inner();
    let (mut read, mut write) = tokio::io::split(stream);
    let inward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = read.read(&mut buffer).await.unwrap_or(0);
            let piece = if count == 0 {
                Frame::End(true)
            } else {
                Frame::Data(bytes::Bytes::copy_from_slice(&buffer[..count]))
            };
            if up.send(frame(piece)).await.is_err() || count == 0 {
                // The answer is still on its way.
                return std::future::pending::<Result<(), Error>>().await;
            }
        }
    };
    let outward = async {
        while let Some(answer) = answers.message().await? {
            match answer.frame {
                Some(Frame::Data(bytes)) => match write.write_all(&bytes).await {
                    Ok(()) => {}
                    Err(_gone) => return Ok(()),
                },
                Some(Frame::End(_)) => {
                    let _ = write.shutdown().await;
                    return Ok(());
                }
                Some(Frame::Refused(reason)) => return Err(refused(&reason)),
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}
