//! The table's file: header line with checksum, then the table; replaced as a whole and synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::protocol::{Code, Refusal};
use super::table::Table;

const MAX_FILE_BYTES: u64 = 32 << 20;
const FORMAT: &str = "muster-relay-table";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    sha256: String,
}

/// The table together with its file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    pub table: Table,
    /// Why the stored table could not be used at this start, and where it lies now.
    pub lost: Option<String>,
}

impl Store {
    /// Reads the table of `dir`; one that cannot be understood is moved aside and reported in `lost`.
    ///
    /// # Errors
    /// When the file can neither be read nor moved.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("table.json");
        let (table, lost) = match read(&path) {
            Ok(table) => (table, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Table::default(), None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = free_name(dir)?;
                fs::rename(&path, &aside)?;
                (Table::default(), Some(format!("{error}; it was moved to {}", aside.display())))
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path, table, lost })
    }

    /// Stores `next` durably, then makes it the table.
    ///
    /// # Errors
    /// When it could not be made durable; the table in memory is unchanged then.
    pub async fn replace(&mut self, next: Table) -> Result<(), Refusal> {
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || write(&path, &next).map(|()| next)).await;
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(
                Code::TableWrite,
                format!("the relay's table could not be stored: {error}; nothing was changed"),
            )
        };
        match written {
            Ok(Ok(table)) => {
                self.table = table;
                Ok(())
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn corrupt(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn read(path: &Path) -> io::Result<Table> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(corrupt("the table is too large"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt("the table has no header"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header = serde_json::from_slice(head)
        .map_err(|error| corrupt(format!("the table's header is not readable: {error}")))?;
    if header.format != FORMAT || header.version != VERSION {
        return Err(corrupt(format!(
            "the table has format {} {}, not {FORMAT} {VERSION}",
            header.format, header.version
        )));
    }
    if header.sha256 != checksum(body) {
        return Err(corrupt("the table's checksum does not fit"));
    }
    serde_json::from_slice(body).map_err(|error| corrupt(format!("the table is not readable: {error}")))
}

/// Writes beside, syncs, renames, syncs the folder: after a crash the file is the old or the new one.
fn write(path: &Path, table: &Table) -> io::Result<()> {
    let body = serde_json::to_vec(table)?;
    let header = Header { format: FORMAT.to_owned(), version: VERSION, sha256: checksum(&body) };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    let beside = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn checksum(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

fn free_name(dir: &Path) -> io::Result<PathBuf> {
    (1..1000)
        .map(|number| dir.join(format!("table.json.unreadable-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| corrupt("too many unreadable tables were moved aside"))
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{Mode, RouteSpec};
    use super::*;

    fn table() -> Table {
        let mut table = Table::default();
        let route = RouteSpec {
            port: 80,
            bind: [127, 0, 0, 1].into(),
            mode: Mode::Tcp,
            key: "env:1:postgres".to_owned(),
            release: "r1".to_owned(),
            generation: 5,
            endpoint: Some(([172, 17, 0, 2], 5432).into()),
            held: false,
        };
        table.set(route, "boot-1");
        table.remove(81, "gone", 3);
        table.reservations.insert("env:1:redis".to_owned(), 20_000);
        table
    }

    #[tokio::test]
    async fn a_stored_table_is_read_back_and_a_changed_byte_moves_it_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(dir.path()).expect("an empty folder");
        let next = table();
        store.replace(next.clone()).await.expect("a writable folder");
        let again = Store::open(dir.path()).expect("readable");
        assert_eq!((again.table, again.lost), (next, None));

        let path = dir.path().join("table.json");
        let whole = fs::read(&path).expect("readable");
        let mut flipped = whole.clone();
        let last = flipped.len() - 2;
        flipped[last] ^= 1;
        let cut = whole[..whole.len() / 2].to_vec();
        for (number, bad) in [flipped, cut, Vec::new(), b"{}\n{}".to_vec(), vec![0xff; 100]].into_iter().enumerate() {
            fs::write(&path, &bad).expect("writable");
            let lost = Store::open(dir.path()).expect("moved aside");
            assert_eq!(lost.table, Table::default());
            let aside = dir.path().join(format!("table.json.unreadable-{}", number + 1));
            assert!(lost.lost.expect("reported").contains(&aside.display().to_string()));
            assert_eq!(fs::read(aside).expect("kept"), bad);
        }
    }

    #[tokio::test]
    async fn a_table_that_cannot_be_stored_changes_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(dir.path()).expect("an empty folder");
        dir.close().expect("removed");
        let next = table();
        let refused = store.replace(next).await.expect_err("the folder is gone");
        assert_eq!(refused.code, Code::TableWrite);
        assert_eq!(store.table, Table::default());
    }
}
