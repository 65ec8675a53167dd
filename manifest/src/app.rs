//! `muster.yaml` → [`App`].

use std::collections::BTreeMap;

use domain::app::App;
use domain::name::Name;

use crate::path;
use crate::problem::{Code, MANIFEST, Pos, Problem};
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::{self, Node};

mod health;
mod process;
mod rollout;
mod target;
mod test_spec;

/// The name under which `muster.yaml` is usually given to [`read`].
pub const FILE: &str = "muster.yaml";

const KEYS: Keys = Keys {
    known: &["app", "processes", "stack", "tests", "targets"],
    absent: &[
        ("build", "make the image yourself and give it to `muster build register`"),
        ("hooks", "run migrations before the rollout, in your pipeline"),
        ("secrets", "give settings with `muster config set`"),
    ],
};

/// Reads `muster.yaml`; `file` is its name in messages.
///
/// # Errors
/// All problems of the file, in its order.
pub fn read(file: &str, text: &str) -> Result<App, Vec<Problem>> {
    let tree = yaml::parse(file, &MANIFEST, text)?;
    let mut reader = Reader::new(file, &MANIFEST);
    let app = read_app(&mut reader, &tree);
    reader.finish()?;
    // Whoever returns nothing has told why.
    app.ok_or_else(|| vec![unexplained(file)])
}

fn unexplained(file: &str) -> Problem {
    let Pos { line, column, .. } = Pos::START;
    let message = "the file cannot be read".to_owned();
    Problem { code: Code::ManifestSyntax, file: file.to_owned(), line, column, message, hint: String::new() }
}

fn read_app(r: &mut Reader, tree: &Node) -> Option<App> {
    let fields = r.fields(tree, "muster.yaml", &KEYS)?;
    let name = required(r, fields, "app", "muster.yaml", "write `app: NAME`").and_then(|node| {
        let text = r.text(node, "app")?;
        name(r, "app", text, node.pos)
    });
    let processes = match required(r, fields, "processes", "muster.yaml", "an app has at least one process") {
        Some(node) => named(r, node, "process", "processes", process::read),
        None => BTreeMap::new(),
    };
    let stack = fields.get("stack").and_then(|node| stack_path(r, node));
    let tests = fields.get("tests").map(|node| named(r, node, "tests", "tests", test_spec::read)).unwrap_or_default();
    if let Some(node) = fields.get("tests").filter(|_| fields.get("stack").is_none()) {
        test_spec::check_stack(r, node, &tests);
    }
    let targets = fields
        .get("targets")
        .map(|node| named(r, node, "target", "targets", |r, node, place| target::read(r, node, place, &processes)));
    Some(App { name: name?, processes, stack, tests, targets: targets.unwrap_or_default() })
}

/// A key that must be there.
fn required<'n>(r: &mut Reader, fields: Fields<'n>, key: &str, place: &str, hint: &str) -> Option<&'n Node> {
    let node = fields.get(key);
    if node.is_none() {
        let pos = fields.entry(key).map_or(fields.pos, |entry| entry.pos);
        r.missing(pos, key, place, hint);
    }
    node.map(AsRef::as_ref)
}

/// A map of names to things; empty ones are refused, so that nothing seems to be declared that is not.
fn named<T>(
    r: &mut Reader,
    node: &Node,
    what: &'static str,
    key: &str,
    mut read: impl FnMut(&mut Reader, &Node, &str) -> Option<T>,
) -> BTreeMap<Name, T> {
    let mut things = BTreeMap::new();
    let Some(entries) = r.entries(node, key) else { return things };
    if entries.is_empty() {
        r.value(node, format!("{key} is empty"), "name at least one, or leave the key out");
    }
    for entry in entries {
        let name = name(r, what, &entry.key, entry.pos);
        let place = format!("{what} {}", crate::reader::cut(&entry.key));
        if let (Some(thing), Some(name)) = (read(r, &entry.value, &place), name) {
            things.insert(name, thing);
        }
    }
    things
}

fn name(r: &mut Reader, what: &'static str, text: &str, pos: Pos) -> Option<Name> {
    match Name::new(what, text) {
        Ok(name) => Some(name),
        Err(error) => {
            r.problem(Code::ManifestName, pos, error.to_string(), "");
            None
        }
    }
}

fn stack_path(r: &mut Reader, node: &Node) -> Option<String> {
    let text = r.text(node, "stack")?;
    if text.contains(':') {
        r.value(node, format!("stack is {}", shown(node)), "name one file; it can include others");
        return None;
    }
    match path::inside(text).map(|path| (path != ".").then_some(path)) {
        Ok(Some(path)) => Some(path),
        Ok(None) => {
            r.value(node, "stack names a folder", "write the path of the Compose file, for example compose.yaml");
            None
        }
        Err(error) => {
            r.value(
                node,
                format!("stack is {}: {error}", shown(node)),
                "write a path inside the repository, for example compose.yaml",
            );
            None
        }
    }
}

/// A command as an argument vector. A text is refused: no shell would read it.
fn argv(r: &mut Reader, node: &Node, place: &str) -> Option<Vec<String>> {
    if let yaml::Value::Scalar(scalar) = &node.value {
        let words: Vec<&str> = scalar.text.split_whitespace().collect();
        let hint = format!("no shell reads it; write a list: [{}]", crate::reader::cut(&words.join(", ")));
        let code = r.family().kind;
        r.problem(code, node.pos, format!("{place} must be a list, not {}", shown(node)), hint);
        return None;
    }
    let words = r.texts(node, place)?;
    match words.first() {
        Some(program) if !program.is_empty() => Some(words),
        _ => {
            r.value(node, format!("{place} names no program"), "write at least [PROGRAM]");
            None
        }
    }
}

#[cfg(test)]
mod tests;
