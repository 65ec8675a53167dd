//! Build contexts: a folder as a tar, always the same bytes for the same files, so that its hash names the image.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::ignore::Ignore;

/// Largest context in bytes.
pub const MAX_BYTES: u64 = 1 << 30;
/// Most files of a context.
pub const MAX_FILES: usize = 200_000;

/// A packed context.
#[derive(Debug)]
pub struct Context {
    /// The tar, at its beginning.
    pub file: File,
    /// SHA-256 of the tar.
    pub hash: String,
}

struct Hashing<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Packs `folder`, without what its `.dockerignore` leaves out. Links are packed as links, never followed.
///
/// # Errors
/// A file cannot be read, or the context is too large.
pub fn pack(folder: &Path, dockerfile: &str) -> io::Result<Context> {
    let ignore =
        std::fs::read_to_string(folder.join(".dockerignore")).map(|text| Ignore::parse(&text)).unwrap_or_default();
    let mut paths = Vec::new();
    list(folder, "", &ignore, dockerfile, &mut paths)?;
    paths.sort();
    let file = tempfile::tempfile()?;
    let mut tar = tar::Builder::new(Hashing { to: io::BufWriter::new(file), hash: Sha256::new() });
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    let mut bytes = 0_u64;
    for path in &paths {
        let source = folder.join(path);
        bytes += std::fs::symlink_metadata(&source)?.len();
        if bytes > MAX_BYTES {
            return Err(too_large(folder));
        }
        tar.append_path_with_name(&source, path)?;
    }
    let hashing = tar.into_inner()?;
    let hash = hex::encode(hashing.hash.finalize());
    let mut file = hashing.to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(Context { file, hash })
}

fn too_large(folder: &Path) -> io::Error {
    let text = format!(
        "the build context {} is larger than 1 GiB or {MAX_FILES} files; list what is not needed in .dockerignore",
        folder.display()
    );
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

fn list(root: &Path, below: &str, ignore: &Ignore, dockerfile: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        // The engine needs these two even where they are left out.
        let needed = path == dockerfile || path == ".dockerignore";
        let left_out = ignore.covers(&path) && !needed;
        if kind.is_dir() && (!left_out || ignore.has_exceptions()) {
            list(root, &path, ignore, dockerfile, paths)?;
        }
        // Sockets and devices cannot be part of an image.
        if !left_out && (kind.is_dir() || kind.is_file() || kind.is_symlink()) {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(too_large(root));
        }
    }
    Ok(())
}

/// The file's bytes in pieces.
#[must_use]
pub fn stream(file: File) -> crate::engine::ByteStream {
    use futures::StreamExt as _;
    let (send, receive) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut file = file;
        loop {
            let mut piece = vec![0; 256 << 10];
            let read = file.read(&mut piece).map(|length| {
                piece.truncate(length);
                bytes::Bytes::from(piece)
            });
            if matches!(&read, Ok(piece) if piece.is_empty()) || send.blocking_send(read).is_err() {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receive).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_hash_and_ignored_ones_do_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).expect("written");
        std::fs::create_dir_all(folder.path().join("node_modules/x")).expect("made");
        write("Dockerfile", "FROM scratch\n");
        write(".dockerignore", "node_modules\nDockerfile\n");
        write("app.py", "1");
        let hash = || pack(folder.path(), "Dockerfile").expect("packed").hash;
        let first = hash();
        write("node_modules/x/y", "z");
        write("app.py", "1");
        assert_eq!(hash(), first);
        write("app.py", "2");
        assert_ne!(hash(), first);
        let packed = pack(folder.path(), "Dockerfile").expect("packed");
        let mut archive = tar::Archive::new(packed.file);
        let names: Vec<String> = archive
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("an entry").path().expect("a path").to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, [".dockerignore", "Dockerfile", "app.py"]);
    }
}
