//! Rules of the sources.

use super::tree::{File, files, none, rust};

/// The product's crates.
const PRODUCT: [&str; 6] = ["agent/src", "coordinator/src", "domain/src", "manifest/src", "proto/src", "transport/src"];

/// Files longer than this cannot be read whole.
const LONGEST: usize = 600;

/// `path:line: text` of every line of code that `wrong` finds.
fn lines(files: &[File], wrong: impl Fn(&str) -> bool) -> Vec<String> {
    files
        .iter()
        .flat_map(|file| file.code().map(move |(number, line)| (file, number, line)))
        .filter(|(_, _, line)| wrong(line))
        .map(|(file, number, line)| format!("{}:{number}: {}", file.path, line.trim()))
        .collect()
}

fn is_word(line: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word).any(|(at, _)| {
        edge(line.get(..at).and_then(|before| before.chars().next_back()))
            && edge(line.get(at + word.len()..).and_then(|after| after.chars().next()))
    })
}

#[test]
fn domain_has_no_clock_no_io_and_no_random_order() {
    let forbidden = [
        "SystemTime",
        "Instant::now",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::io",
        "HashMap",
        "HashSet",
        "now_v7",
        "new_v4",
        "async",
    ];
    let found = lines(&rust(&["domain/src"]), |line| forbidden.iter().any(|word| is_word(line, word)));
    none("domain decides from what it is given", &found);
}

#[test]
fn no_file_is_called_mod_rs() {
    let found: Vec<String> =
        files(".rs").into_iter().map(|file| file.path).filter(|path| path.ends_with("/mod.rs")).collect();
    none("write name.rs beside name/", &found);
}

#[test]
fn every_file_can_be_read_whole() {
    let long: Vec<String> = files(".rs")
        .iter()
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, count)| *count > LONGEST)
        .map(|(file, count)| format!("{}: {count} lines, at most {LONGEST}", file.path))
        .collect();
    none("split these", &long);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let allow = ["#", "[allow("].concat();
    let inner = ["#", "![allow("].concat();
    none(
        "use #[expect(…, reason = \"…\")]",
        &lines(&files(".rs"), |line| line.contains(&allow) || line.contains(&inner)),
    );
}

#[test]
fn documentation_has_no_code_that_nobody_runs() {
    // `./test` runs no doc-tests.
    let fence = ["``", "`"].concat();
    let found: Vec<String> = files(".rs").iter().flat_map(|file| fenced_code(file, &fence)).collect();
    none("write a test, or mark it as `text`", &found);
}

/// Where code begins in a file's documentation.
fn fenced_code(file: &File, fence: &str) -> Vec<String> {
    let documentation = file.lines().map(|(number, line)| (number, line.trim_start()));
    let documentation = documentation.filter(|(_, line)| line.starts_with("///") || line.starts_with("//!"));
    let fences = documentation.filter(|(_, line)| line.contains(fence));
    // Every second one is an end.
    let begins = fences.step_by(2).filter(|(_, line)| !line.ends_with("text"));
    begins.map(|(number, line)| format!("{}:{number}: {line}", file.path)).collect()
}

#[test]
fn nothing_is_left_to_be_done() {
    let open = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["dbg", "!("].concat()];
    none("finish these", &lines(&files(".rs"), |line| open.iter().any(|call| line.contains(call))));
    let marks = [["FIX", "ME"].concat(), ["XX", "X:"].concat(), ["TO", "DO:"].concat()];
    let found: Vec<String> = files(".rs")
        .iter()
        .flat_map(|file| file.lines().map(move |(number, line)| (file, number, line)))
        .filter(|(_, _, line)| marks.iter().any(|mark| line.contains(mark)))
        .map(|(file, number, line)| format!("{}:{number}: {}", file.path, line.trim()))
        .collect();
    none("write an issue instead", &found);
}

#[test]
fn the_product_starts_no_shell() {
    let shells = ["\"sh\"", "\"bash\"", "\"/bin/sh\"", "\"/bin/bash\""];
    let mut found = lines(&rust(&PRODUCT), |line| {
        line.contains("Command::new(") && shells.iter().any(|shell| line.contains(shell))
    });
    found.retain(|line| !line.contains("tests"));
    none("commands are argument vectors", &found);
}

#[test]
fn only_the_stores_speak_sql() {
    let sql = ["SELECT ", "INSERT INTO ", "DELETE FROM ", "UPDATE "];
    let mut found = lines(&rust(&PRODUCT), |line| sql.iter().any(|word| line.contains(word)) && line.contains('"'));
    // Questions and orders to databases of the user's.
    let theirs = ["agent/src/environments/transactions.rs", "agent/src/seeds/", "agent/src/changes/"];
    found.retain(|line| {
        !theirs.iter().any(|path| line.starts_with(path))
            && !line.starts_with("coordinator/src/store")
            && !line.starts_with("agent/src/state")
            && !line.contains("tests.rs")
    });
    none("statements belong to store/ (coordinator) and state/ (agent)", &found);
}

#[test]
fn no_statement_uses_like() {
    let mut sources = rust(&["coordinator/src/store", "agent/src/state"]);
    sources.extend(files(".sql"));
    let like = ["LI", "KE"].concat();
    let found: Vec<String> =
        lines(&sources, |line| is_word(line, &like)).into_iter().filter(|line| !line.contains(": --")).collect();
    none("SQLite and PostgreSQL disagree about its case", &found);
}

#[test]
fn the_command_line_knows_nothing_of_the_server() {
    let server = ["app", "ca", "events", "grpc", "http", "sessions", "store", "tasks", "vault"];
    let found = lines(&rust(&["coordinator/src/cli"]), |line| {
        server.iter().any(|module| {
            [format!("crate::{module}::"), format!("crate::{module};"), format!("coordinator::{module}::")]
                .iter()
                .any(|path| line.contains(path.as_str()))
        })
    });
    none("cli/ is a client: it uses proto, transport and manifest", &found);
}

#[test]
fn the_command_line_runs_where_there_is_no_unix() {
    let mut found = Vec::new();
    for file in rust(&["coordinator/src/cli"]) {
        if file.path.ends_with("cli/local.rs") {
            continue;
        }
        let all: Vec<&str> = file.text.lines().collect();
        let mut depth_of_unix = None::<usize>;
        for (index, line) in all.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if line.trim_start().starts_with("#[cfg(") && line.contains("unix") && !line.contains("not(unix)") {
                depth_of_unix = Some(indent);
            } else if line.trim() == "}" && depth_of_unix == Some(indent) {
                depth_of_unix = None;
            }
            let before = index.checked_sub(1).and_then(|before| all.get(before)).unwrap_or(&"");
            if depth_of_unix.is_none() && line.contains("os::unix") && !before.contains("cfg(unix)") {
                found.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    none("only cli/local.rs may need Unix", &found);
}

#[test]
fn decisions_are_not_made_by_whoever_carries_them_out() {
    // Conversions between messages and nouns live in proto/src/convert alone.
    let found = lines(&rust(&["agent/src", "coordinator/src"]), |line| {
        line.starts_with("impl") && line.contains("From<") && line.contains("v1::") && line.contains("domain::")
    });
    none("conversions belong to proto/src/convert", &found);
}
