//! Damaged, hostile and made-up files: problems with places, never a panic, never for long. The same in every run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use manifest::stack::{Input, Report, check};
use manifest::{Problem, app};

/// Numbers that are the same in every run.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const PIECES: [&str; 56] = [
    "*",
    "&a ",
    "*a",
    "<<: ",
    "<<: *a",
    "!x ",
    "!reset ",
    "!override ",
    "!!str ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    ", ",
    "\n",
    "\n  ",
    "\t",
    "\u{0}",
    "é",
    "\u{1F600}",
    "${",
    "}",
    "$$",
    "$X",
    "${X:-",
    "${X:?",
    "${Y+",
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
    "0x",
    "1e999",
    "\u{feff}",
    "\\",
    "~",
    "\r",
    "null",
    "extends: web",
    "include: [compose.yaml]",
    "include: [b.yaml]",
    "profiles: [x]",
    "x-muster: { idle: ",
    "seed: a@b",
    "secrets: [s]",
    "../",
    "/",
];

fn damage(text: &str, random: &mut Lcg) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(8) {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(20)).min(chars.len());
        match random.below(4) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, random.pick(&PIECES).chars())),
            2 => {
                let copied = chars[at..end].to_vec();
                let to = random.below(chars.len() + 1);
                drop(chars.splice(to..to, copied));
            }
            _ => drop(chars.splice(at..end, random.pick(&PIECES).chars())),
        }
    }
    chars.into_iter().collect()
}

/// Every text below `tests/corpora`, and the example's.
fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![folder.join("../examples/bot/compose.yaml"), folder.join("../examples/bot/muster.yaml")];
    walk(&folder.join("tests/corpora"), &mut paths);
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("a text")).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The longest that one reading may take, far beyond what any took: a hang, not a figure.
const LONG: Duration = Duration::from_secs(5);

fn stack(text: &str, other: &str) -> Report {
    let variables = [("X".to_owned(), "x".to_owned()), ("COMPOSE_PROFILES".to_owned(), "x".to_owned())].into();
    let files = |path: &str| match path {
        "compose.yaml" => Some(text.to_owned()),
        ".env" => None,
        _ => Some(other.to_owned()),
    };
    let begun = Instant::now();
    let report = check(Input { file: "compose.yaml:over.yaml", text, variables: &variables, files: &files });
    assert!(begun.elapsed() < LONG, "{text:?}\n{other:?}");
    report
}

/// Each problem has a place that exists.
fn placed(problems: &[Problem], texts: &[&str]) {
    let lines = |text: &&str| text.split('\n').count() + text.matches('\r').count() + 1;
    let lines = u32::try_from(texts.iter().map(lines).max().unwrap_or(0)).unwrap_or(u32::MAX);
    for problem in problems {
        let good = (1..=lines).contains(&problem.line) && problem.column >= 1 && !problem.file.is_empty();
        assert!(good, "{problem:?}\n{texts:?}");
    }
}

#[test]
fn damaged_files_give_problems_with_places_and_never_a_panic() {
    let seeds = seeds();
    let mut random = Lcg(20_261);
    let (mut good, mut bad) = (0, 0);
    for case in 0..3000 {
        let text = damage(&seeds[case % seeds.len()], &mut random);
        // A damaged file over another is seldom good; over nothing more often.
        let other = match case % 3 {
            0 => damage(&seeds[random.below(seeds.len())], &mut random),
            _ => "services: {}\n".to_owned(),
        };
        let report = stack(&text, &other);
        assert_eq!(report.stack.is_none(), !report.problems.is_empty(), "{text:?}\n{other:?}");
        placed(&report.problems, &[&text, &other]);
        if report.stack.is_some() {
            good += 1
        } else {
            bad += 1
        }
        for problems in [app::read("f", &text).err(), manifest::dotenv::parse("f", &text, &BTreeMap::new()).err()] {
            placed(&problems.unwrap_or_default(), &[&text]);
        }
    }
    println!("{good} read, {bad} refused");
    assert!(good > 20 && bad > 1000, "{good} read, {bad} refused");
}

