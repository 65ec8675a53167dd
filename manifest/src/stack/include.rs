//! `include:`.

use std::rc::Rc;

use super::load::{Loader, MAX_DEPTH, Place};
use crate::dotenv;
use crate::path;
use crate::problem::{Code, Pos};
use crate::reader::{Keys, Variables, cut, shown};
use crate::yaml::{Entry, Node, Value};

const KEYS: Keys = Keys { known: &["path", "project_directory", "env_file"], absent: &[] };

/// Top-level keys that an included file gives to the one that includes it.
const GIVEN: [&str; 5] = ["services", "volumes", "networks", "secrets", "configs"];

impl Loader<'_> {
    /// The tree with what its `include` names, and without that key.
    pub(super) fn included(&mut self, tree: Rc<Node>, place: &Place, chain: &[String]) -> Rc<Node> {
        let Some(list) = tree.get("include").cloned() else { return tree };
        let own = tree.entries().iter().filter(|entry| entry.key != "include").cloned().collect();
        let mut model = tree.with(Value::Map(own));
        let mut chain = chain.to_vec();
        chain.push(place.path.clone());
        let items = if list.is_null() { &[] } else { self.r.list(&list, "include").unwrap_or_default() };
        for item in items {
            if let Some(other) = self.include(item, place, &chain) {
                model = self.import(model, &other);
            }
        }
        Rc::new(model)
    }

    /// One item of the list: files that are read as one, in a folder of their own.
    fn include(&mut self, item: &Rc<Node>, place: &Place, chain: &[String]) -> Option<Rc<Node>> {
        let (paths, folder, env_files) = match &item.value {
            Value::Map(_) => {
                let fields = self.r.fields(item, "include", &KEYS)?;
                let Some(paths) = fields.get("path") else {
                    self.r.missing(item.pos, "path", "include", "write path: FILE");
                    return None;
                };
                (paths, fields.get("project_directory"), fields.get("env_file"))
            }
            _ => (item, None, None),
        };
        if chain.len() > MAX_DEPTH {
            let message = format!("files include each other more than {MAX_DEPTH} deep");
            self.fail(Code::StackTooDeep, item.pos, message, "include the files from this one");
            return None;
        }
        let paths = self.paths(paths, "path in include", &place.base)?;
        let base = match folder {
            Some(node) => self.path(node, "project_directory in include", &place.base)?,
            None => path::folder(paths.first().map(|(path, _)| path.as_str())?),
        };
        let variables = self.include_variables(env_files, place, &base)?;
        let mut model: Option<Rc<Node>> = None;
        for (path, pos) in paths {
            if chain.contains(&path) {
                let message = format!("files include each other: {} -> {}", chain.join(" -> "), cut(&path));
                self.fail(Code::StackDependencyCycle, pos, message, "remove one of these includes");
                return None;
            }
            let place = Place { path, base: base.clone(), variables: Rc::clone(&variables) };
            let tree = self.open(&place, None, pos)?;
            let tree = self.whole(tree, &place, chain);
            model = Some(match model {
                Some(model) => self.merge_files(&model, &tree),
                None => tree,
            });
        }
        model
    }

    /// One text or a list of them, as paths below `base`.
    fn paths(&mut self, node: &Rc<Node>, what: &str, base: &str) -> Option<Vec<(String, Pos)>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let paths: Vec<_> =
            items.iter().map(|item| self.path(item, what, base).map(|path| (path, item.pos))).collect::<Option<_>>()?;
        if paths.is_empty() {
            self.r.missing(node.pos, "path", "include", "write path: FILE");
            return None;
        }
        Some(paths)
    }

    /// A path of this machine that stays in the first file's folder.
    pub(super) fn path(&mut self, node: &Node, what: &str, base: &str) -> Option<String> {
        let text = self.r.text(node, what)?;
        if text.contains("://") || text.starts_with("git@") || text.starts_with("oci:") {
            self.failed = true;
            self.r.unsupported(node.pos, &format!("{what} from elsewhere"), "name a file beside the stack file");
            return None;
        }
        match path::below(base, text) {
            Ok(path) => Some(path),
            Err(error) => {
                self.failed = true;
                super::service::outside(self.r, node, what, &error.to_string());
                None
            }
        }
    }

    /// What variables mean in included files: first as they do here, then as its files say.
    fn include_variables(&mut self, node: Option<&Rc<Node>>, place: &Place, base: &str) -> Option<Rc<Variables>> {
        let files = match node {
            Some(node) => self.paths(node, "env_file in include", &place.base)?,
            // That of the first file's folder is known already.
            None if base == "." => return Some(Rc::clone(&place.variables)),
            None => vec![(format!("{base}/.env"), Pos::START)],
        };
        let mut variables = Variables::new();
        for (path, pos) in files {
            let Some(text) = (self.files)(&path) else {
                if node.is_some() {
                    let message = format!("the file {:?} of env_file in include does not exist", cut(&path));
                    self.fail(Code::StackEnvFile, pos, message, "make it, or do not name it");
                }
                continue;
            };
            self.r.names.extend(dotenv::names(&text));
            match dotenv::parse(&self.r.named(&path), &text, &place.variables) {
                Ok(given) => variables.extend(given),
                Err(problems) => self.r.foreign(problems),
            }
        }
        variables.extend(place.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        Some(Rc::new(variables))
    }

    /// Puts what an included file declares into the model; what both declare must be the same.
    fn import(&mut self, model: Node, other: &Node) -> Node {
        if self.r.fields(other, "an included file", &super::KEYS).is_none() {
            return model;
        }
        if let Some(entry) = other.entries().iter().find(|entry| entry.key == "x-muster") {
            self.r.notice(entry.pos, "\"x-muster\" of an included file is not used: the first file's is");
        }
        let mut top = model.entries().to_vec();
        for key in GIVEN {
            let Some(given) = other.entries().iter().find(|entry| entry.key == key) else { continue };
            let Some(more) = self.r.entries(&given.value, key) else { continue };
            let Some(at) = top.iter().position(|entry| entry.key == key) else {
                top.push(given.clone());
                continue;
            };
            let mut all = top[at].value.entries().to_vec();
            if !self.spend(all.len() + more.len(), given.pos) {
                continue;
            }
            for entry in more {
                match all.iter().find(|own| own.key == entry.key) {
                    Some(own) if same(&own.value, &entry.value) => {}
                    Some(own) => self.conflict(key, entry, own),
                    None => all.push(entry.clone()),
                }
            }
            let value = top[at].value.with(Value::Map(all));
            top[at] = top[at].with(Rc::new(value));
        }
        model.with(Value::Map(top))
    }

    fn conflict(&mut self, key: &str, included: &Entry, own: &Entry) {
        let what = key.strip_suffix('s').unwrap_or(key);
        let message = format!("{what} {} is declared in an included file, too", cut(&included.key));
        let hint = "write what is to change into an override: a second path of the include, or a further file";
        self.r.problem(Code::StackConflict, own.pos, message, hint);
    }
}

/// Whether two values say the same, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(x), Value::Map(_)) => {
            x.len() == b.entries().len()
                && x.iter().all(|entry| b.get(&entry.key).is_some_and(|other| same(&entry.value, other)))
        }
        _ => shown(a) == shown(b) && a.is_null() && b.is_null(),
    }
}
