//! `extends:` of a service.

use std::rc::Rc;

use super::load::{Loader, MAX_DEPTH, Place};
use crate::distance::nearest;
use crate::path;
use crate::problem::Code;
use crate::reader::{Keys, cut, shown};
use crate::yaml::{Entry, Node, Value};

const KEYS: Keys = Keys { known: &["service", "file"], absent: &[] };

/// A file in which services extend others.
pub(super) struct File {
    number: usize,
    place: Place,
    tree: Rc<Node>,
}

impl File {
    fn services(&self) -> &[Entry] {
        self.tree.get("services").map(|node| node.entries()).unwrap_or_default()
    }
}

impl Loader<'_> {
    /// The tree with the services that its own ones extend.
    pub(super) fn extended(&mut self, tree: Rc<Node>, place: &Place) -> Rc<Node> {
        let extends = |entry: &Entry| entry.value.get("extends").is_some();
        let Some(services) = tree.get("services").filter(|node| node.entries().iter().any(extends)) else {
            return tree;
        };
        let file = self.file(place.clone(), Rc::clone(&tree));
        let mut way = Vec::new();
        let with = |entry: &Entry| match self.extended_service(&file, &entry.key, &mut way) {
            Some(service) => entry.with(service),
            None => entry.clone(),
        };
        let services = services.with(Value::Map(services.entries().iter().map(with).collect()));
        let services = Rc::new(services);
        let top = |entry: &Entry| match entry.key.as_str() {
            "services" => entry.with(Rc::clone(&services)),
            _ => entry.clone(),
        };
        Rc::new(tree.with(Value::Map(tree.entries().iter().map(top).collect())))
    }

    fn file(&mut self, place: Place, tree: Rc<Node>) -> Rc<File> {
        self.next_file += 1;
        Rc::new(File { number: self.next_file, place, tree })
    }

    /// A service with what it extends; `way` is who asks for it.
    fn extended_service(&mut self, file: &Rc<File>, name: &str, way: &mut Vec<(usize, String)>) -> Option<Rc<Node>> {
        let own = &file.services().iter().find(|entry| entry.key == name)?.value;
        let Some(extends) = own.entries().iter().find(|entry| entry.key == "extends") else {
            return Some(Rc::clone(own));
        };
        let key = (file.number, name.to_owned());
        if let Some(done) = self.extended_services.get(&key) {
            return Some(Rc::clone(done));
        }
        if way.contains(&key) || way.len() >= MAX_DEPTH {
            let names: Vec<&str> = way.iter().map(|(_, name)| name.as_str()).chain([name]).collect();
            let message = format!("services extend each other: {}", cut(&names.join(" -> ")));
            let hint = format!("remove one of these extends; at most {MAX_DEPTH} follow each other");
            self.fail(Code::StackDependencyCycle, extends.pos, message, &hint);
            return None;
        }
        way.push(key.clone());
        let base = self.base(file, name, &extends.value, way);
        way.pop();
        let entries = own.entries().iter().filter(|entry| entry.key != "extends").cloned().collect();
        let own = Rc::new(own.with(Value::Map(entries)));
        let merged = match base {
            Some(base) => self.merge_services(&base, &own),
            None => own,
        };
        self.extended_services.insert(key, Rc::clone(&merged));
        Some(merged)
    }

    /// What `extends` names.
    fn base(
        &mut self,
        file: &Rc<File>,
        name: &str,
        node: &Rc<Node>,
        way: &mut Vec<(usize, String)>,
    ) -> Option<Rc<Node>> {
        let place = format!("extends of service {}", cut(name));
        let (service, other) = match &node.value {
            Value::Map(_) => {
                let fields = self.r.fields(node, &place, &KEYS)?;
                let Some(service) = fields.get("service") else {
                    self.r.missing(node.pos, "service", &place, "write service: NAME");
                    return None;
                };
                (service, fields.get("file"))
            }
            _ => (node, None),
        };
        let other = match other {
            Some(node) => self.other_file(node, &place, &file.place)?,
            None => Rc::clone(file),
        };
        let wanted = self.r.text(service, &place)?.to_owned();
        let known = other.services().iter().map(|entry| entry.key.as_str());
        if known.clone().any(|name| name == wanted) {
            return self.extended_service(&other, &wanted, way);
        }
        let hint = match nearest(&wanted, known) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "name a service of that file".to_owned(),
        };
        let message = format!("{place} names {}, which is no service of {}", shown(service), other.place.path);
        self.r.problem(Code::StackReference, service.pos, message, hint);
        None
    }

    fn other_file(&mut self, node: &Rc<Node>, place: &str, from: &Place) -> Option<Rc<File>> {
        let path = self.path(node, &format!("file in {place}"), &from.base)?;
        let key = (path.clone(), Rc::as_ptr(&from.variables) as usize);
        if let Some(found) = self.extended_files.get(&key) {
            return found.clone();
        }
        let other = Place { base: path::folder(&path), path, variables: Rc::clone(&from.variables) };
        let opened = self.open(&other, None, node.pos);
        let file = opened.map(|tree| self.file(other, tree));
        self.extended_files.insert(key, file.clone());
        file
    }
}
