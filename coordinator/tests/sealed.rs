//! Variables and files of stacks reach hosts, and lie nowhere in the files of the database.

use std::path::Path;

use coordinator::store::Store;
use proto::v1;

use crate::seeds::{environments, up};
use crate::support::{Server, Session, as_};

const STACK: &str = "\
services:
  web:
    image: web:1
    environment: { PASSWORD: \"${PASSWORD}\", TOKEN: planted-in-the-stack }
    secrets: [key]
secrets: { key: { file: key.txt } }
";
const PLANTED: [&str; 4] = ["planted-variable", "planted-again", "planted-file", "planted-in-the-stack"];

fn ask(name: &str, password: &str) -> v1::UpEnvironmentRequest {
    v1::UpEnvironmentRequest {
        name: name.to_owned(),
        stack_file: STACK.to_owned(),
        variables: [("PASSWORD".to_owned(), password.to_owned())].into(),
        env_files: [("key.txt".to_owned(), "planted-file".to_owned())].into(),
        ..v1::UpEnvironmentRequest::default()
    }
}

async fn bring_up(server: &Server, token: &str, ask: v1::UpEnvironmentRequest) -> v1::Environment {
    environments(server).await.up(as_(token, ask)).await.unwrap().into_inner()
}

/// The host's next order has everything.
async fn ordered(session: &mut Session, generation: u64, password: &str) -> v1::EnvironmentOrder {
    let order = session.environment_order().await;
    assert_eq!((order.generation, order.stack_file.as_str()), (generation, STACK));
    assert_eq!(order.variables.get("PASSWORD").map(String::as_str), Some(password));
    assert_eq!(order.env_files.get("key.txt").map(String::as_str), Some("planted-file"));
    session.tell_environment(up(&order)).await;
    order
}

/// Whether a file of the folder holds the text.
fn holds(folder: &Path, text: &str) -> bool {
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test]
async fn a_copy_of_the_database_shows_no_secret_of_a_stack_and_everything_works_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(Store::sqlite(&folder.path().join("muster.db")).await.unwrap()).await;
    let host = server.host("box", "role=dev").await;
    let mut session = host.ready(&server).await;
    let (asha, ben) = (server.token("asha", "developer", "").await, server.token("ben", "developer", "").await);

    bring_up(&server, &asha, ask("mine", "planted-variable")).await;
    ordered(&mut session, 1, "planted-variable").await;
    let same = bring_up(&server, &asha, ask("mine", "planted-variable")).await;
    assert_eq!(same.generation, 1, "it is the same");
    bring_up(&server, &asha, ask("mine", "planted-again")).await;
    ordered(&mut session, 2, "planted-again").await;
    let restart = v1::RestartEnvironmentRequest { environment: "mine".to_owned(), service: "web".to_owned() };
    environments(&server).await.restart(as_(&asha, restart)).await.unwrap();
    ordered(&mut session, 3, "planted-again").await;
    let show = v1::ShowEnvironmentRequest { environment: "mine".to_owned() };
    let shown = environments(&server).await.show(as_(&asha, show)).await.unwrap().into_inner();
    assert_eq!((shown.generation, shown.state()), (3, v1::EnvironmentState::Ready));

    let snapshot = v1::SnapshotEnvironmentRequest {
        environment: "mine".to_owned(),
        name: "bug-4711".to_owned(),
        ..v1::SnapshotEnvironmentRequest::default()
    };
    environments(&server).await.snapshot(as_(&asha, snapshot)).await.unwrap();
    let work = session.seed_order().await;
    session.make(&work).await;
    let bare = v1::UpEnvironmentRequest {
        name: "copy".to_owned(),
        from: "asha/bug-4711".to_owned(),
        ..v1::UpEnvironmentRequest::default()
    };
    bring_up(&server, &ben, bare).await;
    ordered(&mut session, 1, "planted-again").await;

    assert!(holds(folder.path(), "bug-4711"), "the files are looked at");
    for planted in PLANTED {
        assert!(!holds(folder.path(), planted), "{planted}");
    }
}
