//! What is secret in rows of environments does not lie in the database's files.

use super::super::environment::EnvironmentRow;
use super::super::{Error, Result, Store};
use super::bed::Bed;
use super::samples::environment;

const PLANTED: &str = "hunter2-planted";

/// An environment with a secret in its stack, its variables and its files.
fn secret() -> EnvironmentRow {
    let mut row = environment(1, "bot");
    row.environment.stack_file = format!("services: {{ db: {{ environment: {{ PASSWORD: {PLANTED} }} }} }}\n");
    row.environment.variables.insert("PASSWORD".to_owned(), PLANTED.to_owned());
    row.env_files.insert("secret.txt".to_owned(), PLANTED.repeat(1000));
    row
}

/// What the row was before this binary: nothing of it sealed.
fn plain(row: &EnvironmentRow, sealed: &str) -> String {
    format!(
        "UPDATE environments SET stack_file = '{}', variables = '{}', env_files = '{}'{sealed}",
        row.environment.stack_file,
        serde_json::to_string(&row.environment.variables).unwrap(),
        serde_json::to_string(&row.env_files).unwrap(),
    )
}

/// The files of the database that hold the secret.
fn planted(bed: &Bed) -> Vec<String> {
    let folder = bed.file().parent().unwrap().to_owned();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let with = files.filter(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes())
    });
    with.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

async fn put(store: &Store, row: &mut EnvironmentRow) {
    let stored = row.clone();
    row.version = store.write(|tx| Box::pin(async move { tx.environment_put(&stored).await })).await.unwrap();
}

async fn get(store: &Store) -> Result<EnvironmentRow> {
    let id = environment(1, "bot").environment.id;
    store.read(|tx| Box::pin(async move { Ok::<_, Error>(tx.environment_get(id).await?.unwrap()) })).await
}

#[tokio::test]
async fn the_files_of_the_database_show_no_stack_variable_or_file() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    let mut row = secret();
    put(&store, &mut row).await;
    row.environment.observed.notices.push("changed".to_owned());
    put(&store, &mut row).await;
    assert_eq!(get(&store).await.unwrap(), row);
    assert_eq!(planted(&bed), [""; 0], "with its log beside it");
    store.close().await;
    assert_eq!(planted(&bed), [""; 0]);
    let store = bed.open().await;
    assert_eq!(get(&store).await.unwrap(), row);
    store.close().await;
}

#[tokio::test]
async fn a_row_from_before_is_read_and_sealed_by_its_next_write() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    let mut row = secret();
    put(&store, &mut row).await;
    store.close().await;
    bed.sql(&plain(&row, ", sealed = NULL")).await;
    assert_eq!(planted(&bed), ["muster.db"]);
    let store = bed.open().await;
    assert_eq!(get(&store).await.unwrap(), row);
    put(&store, &mut row).await;
    assert_eq!(get(&store).await.unwrap(), row);
    store.close().await;
    assert_eq!(planted(&bed), [""; 0], "also not in what the file does not use any more");
}

#[tokio::test]
async fn what_a_binary_before_this_one_wrote_later_counts() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    let mut row = secret();
    put(&store, &mut row).await;
    store.close().await;
    row.environment.variables.clear();
    bed.sql(&plain(&row, "")).await;
    let store = bed.open().await;
    assert_eq!(get(&store).await.unwrap(), row);
    put(&store, &mut row).await;
    assert_eq!(get(&store).await.unwrap(), row);
    store.close().await;
}

#[tokio::test]
async fn under_another_key_a_row_is_named_and_not_read() {
    let bed = Bed::sqlite();
    let store = bed.open().await;
    put(&store, &mut secret()).await;
    store.close().await;
    let store = bed.open_with(&[8; 32]).await;
    let error = get(&store).await.unwrap_err();
    assert_eq!(error.code(), "E_STORE_CORRUPT");
    assert!(error.to_string().contains(&secret().environment.id.to_string()), "{error}");
    store.close().await;
    // Without a key nothing is written in the open.
    let store = Store::sqlite(&bed.file()).await.unwrap();
    let refused = store.write(|tx| Box::pin(async move { tx.environment_put(&environment(2, "shop")).await })).await;
    assert_eq!(refused.unwrap_err().code(), "E_STORE_UNUSABLE");
    store.close().await;
}
