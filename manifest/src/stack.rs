//! A Compose file, with those it needs → [`Stack`].

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use domain::environment::migration;
use domain::stack::{Service, Stack};

use self::profiles::Profiles;
use crate::dotenv;
use crate::problem::{Code, Notice, Pos, Problem, STACK};
use crate::reader::{Keys, Reader, Variables, cut};
use crate::yaml::{Entry, Node};

mod build;
mod commands;
mod dependencies;
mod develop;
mod environment;
mod extends;
mod given;
mod health;
mod include;
mod keys;
mod limits;
mod links;
mod load;
mod merge;
mod mounts;
mod muster;
mod networks;
mod ports;
mod profiles;
mod rights;
mod service;
mod store;
mod volumes;

/// Most services of a stack.
const MAX_SERVICES: usize = 256;

const KEYS: Keys = Keys {
    known: &["name", "version", "include", "services", "networks", "volumes", "secrets", "configs"],
    absent: &[("models", "run the model as a service")],
};

/// A stack file and what it may refer to.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The stack file's name in messages, usually its path in the repository. Further files that are laid over it follow
    /// behind `:`, as in Compose's `COMPOSE_FILE`, by their paths in the stack file's folder. Without any, an
    /// `override` file beside one of the usual names is read.
    pub file: &'a str,
    /// The text of the first file.
    pub text: &'a str,
    /// Variables for `$NAME`; they win over those of `.env`. `COMPOSE_PROFILES` names the active profiles.
    pub variables: &'a BTreeMap<String, String>,
    /// Gives the text of every other file: `.env`, files of variables, overrides, included and extended files, secrets
    /// and configs, by its path relative to the stack file's folder (normalised, never leaving it); none if there is no
    /// such file. What it is asked for is what an environment of this stack needs.
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
    /// What is done in another way than Compose would, in the files' order.
    pub notices: Vec<Notice>,
    /// Names of the variables that the files ask for, set or not.
    pub names: BTreeSet<String>,
}

/// What all services of a file are read against.
struct Scope<'a> {
    files: &'a dyn Fn(&str) -> Option<String>,
    volumes: BTreeSet<String>,
    networks: BTreeSet<String>,
    services: BTreeSet<String>,
    /// Services that are left out, with their profiles.
    left_out: BTreeMap<String, String>,
    secrets: given::Declared,
    configs: given::Declared,
}

/// Everything about a stack file, also where it has problems.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The first file's name.
    pub file: String,
    /// What the files declare; none if there are problems.
    pub stack: Option<Stack>,
    /// All problems of the files, in their order; those of files of variables under their own names.
    pub problems: Vec<Problem>,
    /// What is done in another way than Compose would, in the files' order.
    pub notices: Vec<Notice>,
    /// Names of the variables that the files ask for, set or not.
    pub names: BTreeSet<String>,
}

/// Reads a stack file, with all files that it needs.
///
/// # Errors
/// All problems of the files, in their order; those of `.env` and of an `env_file` under their own names.
pub fn read(input: Input<'_>) -> Result<Reading, Vec<Problem>> {
    let Report { stack, problems, notices, names, .. } = check(input);
    match stack {
        Some(stack) => Ok(Reading { stack, notices, names }),
        None => Err(problems),
    }
}

/// Reads a stack file, and tells everything about it.
#[must_use]
pub fn check(input: Input<'_>) -> Report {
    let file = input.file.split(':').next().unwrap_or_default().to_owned();
    let mut reader = Reader::empty(&STACK);
    reader.prefix = file.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let variables = match variables(&mut reader, input) {
        Ok(variables) => Rc::new(variables),
        Err(problems) => {
            return Report { file, stack: None, problems, notices: Vec::new(), names: reader.names };
        }
    };
    let tree = load::stack(&mut reader, input, &variables);
    let stack = tree.and_then(|tree| read_stack(&mut reader, &tree, &variables, input.files));
    let names = std::mem::take(&mut reader.names);
    let (mut problems, notices) = reader.report();
    // Whoever returns nothing has told why.
    if stack.is_none() && problems.is_empty() {
        problems.push(unexplained(&file));
    }
    let stack = stack.filter(|_| problems.is_empty());
    Report { file, stack, problems, notices, names }
}

fn unexplained(file: &str) -> Problem {
    let Pos { line, column, .. } = Pos::START;
    let message = "the file cannot be read".to_owned();
    Problem { code: Code::StackSyntax, file: file.to_owned(), line, column, message, hint: String::new() }
}

