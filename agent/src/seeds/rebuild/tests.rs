//! Seeds are taken apart and put together again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use proto::v1::{SeedEntry, SeedExtent, SeedIndex};

use crate::seeds::cutter::tests::noise;
use crate::seeds::index::{self, Hash, Index, hash};
use crate::seeds::rebuild::{self, Base};
use crate::seeds::scan::{self, Canaries, Tree};
use crate::seeds::sealed::{Part, Sealed, volume};

fn tree(folder: &Path) -> Tree {
    scan::read(folder, &Canaries::new(&[]).expect("none")).expect("read").expect("clean")
}

/// Seals what lies in the volume `db` of a folder.
fn seal(folder: &Path) -> Sealed {
    let part = Part { tree: tree(&volume(folder, "db")).hash, ..Part::unknown("db".to_owned()) };
    Sealed::new(vec![part], [].into(), false)
}

/// A volume with everything that one can hold.
fn seed(folder: &Path) -> Sealed {
    let db = volume(folder, "db");
    std::fs::create_dir_all(db.join("base/empty")).expect("made");
    std::fs::write(db.join("base/1"), noise(1, 700_000)).expect("written");
    std::fs::write(db.join("PG_VERSION"), "15\n").expect("written");
    std::fs::write(db.join("nothing"), "").expect("written");
    let mut sparse = vec![0; 1_000_000];
    sparse[500_000..600_000].copy_from_slice(&noise(2, 100_000));
    std::fs::write(db.join("base/sparse"), sparse).expect("written");
    std::fs::hard_link(db.join("base/1"), db.join("base/same")).expect("linked");
    std::os::unix::fs::symlink("base/1", db.join("link")).expect("linked");
    std::fs::set_permissions(db.join("base/1"), std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::set_permissions(&db, std::fs::Permissions::from_mode(0o700)).expect("set");
    seal(folder)
}

fn chunks(folder: &Path, of: &Index) -> BTreeMap<Hash, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in of.entries() {
        let bytes = std::fs::read(folder.join("volumes").join(index::path(entry))).unwrap_or_default();
        for (begins, chunk) in of.spots(entry) {
            let begins = usize::try_from(begins).expect("small");
            let piece = bytes[begins..begins + of.length(chunk)].to_vec();
            assert_eq!(hash(&piece), of.hash(chunk));
            all.insert(hash(&piece), piece);
        }
    }
    all
}

/// Lays a seed at `to`; answers how many bytes had to come.
fn pull(index: &Index, all: &BTreeMap<Hash, Vec<u8>>, to: &Path, bases: &[Base]) -> usize {
    std::fs::create_dir_all(volume(to, "db")).expect("made");
    let volumes = to.join("volumes");
    let lacking = rebuild::lay(index, &volumes, bases).expect("laid");
    let mut came = 0;
    for (chunk, spots) in &lacking {
        let bytes = &all[&index.hash(*chunk)];
        came += bytes.len();
        rebuild::put(index, &volumes, spots, bytes).expect("put");
    }
    rebuild::finish(index, &volumes).expect("finished");
    came
}

fn names() -> BTreeSet<&'static str> {
    ["db"].into()
}

#[test]
fn a_seed_is_put_together_as_it_was_and_its_index_survives_the_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let sealed = seed(&from);
    let index = Index::of_seed(&from, &sealed).expect("an index");
    assert_eq!(Index::decode(&index.encode(), &names()).expect("read"), index);
    assert!(from.join("index").exists(), "kept for the next time");
    assert_eq!(Index::of_seed(&from, &sealed).expect("an index"), index);
    let all = chunks(&from, &index);
    let came = pull(&index, &all, &to, &[]);
    assert!((800_000..900_000).contains(&came), "{came}: zeros and second names do not come");
    assert_eq!(seal(&to).digest, sealed.digest);
    let meta = |of: &Path| {
        let meta = volume(of, "db").join("base/1").metadata().expect("there");
        (meta.nlink(), meta.mtime_nsec(), meta.mode())
    };
    assert_eq!(meta(&to), meta(&from));
    assert_eq!(volume(&to, "db").metadata().expect("there").mode() & 0o777, 0o700);
}

#[test]
fn a_file_that_is_not_what_was_sealed_is_not_pushed() {
    let folder = tempfile::tempdir().expect("a folder");
    let sealed = seed(folder.path());
    std::fs::write(volume(folder.path(), "db").join("PG_VERSION"), "16\n").expect("written");
    let refused = Index::of_seed(folder.path(), &sealed).expect_err("changed");
    assert_eq!(refused.code, "E_SEED_DIGEST");
}

