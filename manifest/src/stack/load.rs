//! Files that are read together: several of them, the override beside a file, and what they include and extend.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Input;
use super::extends::File;
use crate::interpolate;
use crate::path;
use crate::problem::{Code, Pos, STACK};
use crate::reader::{Reader, Source, Variables, cut};
use crate::yaml::{self, Entry, Node, Value};

/// Most files that are read together.
const MAX_FILES: usize = 32;
/// Deepest nesting of `include` and of `extends`.
pub(super) const MAX_DEPTH: usize = 8;
/// Largest sum of all files, in bytes.
const MAX_BYTES: usize = 4 << 20;
/// Most entries that merges may copy: bounds the work on hostile files.
const MAX_WORK: usize = 400_000;

/// Files that are read without being asked for, if the file has one of the usual names.
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];
const USUAL: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// A file, the folder its paths are relative to, and what its variables mean.
#[derive(Clone)]
pub(super) struct Place {
    /// Relative to the first file's folder, normalised.
    pub(super) path: String,
    /// Likewise.
    pub(super) base: String,
    pub(super) variables: Rc<Variables>,
}

/// Opens files one after the other, within limits.
pub(super) struct Loader<'a> {
    pub(super) r: &'a mut Reader,
    pub(super) files: &'a dyn Fn(&str) -> Option<String>,
    opened: usize,
    bytes: usize,
    nodes: usize,
    work: usize,
    /// A file could not be read, so that what others refer to may be missing for that reason alone.
    pub(super) failed: bool,
    /// Files that services extend, by path and variables.
    pub(super) extended_files: BTreeMap<(String, usize), Option<Rc<File>>>,
    /// Services with what they extend, by file and name.
    pub(super) extended_services: BTreeMap<(usize, String), Rc<Node>>,
    /// Gives each [`File`] a number of its own.
    pub(super) next_file: usize,
}

/// All files as one, or none if one of them cannot be read.
pub(super) fn stack(r: &mut Reader, input: Input<'_>, variables: &Rc<Variables>) -> Option<Rc<Node>> {
    let mut names = input.file.split(':');
    let first = names.next().unwrap_or_default();
    let main = first.rsplit_once('/').map_or(first, |(_, name)| name);
    let mut loader = Loader {
        r,
        files: input.files,
        opened: 0,
        bytes: 0,
        nodes: 0,
        work: 0,
        failed: false,
        extended_files: BTreeMap::new(),
        extended_services: BTreeMap::new(),
        next_file: 0,
    };
    let place = |path: String| Place { path, base: ".".to_owned(), variables: Rc::clone(variables) };
    let main = place(main.to_owned());
    let mut tree = loader.open(&main, Some(input.text), Pos::START).map(|tree| loader.whole(tree, &main, &[]));
    for path in loader.others(&main.path, names.collect()) {
        let place = place(path);
        let Some(over) = loader.open(&place, None, Pos::START) else { continue };
        let over = loader.whole(over, &place, &[]);
        tree = tree.map(|tree| loader.merge_files(&tree, &over));
    }
    let tree = tree.filter(|_| !loader.failed)?;
    Some(clean(&tree))
}

impl Loader<'_> {
    /// The files after the first: those given, or the override beside it.
    fn others(&mut self, main: &str, given: Vec<&str>) -> Vec<String> {
        if given.is_empty() {
            let beside = OVERRIDES.iter().filter(|_| USUAL.contains(&main));
            let found = beside.copied().find(|name| (self.files)(name).is_some());
            return found.into_iter().map(str::to_owned).collect();
        }
        let mut paths = Vec::new();
        for text in given {
            match path::inside(text) {
                Ok(path) => paths.push(path),
                Err(error) => {
                    let message = format!("the file {:?} cannot be read beside this one: {error}", cut(text));
                    self.fail(Code::StackOutsideFolder, Pos::START, message, "name files in the folder of the first");
                }
            }
        }
        paths
    }

    /// Tells why a file cannot be read.
    pub(super) fn fail(&mut self, code: Code, pos: Pos, message: impl Into<String>, hint: &str) {
        self.failed = true;
        self.r.problem(code, pos, message, hint);
    }

    /// Reads a file, or the text given for it; `asked` is where another file names it.
    pub(super) fn open(&mut self, place: &Place, given: Option<&str>, asked: Pos) -> Option<Rc<Node>> {
        if self.opened >= MAX_FILES {
            let message = format!("more than {MAX_FILES} files are to be read together");
            self.fail(Code::StackRange, asked, message, "write some of them as one");
            return None;
        }
        self.opened += 1;
        let Some(text) = given.map(str::to_owned).or_else(|| (self.files)(&place.path)) else {
            let message = format!("the file {:?} does not exist", cut(&place.path));
            self.fail(Code::StackFile, asked, message, "make it, or do not name it");
            return None;
        };
        self.bytes += text.len();
        if self.bytes > MAX_BYTES {
            self.fail(Code::StackTooLarge, asked, "the files have more than 4 MiB together", "write less");
            return None;
        }
        let name = self.r.named(&place.path);
        let (base, variables) = (place.base.clone(), Rc::clone(&place.variables));
        let index = self.r.add(Source { name: name.clone(), base, variables });
        let tree = match yaml::parse_nth(index, &name, &STACK, &text) {
            Ok(tree) => tree,
            Err(problems) => {
                self.failed = true;
                self.r.foreign(problems);
                return None;
            }
        };
        self.nodes += tree.size;
        if self.nodes > 2 * yaml::MAX_NODES {
            self.fail(Code::StackTooManyNodes, asked, "the files have too many values together", "write less");
            return None;
        }
        Some(interpolate::tree(self.r, &tree, &place.variables))
    }

    /// A file's tree with what it extends and includes.
    pub(super) fn whole(&mut self, tree: Rc<Node>, place: &Place, chain: &[String]) -> Rc<Node> {
        let tree = self.extended(tree, place);
        self.included(tree, place, chain)
    }

    /// Counts copied entries; false when there are too many.
    pub(super) fn spend(&mut self, entries: usize, pos: Pos) -> bool {
        let before = self.work;
        self.work = self.work.saturating_add(entries);
        if self.work > MAX_WORK && before <= MAX_WORK {
            self.fail(Code::StackTooManyNodes, pos, "merging these files gives too many values", "write less");
        }
        self.work <= MAX_WORK
    }
}

/// Without what `!reset` takes away.
fn clean(node: &Rc<Node>) -> Rc<Node> {
    if !node.marked {
        return Rc::clone(node);
    }
    let stays = |node: &Node| node.mark != yaml::Mark::Reset;
    let value = match &node.value {
        Value::Scalar(scalar) => Value::Scalar(scalar.clone()),
        Value::List(items) => Value::List(items.iter().filter(|item| stays(item)).map(clean).collect()),
        Value::Map(entries) => {
            let cleaned = |entry: &Entry| entry.with(clean(&entry.value));
            Value::Map(entries.iter().filter(|entry| stays(&entry.value)).map(cleaned).collect())
        }
    };
    Rc::new(Node::new(node.pos, value))
}
