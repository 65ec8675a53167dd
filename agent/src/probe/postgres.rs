//! A start-up packet is all it takes: no credentials, and no session when the server asks for a password.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Said;

/// Longest error message that is read.
const LONGEST: usize = 8 << 10;

pub(super) async fn ask(mut stream: TcpStream) -> io::Result<Said> {
    stream.write_all(&startup()).await?;
    let mut head = [0_u8; 5];
    stream.read_exact(&mut head).await?;
    match head[0] {
        b'R' => {
            // Terminate: where no password is asked for, a session has begun.
            stream.write_all(&[b'X', 0, 0, 0, 4]).await.ok();
            Ok(Said::answered(true, "accepts connections"))
        }
        b'E' => {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0_u8; length.saturating_sub(4).min(LONGEST)];
            stream.read_exact(&mut body).await?;
            Ok(refusal(&body))
        }
        other => Ok(Said::broken(format!("not PostgreSQL: the answer begins with byte {other:#04x}"))),
    }
}

fn startup() -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for text in ["user", "postgres", "database", "postgres", "application_name", "muster probe"] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend_from_slice(&body);
    packet
}

/// Class 57 is the operator's hand (57P03: starting up, shutting down, in recovery); any other refusal comes from a running server.
fn refusal(body: &[u8]) -> Said {
    let mut code = String::new();
    let mut message = String::new();
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', rest)) => code = String::from_utf8_lossy(rest).into_owned(),
            Some((b'M', rest)) => message = String::from_utf8_lossy(rest).into_owned(),
            _ => {}
        }
    }
    Said::answered(!code.is_empty() && !code.starts_with("57"), format!("{code} {message}"))
}
