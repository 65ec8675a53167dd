//! What is true of SQLite only.

use super::super::{Error, PROJECT, Store};
use super::bed::Bed;
use super::samples::{host, name};
use super::transactions::{hosts, put_host};

async fn refused(bed: &Bed) -> Error {
    Store::sqlite(&bed.file()).await.expect_err("it must not open")
}

#[tokio::test]
async fn a_state_directory_has_one_coordinator() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    assert_eq!(refused(&bed).await.code(), "E_STATE_LOCKED");
    store.close().await;
    bed.open().await.close().await;
}

#[tokio::test]
async fn a_schema_that_needs_a_newer_binary_is_refused() {
    let bed = Bed::sqlite();
    bed.open().await.close().await;
    bed.sql("UPDATE meta SET value = '999' WHERE key = 'min_reader'").await;
    assert_eq!(refused(&bed).await.code(), "E_SCHEMA_TOO_NEW");
    bed.sql("UPDATE meta SET value = 'two' WHERE key = 'min_reader'").await;
    assert_eq!(refused(&bed).await.code(), "E_STORE_CORRUPT");
}

#[tokio::test]
async fn a_newer_schema_that_only_expanded_is_opened() {
    let bed = Bed::sqlite();
    bed.open().await.close().await;
    bed.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'newer', 1, x'00', 1)",
    )
    .await;
    bed.sql("ALTER TABLE hosts ADD COLUMN added TEXT NOT NULL DEFAULT 'x'").await;
    bed.sql("CREATE TABLE added (id TEXT NOT NULL PRIMARY KEY)").await;
    let store = bed.open().await;
    put_host(&store, 1, "web-1").await.unwrap();
    assert_eq!(hosts(&store).await, 1);
    store.close().await;
}

#[tokio::test]
async fn a_database_killed_without_a_clean_stop_opens_with_what_was_committed() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    put_host(&store, 1, "web-1").await.unwrap();
    drop(store);
    let store = bed.open().await;
    assert_eq!((hosts(&store).await, store.fence().epoch), (1, 2));
    store.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_after_an_unclean_stop() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    for number in 1..=50 {
        put_host(&store, number, &format!("web-{number}")).await.unwrap();
    }
    store.close().await;
    bed.sql("UPDATE meta SET value = '0' WHERE key = 'clean_stop'").await;
    let mut bytes = std::fs::read(bed.file()).unwrap();
    let at = bytes.windows(6).rposition(|window| window == b"web-50").expect("the name stands in the file");
    // The type of the page that holds it.
    bytes[at - at % 4096] = 0xff;
    std::fs::write(bed.file(), bytes).unwrap();
    let error = refused(&bed).await;
    assert_eq!(error.code(), "E_STORE_DAMAGED", "{error}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named() {
    let cases = [
        ("UPDATE hosts SET facts = '{'", "facts"),
        ("UPDATE hosts SET liveness = 'asleep'", "liveness"),
        ("UPDATE hosts SET name = 'Not A Name'", "name"),
        ("UPDATE hosts SET version = -1", "version"),
        ("UPDATE hosts SET joined_at = 'soon'", "joined_at"),
        ("UPDATE hosts SET certificate_fingerprint = 'x'", "certificate_fingerprint"),
        ("UPDATE hosts SET principal = 'x'", "principal"),
    ];
    for (edit, column) in cases {
        let bed = Bed::sqlite();
        let store = bed.open().await;
        put_host(&store, 1, "web-1").await.unwrap();
        store.close().await;
        bed.sql(edit).await;
        let store = bed.open().await;
        let id = host(1, "web-1").host.id;
        let error = store.read(|tx| Box::pin(async move { tx.host_get(id).await })).await.unwrap_err();
        assert_eq!(error.code(), "E_STORE_CORRUPT");
        let text = error.to_string();
        assert!(text.contains("hosts") && text.contains(&id.to_string()) && text.contains(column), "{text}");
        let other = store.read(|tx| Box::pin(async move { tx.host_by_name(PROJECT, &name("other")).await })).await;
        assert_eq!(other.unwrap(), None, "the store goes on");
        store.close().await;
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let error = Store::sqlite(std::path::Path::new("/proc/none/muster.db")).await.unwrap_err();
    assert_eq!(error.code(), "E_STORE_UNUSABLE");
    assert!(error.to_string().contains("/proc/none"), "{error}");
}

#[test]
fn every_table_of_things_has_a_project() {
    // What belongs to the cluster, and what is reached only through a row that has one.
    let without = ["meta", "leader_epoch", "leader_renewal", "ledger", "artifact_refs", "environment_data"];
    let sql = [
        include_str!("../../../../migrations/0001_initial.sql"),
        include_str!("../../../../migrations/0003_seeds.sql"),
    ]
    .concat();
    let tables = sql.split("CREATE TABLE ").skip(1);
    let mut checked = 0;
    for table in tables {
        let name = table.split_whitespace().next().unwrap();
        let columns = table.split("\n);").next().unwrap();
        assert_eq!(columns.contains("\n    project TEXT NOT NULL"), !without.contains(&name), "{name}");
        checked += 1;
    }
    assert!(checked > 20, "{checked} tables");
}
