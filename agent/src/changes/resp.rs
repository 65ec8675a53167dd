//! The little of Redis' protocol that a comparison speaks. What is read is bounded: of a long text only its beginning is
//! kept, and a digest of it all.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Bytes of a text that are kept.
const KEPT: usize = 8 << 10;
/// Longest text that a server may announce.
const MOST_BYTES: u64 = 1 << 30;
/// Most elements of one answer.
const MOST_ELEMENTS: usize = 1 << 20;
/// Longest line that begins an answer.
const MOST_LINE: u64 = 64 << 10;
/// How deep answers are nested.
const MOST_DEPTH: usize = 8;
/// Questions that are on their way together.
const TOGETHER: usize = 256;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Number(i64),
    /// A text: its beginning, and the digest of all of it.
    Text(Vec<u8>, u128),
    /// Several.
    List(Vec<Reply>),
}

/// Puts a digest behind others; another order gives another digest.
pub(super) fn chain(before: u128, next: u128) -> u128 {
    let mut hash = Sha256::new();
    hash.update(before.to_le_bytes());
    hash.update(next.to_le_bytes());
    short(hash)
}

fn short(hash: Sha256) -> u128 {
    let all: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    first.copy_from_slice(&all[..16]);
    u128::from_le_bytes(first)
}

fn digest(bytes: &[u8]) -> u128 {
    short(Sha256::new_with_prefix(bytes))
}

impl Reply {
    /// Its text; a number in digits, nothing for the rest.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes, _) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Nil | Self::List(_) => String::new(),
        }
    }

    /// The beginning of a text.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes, _) => bytes,
            _ => &[],
        }
    }

    /// A number; 0 for everything else.
    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            _ => 0,
        }
    }

    /// The elements of a list.
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::List(all) => all,
            _ => &[],
        }
    }

    /// Of all of it, in its order.
    pub fn digest(&self) -> u128 {
        match self {
            Self::Nil => 1,
            Self::Number(number) => chain(2, u128::from(number.cast_unsigned())),
            Self::Text(_, digest) => *digest,
            Self::List(all) => all.iter().fold(3, |before, one| chain(before, one.digest())),
        }
    }

    /// A cursor and whole keys. A key that is too long to be kept is left out.
    pub fn scanned(&self) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
        let [cursor, keys] = self.elements() else { return None };
        let whole = |one: &&Self| digest(one.bytes()) == one.digest();
        Some((cursor.bytes().to_vec(), keys.elements().iter().filter(whole).map(|one| one.bytes().to_vec()).collect()))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects.
    pub async fn open(address: IpAddr, port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect((address, port)).await.map_err(|why| why.to_string())?;
        let _ = stream.set_nodelay(true);
        Ok(Self(BufReader::with_capacity(64 << 10, stream)))
    }

    /// One question, one answer.
    pub async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply, String> {
        self.ask_all(&[words.to_vec()]).await?.pop().ok_or_else(|| "no answer".to_owned())
    }

    /// Many questions at once; the first one that is refused refuses them all.
    pub async fn ask_all(&mut self, questions: &[Vec<&[u8]>]) -> Result<Vec<Reply>, String> {
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(TOGETHER) {
            let mut request = Vec::new();
            for words in some {
                request.extend(format!("*{}\r\n", words.len()).into_bytes());
                for word in words {
                    request.extend(format!("${}\r\n", word.len()).into_bytes());
                    request.extend_from_slice(word);
                    request.extend_from_slice(b"\r\n");
                }
            }
            self.0.get_mut().write_all(&request).await.map_err(|why| why.to_string())?;
            for _ in some {
                answers.push(read(&mut self.0, 0).await?);
            }
        }
        Ok(answers)
    }
}

