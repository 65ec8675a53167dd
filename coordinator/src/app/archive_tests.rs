use std::io::{Cursor, Read};

use sha2::{Digest as _, Sha256};

use super::*;

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// An archive with two layers in the older layout; the second layer's path is longer than a plain tar name.
fn archive(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let layers = [vec![1; 3000], vec![2; 1000]];
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["sha256:{}","sha256:{}"]}}}}"#,
        sha(&layers[0]),
        sha(&layers[1])
    );
    let config_path = format!("{}.json", sha(config.as_bytes()));
    let long = format!("{}/layer.tar", "l".repeat(120));
    let manifest = format!(r#"[{{"Config":"{config_path}","RepoTags":["bot:v1"],"Layers":["a/layer.tar","{long}"]}}]"#);
    let [first, second] = layers;
    let mut files = vec![
        ("a/VERSION".to_owned(), b"1.0".to_vec()),
        ("a/layer.tar".to_owned(), first),
        (long, second),
        (config_path, config.into_bytes()),
        ("manifest.json".to_owned(), manifest.into_bytes()),
    ];
    change(&mut files);
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, Cursor::new(content)).unwrap();
    }
    builder.into_inner().unwrap()
}

async fn store(bytes: &[u8]) -> (tempfile::TempDir, Stored) {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::in_folder(folder.path()).unwrap();
    let mut upload = artifacts.upload(1 << 30).await.unwrap();
    upload.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    (folder, upload.finish().await.unwrap())
}

fn names(bytes: &[u8], ranges: &[Range<u64>]) -> Vec<String> {
    let mut tar = Vec::new();
    for range in ranges {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        tar.extend_from_slice(&bytes[range]);
    }
    tar.extend_from_slice(&[0; 1024]);
    let mut archive = tar::Archive::new(Cursor::new(tar));
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry: tar::Entry<'_, Cursor<Vec<u8>>> = entry.unwrap();
        std::io::copy(&mut entry.by_ref(), &mut std::io::sink()).unwrap();
        entry.path().unwrap().to_string_lossy().into_owned()
    };
    archive.entries().unwrap().map(name).collect()
}

#[tokio::test]
async fn an_archive_is_known_by_the_hash_of_its_configuration() {
    let bytes = archive(|_| {});
    let (_folder, stored) = store(&bytes).await;
    let read = read(&Source::Stored(&stored)).await.unwrap();
    assert_eq!(read.platform, "linux/amd64");
    assert!(read.config_path.starts_with(read.config_digest.hex()));
    assert_eq!(read.layers().count(), 2);
}

#[tokio::test]
async fn layers_that_a_host_has_are_left_out_and_the_rest_is_a_good_archive() {
    let bytes = archive(|_| {});
    let (_folder, stored) = store(&bytes).await;
    let read = read(&Source::Stored(&stored)).await.unwrap();
    let second = Digest::parse(&sha(&[2; 1000])).unwrap();
    let without = names(&bytes, &read.without(&BTreeSet::from([second])));
    assert_eq!(without.len(), 4);
    assert!(!without.iter().any(|name| name.starts_with("lll")), "{without:?}");
    assert_eq!(names(&bytes, &read.without(&BTreeSet::new())).len(), 5);
    let head = names(&bytes, &read.head());
    assert_eq!(head, [read.config_path.clone(), "manifest.json".to_owned()]);
}

#[tokio::test]
async fn other_files_are_refused_with_what_is_wrong() {
    let cut = archive(|_| {});
    let compressed = [&[0x1f, 0x8b][..], &[0; 600]].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"hello".to_vec(), "manifest.json"),
        (vec![7; 2048], "no tar header"),
        (compressed, "compressed"),
        (cut[..2000].to_vec(), "cut off"),
        (archive(|files| files.retain(|(name, _)| name != "manifest.json")), "manifest.json"),
        (archive(|files| files.retain(|(name, _)| name != "a/layer.tar")), "layer"),
        (archive(|files| files[3].1.push(b' ')), "another hash"),
        (archive(|files| files[4].1 = b"[]".to_vec()), "no image"),
        (archive(|files| files[4].1 = b"{".to_vec()), "manifest.json"),
    ];
    for (bytes, expected) in cases {
        let (_folder, stored) = store(&bytes).await;
        let error = read(&Source::Stored(&stored)).await.unwrap_err();
        assert_eq!(error.reason(), "E_ARCHIVE", "{error}");
        assert!(error.text.contains(expected), "{expected}: {error}");
    }
}
