//! Files of other people, whole and damaged: read or refused with reasons, never a panic.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use manifest::stack::{Input, Reading};
use manifest::{Code, Problem, app, stack};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The stack files of `corpora/compose`, by name; none where the folder is absent.
fn corpus() -> Vec<(String, String)> {
    let corpora =
        std::env::var_os("MUSTER_CORPORA").map_or_else(|| repository().join("../shared/corpora"), PathBuf::from);
    let Ok(folder) = std::fs::read_dir(corpora.join("compose")) else {
        println!("notice: no corpora at {}; set MUSTER_CORPORA", corpora.display());
        return Vec::new();
    };
    let mut files: Vec<_> = folder
        .filter_map(Result::ok)
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "yaml"))
        .map(|file| {
            (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).expect("a text"))
        })
        .collect();
    files.sort();
    files
}

fn read(file: &str, text: &str) -> Result<Reading, Vec<Problem>> {
    stack::read(Input { file, text, variables: &BTreeMap::new(), files: &|_| None })
}

/// Files of the corpus that are refused, and the only reasons that each may have.
const REFUSED: [(&str, &[Code]); 9] = [
    ("nginx-aspnet-mysql.yaml", &[Code::StackUnsupported]),
    ("nginx-flask-mysql.yaml", &[Code::StackUnsupported]),
    ("nginx-golang-postgres.yaml", &[Code::StackUnsupported]),
    ("pihole-cloudflared-DoH.yaml", &[Code::StackUnsupported, Code::StackRefused]),
    ("portainer.yaml", &[Code::StackRefused]),
    ("react-express-mysql.yaml", &[Code::StackUnsupported]),
    ("sparkjava-mysql.yaml", &[Code::StackUnsupported]),
    ("spring-postgres.yaml", &[Code::StackUnsupported]),
    ("wasmedge-mysql-nginx.yaml", &[Code::StackUnsupported, Code::StackRefused]),
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
    assert!(files.is_empty() || refused == REFUSED.len());
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

/// Numbers that are the same in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit.max(1)
    }
}

const PIECES: [&str; 32] = [
    "*",
    "&a ",
    "<<: ",
    "!x ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "\t",
    "\u{0}",
    "é",
    "${",
    "$$",
    "$X",
    "'",
    "\"",
    "|\n",
    ">\n",
    "# ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.3\n",
    "99999999999999999999",
    "-1",
    "\u{feff}",
    "\\",
    "~",
    "\r",
];

fn damage(text: &str, random: &mut Lcg) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(8) {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(20)).min(chars.len());
        match random.below(4) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, PIECES[random.below(PIECES.len())].chars())),
            2 => {
                let copied = chars[at..end].to_vec();
                let to = random.below(chars.len() + 1);
                drop(chars.splice(to..to, copied));
            }
            _ => drop(chars.splice(at..end, PIECES[random.below(PIECES.len())].chars())),
        }
    }
    chars.into_iter().collect()
}

#[test]
fn damaged_files_give_problems_and_never_a_panic() {
    let folder = repository().join("examples/bot");
    let mut seeds: Vec<String> = corpus().into_iter().map(|(_, text)| text).collect();
    seeds.extend(
        ["compose.yaml", "muster.yaml"]
            .map(|name| std::fs::read_to_string(folder.join(name)).expect("the example is there")),
    );
    let mut random = Lcg(20_261);
    let (mut good, mut bad) = (0, 0);
    for case in 0..2000 {
        let text = damage(&seeds[case % seeds.len()], &mut random);
        let outcomes = [
            read("f", &text).err(),
            app::read("f", &text).err(),
            manifest::dotenv::parse("f", &text, &BTreeMap::new()).err(),
        ];
        let lines = u32::try_from(text.split('\n').count() + text.matches('\r').count() + 1).unwrap_or(u32::MAX);
        for problems in outcomes {
            let Some(problems) = problems else {
                good += 1;
                continue;
            };
            bad += 1;
            assert!(!problems.is_empty(), "{text:?}");
            assert!(
                problems.iter().all(|problem| (1..=lines).contains(&problem.line) && problem.column >= 1),
                "{text:?}\n{problems:#?}"
            );
        }
    }
    println!("{good} read, {bad} refused");
    assert!(good > 0 && bad > 0);
}
