//! Calls of the container engine made by hand: plain HTTP over its socket on one kept connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

/// One connection.
pub struct Engine(BufReader<UnixStream>);

impl Engine {
    /// To this machine's engine.
    pub fn connect() -> Self {
        Self(BufReader::new(UnixStream::connect("/var/run/docker.sock").expect("the engine's socket")))
    }

    /// Sends a request and reads its answer.
    pub fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} /v1.41{path} HTTP/1.1\r\nhost: docker\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all((head + &body).as_bytes()).expect("the engine reads");
        let status = self.line();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let answer = if chunked { self.chunks() } else { self.exactly(length) };
        let code: u16 = status.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        assert!(code < 400, "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the engine answers");
        line.trim_end().to_owned()
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("the engine answers");
        bytes
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk's size");
            all.extend(self.exactly(size));
            self.line();
            if size == 0 {
                return all;
            }
        }
    }
}