#[test]
fn what_another_seed_of_the_host_holds_does_not_come() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second, to) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("to"));
    let before = seed(&first);
    seed(&second);
    let db = volume(&second, "db");
    let mut changed = noise(1, 700_000);
    changed[300_000..308_192].copy_from_slice(&noise(9, 8192));
    std::fs::write(db.join("base/1"), changed).expect("written");
    std::fs::rename(db.join("base/sparse"), db.join("base/moved")).expect("renamed");
    let after = seal(&second);
    let index = Index::of_seed(&second, &after).expect("an index");
    let all = chunks(&second, &index);
    let base = || Base::new(first.join("volumes"), Index::of_seed(&first, &before).expect("an index"));
    let came = pull(&index, &all, &to, &[base()]);
    assert!((8192..400_000).contains(&came), "{came} bytes came");
    assert_eq!(seal(&to).digest, after.digest);
    // A damaged one gives nothing wrong.
    std::fs::write(volume(&first, "db").join("base/1"), vec![7; 700_000]).expect("written");
    std::fs::remove_dir_all(&to).expect("removed");
    let more = pull(&index, &all, &to, &[base()]);
    assert!(more > came, "{more}");
    assert_eq!(seal(&to).digest, after.digest);
}

#[test]
fn an_interrupted_attempt_keeps_what_is_right_and_mends_what_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let sealed = seed(&from);
    let index = Index::of_seed(&from, &sealed).expect("an index");
    let all = chunks(&from, &index);
    std::fs::create_dir_all(volume(&to, "db")).expect("made");
    let volumes = to.join("volumes");
    let lacking = rebuild::lay(&index, &volumes, &[]).expect("laid");
    let half = lacking.len() / 2;
    for (chunk, spots) in lacking.iter().take(half) {
        rebuild::put(&index, &volumes, spots, &all[&index.hash(*chunk)]).expect("put");
    }
    // What a crash left: bytes where there are none.
    let sparse = volume(&to, "db").join("base/sparse");
    let mut bytes = std::fs::read(&sparse).expect("read");
    bytes[..100].fill(9);
    std::fs::write(&sparse, bytes).expect("written");
    let left = rebuild::lay(&index, &volumes, &[]).expect("laid");
    assert_eq!(left.len(), lacking.len() - half);
    pull(&index, &all, &to, &[]);
    assert_eq!(seal(&to).digest, sealed.digest);
    assert_eq!(pull(&index, &all, &to, &[]), 0, "nothing is lacking any more");
    assert_eq!(seal(&to).digest, sealed.digest);
}

fn entry(path: &str, mode: u32) -> SeedEntry {
    SeedEntry { path: path.as_bytes().to_vec(), mode, ..SeedEntry::default() }
}

#[test]
fn an_index_that_leads_elsewhere_or_does_not_hold_together_is_refused() {
    const FOLDER: u32 = 0o040_700;
    const FILE: u32 = 0o100_600;
    const LINK: u32 = 0o120_777;
    let index = |entries: Vec<SeedEntry>| {
        let message = SeedIndex { format: 1, hashes: vec![7; 32], lengths: vec![10], entries };
        Index::decode(&prost::Message::encode_to_vec(&message), &names())
    };
    let db = || entry("db", FOLDER);
    let with = |extents: Vec<SeedExtent>, length| SeedEntry { extents, length, ..entry("db/a", FILE) };
    let extent = |offset, chunks: &[u32]| SeedExtent { offset, chunks: chunks.to_vec() };
    index(vec![db(), with(vec![extent(0, &[0, 0]), extent(30, &[0])], 40)]).expect("a good one");
    let bad = [
        vec![entry("other", FOLDER)],
        vec![entry("db", FILE)],
        vec![entry("db", LINK)],
        vec![db(), db()],
        vec![db(), entry("db/../x", FILE)],
        vec![db(), entry("/etc/passwd", FILE)],
        vec![db(), entry("db//a", FILE)],
        vec![db(), entry("db/", FILE)],
        vec![db(), entry("db/a/b", FILE)],
        vec![db(), entry("db/a", LINK), entry("db/a/b", FILE)],
        vec![db(), entry("db/a", LINK), entry("db/a", FOLDER)],
        vec![db(), entry("db/null", 0o020_666)],
        vec![db(), SeedEntry { same_as: b"db/b".to_vec(), ..entry("db/a", FILE) }],
        vec![db(), with(vec![extent(0, &[1])], 40)],
        vec![db(), with(vec![extent(0, &[0])], 9)],
        vec![db(), with(vec![extent(5, &[0]), extent(10, &[0])], 40)],
        vec![db(), with(vec![extent(u64::MAX, &[0])], u64::MAX)],
        vec![db(), with(vec![], u64::MAX)],
    ];
    for entries in bad {
        let shown = format!("{entries:?}");
        assert!(index(entries).is_err(), "{shown}");
    }
    let message = |hashes: usize, lengths: Vec<u32>, format| {
        let message = SeedIndex { format, hashes: vec![7; hashes], lengths, entries: vec![db()] };
        Index::decode(&prost::Message::encode_to_vec(&message), &names())
    };
    message(64, vec![1, 1], 1).expect("a good one");
    for (hashes, lengths, format) in
        [(64, vec![1], 1), (33, vec![1], 1), (32, vec![0], 1), (32, vec![u32::MAX], 1), (32, vec![1], 2)]
    {
        assert!(message(hashes, lengths, format).is_err());
    }
    assert!(Index::decode(b"\xff\xff\xff", &names()).is_err());
}
