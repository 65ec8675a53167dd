//! A Compose file → [`Stack`].

use std::collections::{BTreeMap, BTreeSet};

use domain::stack::Stack;

use crate::dotenv;
use crate::interpolate;
use crate::problem::{Code, Notice, Pos, Problem, STACK};
use crate::reader::{Keys, Reader, cut};
use crate::yaml::{self, Node};

mod build;
mod commands;
mod dependencies;
mod environment;
mod health;
mod keys;
mod limits;
mod mounts;
mod networks;
mod ports;
mod service;
mod store;
mod volumes;

/// Most services of a stack.
const MAX_SERVICES: usize = 256;

const KEYS: Keys = Keys {
    known: &["name", "version", "services", "networks", "volumes"],
    absent: &[
        ("include", "write the services into this file"),
        ("secrets", "give the values as environment variables"),
        ("configs", "mount the files from the stack file's folder"),
        ("models", "run the model as a service"),
    ],
};

/// A stack file and what it may refer to.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The stack file's name in messages, usually its path in the repository.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Variables for `$NAME`; they win over those of `.env`.
    pub variables: &'a BTreeMap<String, String>,
    /// Gives the text of `.env` or of an `env_file`, by its path relative to the stack file's folder
    /// (normalised, never leaving it); none if there is no such file.
    pub files: &'a dyn Fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Input<'_> {
    // Variables can be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A stack file, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// What it declares.
    pub stack: Stack,
    /// What is done in another way than Compose would, in the file's order.
    pub notices: Vec<Notice>,
}

/// What all services of a file are read against.
struct Scope<'a> {
    variables: &'a BTreeMap<String, String>,
    files: &'a dyn Fn(&str) -> Option<String>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
    services: BTreeSet<String>,
}

/// Reads a stack file.
///
/// # Errors
/// All problems of the file, in its order; those of `.env` and of an `env_file` under their own names.
pub fn read(input: Input<'_>) -> Result<Reading, Vec<Problem>> {
    let variables = variables(input)?;
    let tree = yaml::parse(input.file, &STACK, input.text)?;
    let mut reader = Reader::new(input.file, &STACK);
    let tree = interpolate::tree(&mut reader, &tree, &variables);
    let stack = read_stack(&mut reader, &tree, &variables, input.files);
    let notices = reader.finish()?;
    // Whoever returns nothing has told why.
    let stack = stack.ok_or_else(|| vec![unexplained(input.file)])?;
    Ok(Reading { stack, notices })
}

fn unexplained(file: &str) -> Problem {
    let Pos { line, column } = Pos::START;
    let message = "the file cannot be read".to_owned();
    Problem { code: Code::StackSyntax, file: file.to_owned(), line, column, message, hint: String::new() }
}

/// `.env` under the given variables.
fn variables(input: Input<'_>) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let Some(text) = (input.files)(".env") else { return Ok(input.variables.clone()) };
    let mut all = dotenv::parse(".env", &text, input.variables)?;
    all.extend(input.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(all)
}

fn read_stack(
    r: &mut Reader<'_>,
    tree: &Node,
    variables: &BTreeMap<String, String>,
    files: &dyn Fn(&str) -> Option<String>,
) -> Option<Stack> {
    let fields = r.fields(tree, "the stack file", &KEYS)?;
    if let Some(entry) = fields.entry("version") {
        r.notice(entry.pos, "\"version\" is not used: the current Compose format is read");
    }
    if let Some(entry) = fields.entry("name") {
        r.notice(entry.pos, "\"name\" is not used: an environment has a name of its own");
    }
    if let Some(node) = fields.get("x-muster") {
        keys::muster_top(r, node);
    }
    let volumes = fields.get("volumes").map(|node| volumes::read(r, node)).unwrap_or_default();
    let networks = fields.get("networks").map(|node| networks::read(r, node)).unwrap_or_default();
    let Some(node) = fields.get("services") else {
        r.missing(fields.pos, "services", "the stack file", "a stack has at least one service");
        return None;
    };
    let entries = r.entries(node, "services")?;
    if entries.is_empty() || entries.len() > MAX_SERVICES {
        let message = format!("the stack file has {} services", entries.len());
        r.problem(Code::StackRange, node.pos, message, format!("it must have 1 to {MAX_SERVICES}"));
        return None;
    }
    let services = entries.iter().map(|entry| entry.key.clone()).collect();
    let scope = Scope { variables, files, volumes, networks, services };
    let mut stack = Stack { services: BTreeMap::new(), volumes: scope.volumes.iter().cloned().collect() };
    let mut waits = dependencies::Waits::default();
    for entry in entries {
        check_name(r, &entry.key, entry.pos);
        let place = format!("service {}", cut(&entry.key));
        if let Some(service) = service::read(r, &entry.value, &place, &entry.key, &scope, &mut waits) {
            stack.services.insert(entry.key.clone(), service);
        }
    }
    waits.check(r);
    Some(stack)
}

/// A service's name is also its host name inside the environment.
fn check_name(r: &mut Reader<'_>, name: &str, pos: Pos) {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good = (1..=63).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric();
    if !good {
        let hint = "use 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit";
        r.problem(Code::StackName, pos, format!("{:?} is not the name of a service", cut(name)), hint);
    }
}

#[cfg(test)]
mod tests;
