//! `PING` needs no password to show that the server is up.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Said;

pub(super) async fn ask(mut stream: TcpStream) -> io::Result<Said> {
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut line = Vec::new();
    let mut buffer = [0_u8; 256];
    while !line.contains(&b'\n') && line.len() < 1024 {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    // -LOADING, -MASTERDOWN and the like are answers of a server that is not ready.
    let ours = text.starts_with('+') || text.starts_with('-');
    Ok(if text.starts_with("+PONG") {
        Said::answered(true, "answers PING")
    } else if text.starts_with("-NOAUTH") {
        // Not an error of whoever reads this: nobody gave the probe the password.
        Said::answered(true, "answers, and asks for a password")
    } else if ours {
        Said::answered(false, text)
    } else {
        Said::broken(format!("not Redis: {text}"))
    })
}
