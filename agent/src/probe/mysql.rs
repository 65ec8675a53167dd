//! MySQL greets first; its images switch the host cache off, so that greetings left unanswered block nobody.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Said;

/// Refusals of a server that is up: too many connections, too many broken ones from here, nobody may come from here.
const UP: [u16; 3] = [1040, 1129, 1130];

pub(super) async fn ask(mut stream: TcpStream) -> io::Result<Said> {
    let mut head = [0_u8; 4];
    stream.read_exact(&mut head).await?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
    let mut body = vec![0_u8; length.min(1024)];
    stream.read_exact(&mut body).await?;
    Ok(match body.split_first() {
        Some((10, rest)) => {
            let version = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            Said::answered(true, format!("MySQL {}", String::from_utf8_lossy(version)))
        }
        Some((0xff, [low, high, message @ ..])) => {
            let code = u16::from_le_bytes([*low, *high]);
            Said::answered(UP.contains(&code), format!("{code} {}", String::from_utf8_lossy(message)))
        }
        _ => Said::broken("not MySQL: no greeting of protocol 10"),
    })
}
