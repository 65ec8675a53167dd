//! Inputs of a seed: fetched from the coordinator, checked, unpacked.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt as _};
use proto::v1;
use sha2::{Digest as _, Sha256};

use super::Setup;
use super::moving::{self, Breaks};
use crate::environments::failure::Failure;

/// The part of the inputs' folder that is for repositories of snapshots.
pub(super) const REPOSITORIES: &str = "repositories";

/// Where the input of this number lies.
pub(super) fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(number.to_string())
}

/// Where a repository of snapshots is unpacked to.
pub(super) fn repository(folder: &Path, number: usize) -> PathBuf {
    folder.join(REPOSITORIES).join(number.to_string())
}

/// Fetches everything into `folder`. Compressed texts are unpacked.
pub(super) async fn fetch(
    setup: &Setup,
    order: &v1::SeedOrder,
    head: &v1::ImportSeedHead,
    folder: &Path,
) -> Result<(), Failure> {
    crate::files::private_dir(folder).map_err(|why| Failure::passing("E_POOL", why.to_string()))?;
    for (number, input) in head.inputs.iter().enumerate() {
        one(setup, &order.id, input, &path(folder, number)).await?;
        let (path, name) = (path(folder, number), input.name.clone());
        let packed = is_text(input.format());
        let unpacked = tokio::task::spawn_blocking(move || if packed { unpack(&path) } else { Ok(()) }).await;
        let failed = |why: String| Failure::lasting("E_SEED_INPUT", format!("{name} cannot be unpacked: {why}"));
        unpacked.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))?;
    }
    Ok(())
}

fn is_text(format: v1::SeedFormat) -> bool {
    matches!(format, v1::SeedFormat::Sql | v1::SeedFormat::Mask | v1::SeedFormat::Bulk | v1::SeedFormat::Script)
}

/// Fetches one of them; after a break it goes on where it was.
async fn one(setup: &Setup, order: &str, input: &v1::SeedInput, path: &Path) -> Result<(), Failure> {
    let mut coming = Coming::into(path).map_err(|why| disk(&input.name, &why))?;
    let mut breaks = Breaks::none(setup, v1::SeedWork::Unspecified, order);
    loop {
        setup.tell(order, &format!("fetching {}", input.name));
        let outcome = coming.go_on(setup, input).await;
        if let Some(done) = breaks.over(outcome).await {
            done?;
            return coming.check(input);
        }
    }
}

fn disk(name: &str, why: &io::Error) -> Failure {
    Failure::passing("E_POOL", format!("{name}: {why}"))
}

/// An input on its way: what has come stays when the way breaks.
struct Coming {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Coming {
    fn into(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, hash: Sha256::new(), length: 0 })
    }

    async fn go_on(&mut self, setup: &Setup, input: &v1::SeedInput) -> Result<(), Failure> {
        let channel = setup.channel.borrow().clone();
        let channel = channel.ok_or_else(|| Failure::passing(moving::AWAY, "the coordinator is away"))?;
        let request = v1::FetchRequest { digest: input.artifact.clone(), offset: self.length, ..Default::default() };
        let chunks = crate::session::client(channel).fetch(request).await.map_err(|status| moving::refused(&status))?;
        self.take(&input.name, chunks.into_inner()).await
    }

    async fn take<S>(&mut self, name: &str, mut chunks: S) -> Result<(), Failure>
    where
        S: Stream<Item = Result<v1::FetchChunk, tonic::Status>> + Unpin,
    {
        while let Some(chunk) = chunks.next().await {
            let data = chunk.map_err(|status| moving::refused(&status))?.data;
            self.file.write_all(&data).map_err(|why| disk(name, &why))?;
            self.hash.update(&data);
            self.length += data.len() as u64;
        }
        Ok(())
    }

    fn check(self, input: &v1::SeedInput) -> Result<(), Failure> {
        if hex::encode(self.hash.finalize()) == input.artifact {
            return Ok(());
        }
        Err(Failure::lasting("E_SEED_INPUT", format!("{} came with another hash than was announced", input.name)))
    }
}

/// Replaces a gzip file by its content.
fn unpack(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    if file.read(&mut magic)? < 2 || magic != [0x1f, 0x8b] {
        return Ok(());
    }
    file.rewind()?;
    let beside = path.with_extension("plain");
    let mut plain = File::create(&beside)?;
    io::copy(&mut flate2::read::MultiGzDecoder::new(io::BufReader::new(file)), &mut plain)?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_before_a_break_is_kept_and_the_rest_is_put_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path(folder.path(), 0);
        let chunk = |text: &'static str| Ok(v1::FetchChunk { data: text.into() });
        let broken = || Err(tonic::Status::unavailable("gone"));
        let mut coming = Coming::into(&path).expect("made");
        let first = futures::stream::iter([chunk("CREATE "), chunk("TABLE"), broken(), chunk("never")]);
        let failure = coming.take("dump.sql", first).await.expect_err("broken");
        assert_eq!((failure.code.as_str(), coming.length), (moving::AWAY, 12));
        coming.take("dump.sql", futures::stream::iter([chunk(" t;")])).await.expect("whole");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "CREATE TABLE t;");
        let artifact = hex::encode(Sha256::digest("CREATE TABLE t;"));
        let input = |artifact| v1::SeedInput { artifact, name: "dump.sql".to_owned(), ..Default::default() };
        assert!(coming.check(&input(artifact)).is_ok());
        let other = Coming::into(&path).expect("made").check(&input("00".to_owned())).expect_err("nothing came");
        assert_eq!(other.code, "E_SEED_INPUT");
    }

    #[test]
    fn a_compressed_text_is_unpacked_and_a_plain_one_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = path(folder.path(), 0);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"SELECT 1;").expect("packed");
        for content in [packed.finish().expect("packed"), b"SELECT 1;".to_vec(), b"S".to_vec()] {
            std::fs::write(&path, &content).expect("written");
            unpack(&path).expect("unpacked");
            let wanted = if content.len() == 1 { "S" } else { "SELECT 1;" };
            assert_eq!(std::fs::read_to_string(&path).expect("read"), wanted);
        }
        std::fs::write(&path, [0x1f, 0x8b, 0, 1]).expect("written");
        assert!(unpack(&path).is_err());
    }
}
