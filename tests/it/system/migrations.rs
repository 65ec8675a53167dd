//! Services that are done once on data that is there already: it is kept as it was before.

use tests::harness::real;

use super::stand::Stand;

const STACK: &str = r#"
services:
  postgres:
    image: postgres:15
    environment: { POSTGRES_PASSWORD: s3cret-of-mine, STAND_IN_COPIES: 1 }
    ports: ["5432"]
    volumes: ["data:/var/lib/postgresql/data"]
  migrate:
    image: postgres:15
    depends_on: { postgres: { condition: service_healthy } }
    environment: { PGPASSWORD: s3cret-of-mine, STEP: one }
    entrypoint: ["psql", "-h", "postgres", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c"]
    command: ["CREATE TABLE IF NOT EXISTS done (id serial PRIMARY KEY); INSERT INTO done DEFAULT VALUES"]
  cache:
    image: redis:7
    depends_on: { migrate: { condition: service_completed_successfully } }
volumes: { data: {} }
"#;

#[test]
fn an_undo_brings_back_what_the_data_was_before_a_migration() {
    let Some(_turn) = real::turn() else { return };
    let stand = Stand::open(STACK);
    let done = || stand.query("e", "SELECT count(*) FROM done");
    stand.muster(&["env", "up", "--name", "e"]).ok();
    assert_eq!(done().as_deref(), Ok("1"));
    let url = stand.variable("e", "postgres", "POSTGRES_URL");
    stand.muster(&["env", "undo", "e"]).run().with_code(4).says("E_ENV_NO_UNDO");

    // Again, on data that is there.
    stand.muster(&["env", "restart", "migrate", "-e", "e"]).ok();
    assert_eq!(done().as_deref(), Ok("2"));
    stand.query("e", "CREATE TABLE later ()").expect("made");
    stand.muster(&["env", "undo", "e"]).ok();
    assert_eq!(done().as_deref(), Ok("2"), "it was done again on what was there before");
    assert!(stand.query("e", "SELECT FROM later").is_err(), "that came after it");

    // A stack that says something else of it; of anything else nothing is kept.
    let began = || stand.query("e", "SELECT pg_postmaster_start_time()").expect("a time");
    let before = began();
    stand.file("compose.yaml", STACK.replace("redis:7\n", "redis:7\n    environment: { A: b }\n"));
    stand.muster(&["env", "up", "--name", "e"]).ok();
    assert_eq!((done().as_deref(), began()), (Ok("2"), before));
    stand.file("compose.yaml", STACK.replace("STEP: one", "STEP: two"));
    stand.muster(&["env", "up", "--name", "e"]).ok();
    assert_eq!(done().as_deref(), Ok("3"));
    stand.cluster.muster(&["events"]).ok().says("its data is kept as it was before migrate");
    assert_eq!(stand.variable("e", "postgres", "POSTGRES_URL"), url, "ports and credentials stay");
    stand.ends();
}