async fn read<R: AsyncBufRead + Unpin + Send>(from: &mut R, depth: usize) -> Result<Reply, String> {
    let broken = |why: std::io::Error| why.to_string();
    let odd = || "its answer is not understood".to_owned();
    let mut line = Vec::new();
    (&mut *from).take(MOST_LINE).read_until(b'\n', &mut line).await.map_err(broken)?;
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| "it closed the connection".to_owned())?;
    let (kind, rest) = line.split_first().ok_or_else(odd)?;
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'+' => Ok(Reply::Text(rest.to_vec(), digest(rest))),
        b'-' => Err(text.into_owned()),
        b':' => text.parse().map(Reply::Number).map_err(|_| odd()),
        b'$' if text == "-1" => Ok(Reply::Nil),
        b'*' if text == "-1" => Ok(Reply::Nil),
        b'$' => {
            let length: u64 = text.parse().ok().filter(|length| *length <= MOST_BYTES).ok_or_else(odd)?;
            bulk(from, length).await.map_err(broken)
        }
        b'*' if depth < MOST_DEPTH => {
            let length: usize = text.parse().ok().filter(|length| *length <= MOST_ELEMENTS).ok_or_else(odd)?;
            let mut all = Vec::new();
            for _ in 0..length {
                all.push(Box::pin(read(from, depth + 1)).await?);
            }
            Ok(Reply::List(all))
        }
        _ => Err(odd()),
    }
}

async fn bulk<R: AsyncBufRead + Unpin + Send>(from: &mut R, length: u64) -> std::io::Result<Reply> {
    let (mut hash, mut kept, mut left) = (Sha256::new(), Vec::new(), length);
    while left > 0 {
        let piece = from.fill_buf().await?;
        if piece.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        hash.update(&piece[..count]);
        kept.extend_from_slice(&piece[..count.min(KEPT.saturating_sub(kept.len()))]);
        from.consume(count);
        left -= count as u64;
    }
    let mut end = [0; 2];
    from.read_exact(&mut end).await?;
    Ok(Reply::Text(kept, short(hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(bytes: &[u8]) -> Result<Reply, String> {
        read(&mut BufReader::new(bytes), 0).await
    }

    #[tokio::test]
    async fn answers_are_read() {
        let reply = parsed(b"*3\r\n:7\r\n$3\r\nabc\r\n*2\r\n$-1\r\n+OK\r\n").await.expect("a list");
        let [number, text, list] = reply.elements() else { panic!("{reply:?}") };
        assert_eq!((number.number(), text.text(), list.elements().len()), (7, "abc".to_owned(), 2));
        assert_eq!(list.elements()[0], Reply::Nil);
        assert_eq!(parsed(b"-ERR no such thing\r\n").await, Err("ERR no such thing".to_owned()));
    }

    #[tokio::test]
    async fn broken_and_boundless_answers_are_refused() {
        let deep = b"*1\r\n".repeat(20);
        let long = [b"+".to_vec(), vec![b'x'; 100_000], b"\r\n".to_vec()].concat();
        let bad: [&[u8]; 8] =
            [b"", b"\r\n", b"$9999999999999\r\n", b"*99999999\r\n", b"$5\r\nab", b"?x\r\n", &deep, &long];
        for bytes in bad {
            assert!(parsed(bytes).await.is_err(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
        }
    }

    #[tokio::test]
    async fn of_a_long_text_its_beginning_is_kept_and_all_of_it_is_digested() {
        let text = |last: u8| {
            let mut bytes = format!("${}\r\n", KEPT + 100).into_bytes();
            bytes.extend(vec![b'x'; KEPT + 99]);
            bytes.extend([last, b'\r', b'\n']);
            bytes
        };
        let (one, two) = (parsed(&text(b'1')).await.expect("a text"), parsed(&text(b'2')).await.expect("a text"));
        assert_eq!((one.bytes().len(), one.bytes() == two.bytes()), (KEPT, true));
        assert_ne!(one.digest(), two.digest());
        assert_ne!(chain(1, 2), chain(2, 1));
    }
}
