//! Files of other people: read, or refused with reasons.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use manifest::stack::{Input, Reading};
use manifest::{Code, Problem, app, stack};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The stack files of others, by name.
fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/awesome-compose");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|file| file.expect("an entry"))
        .map(|file| {
            (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).expect("a text"))
        })
        .collect();
    files.sort();
    files
}

fn read(file: &str, text: &str) -> Result<Reading, Vec<Problem>> {
    // Their secrets did not come with them.
    let files = |path: &str| path.ends_with("password.txt").then(|| "x\n".to_owned());
    stack::read(Input { file, text, variables: &BTreeMap::new(), files: &files })
}

/// Files of the corpus that are refused, and the only reasons that each may have.
const REFUSED: [(&str, &[Code]); 3] = [
    ("pihole-cloudflared-DoH.yaml", &[Code::StackUnsupported, Code::StackRefused]),
    ("portainer.yaml", &[Code::StackRefused]),
    ("wasmedge-mysql-nginx.yaml", &[Code::StackRefused]),
];

#[test]
fn files_of_others_are_read_or_refused_with_reasons() {
    let files = corpus();
    let mut refused = 0;
    for (name, text) in &files {
        let expected = REFUSED.iter().find(|(refused, _)| refused == name).map(|(_, codes)| *codes);
        match (read(name, text), expected) {
            (Ok(reading), None) => println!(
                "read     {name}: {} services, {} notices",
                reading.stack.services.len(),
                reading.notices.len()
            ),
            (Ok(_), Some(_)) => panic!("{name} is read, but should be refused"),
            (Err(problems), expected) => {
                refused += 1;
                problems.iter().for_each(|problem| println!("refused  {problem}"));
                let expected =
                    expected.unwrap_or_else(|| panic!("{name} is refused, but should be read: {problems:#?}"));
                assert!(
                    problems.iter().all(|problem| expected.contains(&problem.code) && !problem.hint.is_empty()),
                    "{problems:#?}"
                );
            }
        }
    }
    println!("{} read, {refused} refused", files.len() - refused);
    assert_eq!(refused, REFUSED.len());
}

#[test]
fn the_example_app_is_read() {
    let folder = repository().join("examples/bot");
    let text =
        |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let bot = app::read("muster.yaml", &text("muster.yaml")).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(!bot.processes.is_empty() && !bot.targets.is_empty() && !bot.tests.is_empty());
    let path = bot.stack.expect("the example has a stack");
    let reading = read(&path, &text(&path)).unwrap_or_else(|problems| panic!("{problems:#?}"));
    for test in bot.tests.values() {
        let service = test.service.as_ref().expect("the example's tests run in a service");
        assert!(reading.stack.services.contains_key(service.as_str()));
    }
    assert_eq!(reading.stack.services.values().filter(|service| service.store.is_some()).count(), 2);
}
