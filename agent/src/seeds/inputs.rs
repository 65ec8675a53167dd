//! Inputs of a seed: fetched from the coordinator, checked, unpacked.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;

use futures::StreamExt as _;
use proto::v1;
use sha2::{Digest as _, Sha256};

use super::Setup;
use crate::environments::failure::Failure;
use crate::fetch::{self, Way};

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
    let disk = |why: io::Error| Failure::passing("E_POOL", format!("{}: {why}", input.name));
    let (teller, id, name) = (setup.clone(), order.to_owned(), input.name.clone());
    let told = move |way| match way {
        Way::Open => teller.tell(&id, &format!("fetching {name}")),
        Way::Broken => teller.tell(&id, "interrupted; waits for the coordinator"),
    };
    let request = v1::FetchRequest { digest: input.artifact.clone(), ..Default::default() };
    let mut chunks = pin!(fetch::fetch(setup.channel.clone(), request, told));
    let mut file = File::create(path).map_err(disk)?;
    let mut hash = Sha256::new();
    while let Some(data) = chunks.next().await {
        let data = data.map_err(|why| Failure::lasting(&why.code, format!("{}: {}", input.name, why.text)))?;
        file.write_all(&data).map_err(disk)?;
        hash.update(&data);
    }
    if hex::encode(hash.finalize()) == input.artifact {
        return Ok(());
    }
    Err(Failure::lasting("E_SEED_INPUT", format!("{} came with another hash than was announced", input.name)))
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