/// `.env` under the given variables.
fn variables(r: &mut Reader, input: Input<'_>) -> Result<Variables, Vec<Problem>> {
    let Some(text) = (input.files)(".env") else { return Ok(input.variables.clone()) };
    r.names.extend(dotenv::names(&text));
    let mut all = dotenv::parse(&r.named(".env"), &text, input.variables)?;
    all.extend(input.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(all)
}

fn read_stack(
    r: &mut Reader,
    tree: &Node,
    variables: &Variables,
    files: &dyn Fn(&str) -> Option<String>,
) -> Option<Stack> {
    let fields = r.fields(tree, "the stack file", &KEYS)?;
    if let Some(entry) = fields.entry("version") {
        r.notice(entry.pos, "\"version\" is not used: the current Compose format is read");
    }
    if let Some(entry) = fields.entry("name") {
        r.notice(entry.pos, "\"name\" is not used: an environment has a name of its own");
    }
    let settings = fields.get("x-muster").map(|node| muster::top(r, node)).unwrap_or_default();
    let volumes = fields.get("volumes").map(|node| volumes::read(r, node)).unwrap_or_default();
    let networks = fields.get("networks").map(|node| networks::read(r, node)).unwrap_or_default();
    let declared =
        |r: &mut Reader, key, kind| fields.get(key).map(|node| given::declared(r, node, kind)).unwrap_or_default();
    let secrets = declared(r, "secrets", given::Kind::Secret);
    let configs = declared(r, "configs", given::Kind::Config);
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
    let left_out = Profiles::active(r, variables).left_out(r, entries);
    let services: BTreeSet<String> =
        entries.iter().map(|entry| entry.key.clone()).filter(|name| !left_out.contains_key(name)).collect();
    if services.is_empty() && !r.has_problems() {
        let message = "every service has a profile, and none of them is active";
        r.problem(Code::StackRange, node.pos, message, "ask for one with --profile or COMPOSE_PROFILES");
        return None;
    }
    let scope = Scope { files, volumes, networks, services, left_out, secrets, configs };
    let services = read_services(r, entries, &scope);
    let mut stack = Stack { services, volumes: scope.volumes.into_iter().collect(), settings };
    // What ends before others start is a client of a database in the database's own image.
    let once: Vec<String> = stack.services.keys().filter(|name| migration::is_one(&stack, name)).cloned().collect();
    for name in once {
        if let Some(service) = stack.services.get_mut(&name) {
            service.store = None;
        }
    }
    Some(stack)
}

fn read_services(r: &mut Reader, entries: &[Entry], scope: &Scope<'_>) -> BTreeMap<String, Service> {
    let mut services = BTreeMap::new();
    let mut waits = dependencies::Waits::default();
    for entry in entries {
        check_name(r, &entry.key, entry.pos);
        let place = format!("service {}", cut(&entry.key));
        if let Some(profiles) = scope.left_out.get(&entry.key) {
            check_left_out(r, entry, &place, profiles, scope);
        } else if let Some(service) = service::read(r, &entry.value, &place, &entry.key, scope, &mut waits) {
            services.insert(entry.key.clone(), service);
        }
    }
    waits.check(r);
    for (name, aliases) in links::aliases(entries) {
        if let Some(service) = services.get_mut(&name) {
            let known: BTreeSet<String> = service.aliases.iter().cloned().chain([name]).collect();
            service.aliases.extend(aliases.into_iter().filter(|alias| !known.contains(alias)));
        }
    }
    services
}

/// A service that is not run may hold what would be refused, but no key that nobody knows.
fn check_left_out(r: &mut Reader, entry: &Entry, place: &str, profiles: &str, scope: &Scope<'_>) {
    r.notice(entry.pos, format!("{place} is left out: none of its profiles is active ({profiles})"));
    let mut aside = r.aside();
    service::read(&mut aside, &entry.value, place, &entry.key, scope, &mut dependencies::Waits::default());
    let unknown = aside.into_problems().into_iter().filter(|problem| problem.code == Code::StackUnknownKey);
    r.foreign(unknown.collect());
}

/// A service's name is also its host name inside the environment.
fn check_name(r: &mut Reader, name: &str, pos: Pos) {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let good = (1..=63).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric();
    if !good {
        let hint = "use 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit";
        r.problem(Code::StackName, pos, format!("{:?} is not the name of a service", cut(name)), hint);
    }
}

#[cfg(test)]
mod tests;