/// Keys in all places, with values of all forms: what a file of the right shape can hold.
fn made_up(random: &mut Lcg, depth: usize) -> String {
    const KEYS: [&str; 40] = [
        "services",
        "web",
        "db",
        "image",
        "build",
        "context",
        "command",
        "entrypoint",
        "environment",
        "env_file",
        "ports",
        "volumes",
        "networks",
        "depends_on",
        "healthcheck",
        "test",
        "extends",
        "service",
        "file",
        "include",
        "path",
        "secrets",
        "configs",
        "source",
        "target",
        "mode",
        "ulimits",
        "nofile",
        "x-muster",
        "idle",
        "seed",
        "deploy",
        "resources",
        "limits",
        "profiles",
        "links",
        "tmpfs",
        "aliases",
        "default",
        "interval",
    ];
    const VALUES: [&str; 24] = [
        "web",
        "db",
        "a",
        "80",
        "'8080:80'",
        "'1-9'",
        "./x",
        "../x",
        "s:/t",
        "'s:/t:ro'",
        "5s",
        "never",
        "1g",
        "true",
        "null",
        "''",
        "$X",
        "${X:-$Y}",
        "b.yaml",
        "compose.yaml",
        "!reset null",
        "!override a",
        "A=b",
        "0440",
    ];
    if depth == 0 || random.below(4) == 0 {
        return random.pick(&VALUES).to_owned();
    }
    let mark = random.pick(&["", "", "", "!override ", "!reset "]);
    let count = random.below(5);
    if random.below(3) == 0 {
        let items: Vec<String> = (0..count).map(|_| made_up(random, depth - 1)).collect();
        return format!("{mark}[{}]", items.join(", "));
    }
    let entries: Vec<String> =
        (0..count).map(|_| format!("{}: {}", random.pick(&KEYS), made_up(random, depth - 1))).collect();
    format!("{mark}{{ {} }}", entries.join(", "))
}

#[test]
fn made_up_files_are_read_or_refused_over_each_other() {
    let mut random = Lcg(7);
    for _ in 0..1500 {
        let service = |random: &mut Lcg| {
            format!(
                "{{ image: a, k: 1, extends: {}, {}: {} }}",
                random.pick(&["web", "db", "{ file: b.yaml, service: web }"]),
                random.pick(&[
                    "ports",
                    "volumes",
                    "environment",
                    "secrets",
                    "depends_on",
                    "healthcheck",
                    "networks",
                    "build"
                ]),
                made_up(random, 3)
            )
            .replace("k: 1, ", "")
        };
        let text = format!(
            "services: {{ web: {}, db: {} }}\nvolumes: {}\n",
            service(&mut random),
            made_up(&mut random, 4),
            made_up(&mut random, 2)
        );
        let other = format!(
            "services: {{ web: {}, db: {} }}\n",
            made_up(&mut random, 4),
            service(&mut random).replace("extends: ", "x-e: ")
        );
        let report = stack(&text, &other);
        placed(&report.problems, &[&text, &other]);
    }
}

/// The stack of `text` alone, or with `over` laid over it.
fn laid(text: &str, over: Option<&str>) -> Report {
    let variables = BTreeMap::new();
    let files = |path: &str| {
        over.filter(|_| path == "over.yaml")
            .map(str::to_owned)
            .or_else(|| path.ends_with(".txt").then(|| "x".to_owned()))
    };
    let file = if over.is_some() { "stack.yaml:over.yaml" } else { "stack.yaml" };
    check(Input { file, text, variables: &variables, files: &files })
}

#[test]
fn a_file_laid_over_itself_or_over_nothing_is_the_same_stack() {
    let mut compared = 0;
    for text in seeds() {
        let alone = laid(&text, None);
        let Some(stack) = alone.stack else { continue };
        // `extends` and `include` mean other files than these.
        if text.contains("include:") || text.contains("extends:") {
            continue;
        }
        compared += 1;
        assert_eq!(laid(&text, Some("services: {}\n")).stack.as_ref(), Some(&stack), "{text}");
        let twice = laid(&text, Some(&text));
        assert_eq!(twice.stack.as_ref(), Some(&stack), "{:?}\n{text}", twice.problems);
        let instead = format!("services: !override\n{}", services_of(&text));
        if let Some(replaced) = laid(&text, Some(&instead)).stack {
            assert_eq!(replaced.services, stack.services, "{text}");
        }
    }
    assert!(compared > 25, "{compared}");
}

/// The lines of `services:` without that key; nothing where they are written otherwise.
fn services_of(text: &str) -> String {
    let rest = text.split_once("services:\n").map_or("", |(_, rest)| rest);
    let inside = |line: &&str| line.starts_with([' ', '#']) || line.is_empty();
    rest.lines().take_while(inside).map(|line| format!("{line}\n")).collect()
}

#[test]
fn reading_twice_gives_the_same() {
    let seeds = seeds();
    let mut random = Lcg(3);
    for case in 0..200 {
        let text = damage(&seeds[case % seeds.len()], &mut random);
        assert_eq!(stack(&text, &seeds[0]), stack(&text, &seeds[0]));
    }
}
