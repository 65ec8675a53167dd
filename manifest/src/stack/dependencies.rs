//! `depends_on:`, and that it has no circles.

use std::collections::{BTreeMap, BTreeSet};

use domain::stack::Condition;

use super::Scope;
use crate::distance::nearest;
use crate::problem::{Code, Pos};
use crate::reader::{Keys, Reader, cut, shown};
use crate::yaml::{Entry, Node, Value};

const KEYS: Keys = Keys { known: &["condition", "required", "restart"], absent: &[] };

/// Who waits for whom, and where the file says so.
#[derive(Default)]
pub(super) struct Waits(BTreeMap<String, BTreeMap<String, Pos>>);

impl Waits {
    /// The dependencies of the service `name`.
    pub(super) fn read(
        &mut self,
        r: &mut Reader,
        node: &Node,
        name: &str,
        place: &str,
        scope: &Scope<'_>,
    ) -> BTreeMap<String, Condition> {
        let place = format!("depends_on of {place}");
        let mut found = BTreeMap::new();
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let Some(other) = r.text(item, &place) else { continue };
                    if known(r, item.pos, other, &shown(item), &place, scope) {
                        found.insert(other.to_owned(), (Condition::Started, item.pos));
                    }
                }
            }
            _ => {
                for entry in r.entries(node, &place).unwrap_or_default() {
                    if let Some(condition) = long(r, entry, &place, scope) {
                        found.insert(entry.key.clone(), (condition, entry.pos));
                    }
                }
            }
        }
        let places = found.iter().map(|(other, (_, pos))| (other.clone(), *pos)).collect();
        self.0.insert(name.to_owned(), places);
        found.into_iter().map(|(other, (condition, _))| (other, condition)).collect()
    }

    /// One more dependency of the service `name`.
    pub(super) fn add(&mut self, name: &str, other: &str, pos: Pos) {
        self.0.entry(name.to_owned()).or_default().entry(other.to_owned()).or_insert(pos);
    }

    /// Tells each circle once, with its whole way.
    pub(super) fn check(mut self, r: &mut Reader) {
        loop {
            self.drop_settled();
            let Some(first) = self.0.keys().next().cloned() else { return };
            let circle = self.circle_from(first);
            let way: Vec<&str> = circle.iter().map(String::as_str).collect();
            let (from, to) = (&circle[0], circle.get(1).unwrap_or(&circle[0]));
            let pos = self.0.get(from).and_then(|others| others.get(to)).copied().unwrap_or(Pos::START);
            let message = match way.as_slice() {
                [alone] => format!("service {alone} waits for itself"),
                _ => format!("services wait for each other: {} -> {from}", way.join(" -> ")),
            };
            r.problem(Code::StackDependencyCycle, pos, message, "remove one of these dependencies");
            for name in &circle {
                self.0.remove(name);
            }
        }
    }

    /// Removes who waits for nobody that is left, until nothing changes.
    fn drop_settled(&mut self) {
        loop {
            let left: BTreeSet<String> = self.0.keys().cloned().collect();
            self.0.retain(|_, others| others.keys().any(|other| left.contains(other)));
            if self.0.len() == left.len() {
                return;
            }
        }
    }

    /// Follows dependencies until one comes again. Everybody that is left waits for somebody that is left.
    fn circle_from(&self, first: String) -> Vec<String> {
        let mut way = vec![first];
        loop {
            let last = &way[way.len() - 1];
            let next = self.0.get(last).and_then(|others| others.keys().find(|other| self.0.contains_key(*other)));
            let Some(next) = next.cloned() else { return way };
            if let Some(at) = way.iter().position(|name| *name == next) {
                return way.split_off(at);
            }
            way.push(next);
        }
    }
}

/// `shown`: the name as it stands in the file, which may be a variable's.
pub(super) fn known(r: &mut Reader, pos: Pos, name: &str, shown: &str, place: &str, scope: &Scope<'_>) -> bool {
    if scope.services.contains(name) {
        return true;
    }
    if let Some(profiles) = scope.left_out.get(name) {
        let message = format!("{place} names {shown}, which is left out: it has the profiles {profiles}");
        let hint = "ask for one of them with --profile or COMPOSE_PROFILES, or write required: false";
        r.problem(Code::StackDependencyUnknown, pos, message, hint);
        return false;
    }
    let hint = match nearest(name, scope.services.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => "add the service, or remove the dependency".to_owned(),
    };
    r.problem(
        Code::StackDependencyUnknown,
        pos,
        format!("{place} names {shown}, which is no service of this file"),
        hint,
    );
    false
}

fn long(r: &mut Reader, entry: &Entry, place: &str, scope: &Scope<'_>) -> Option<Condition> {
    let place = format!("{} in {place}", cut(&entry.key));
    let fields = r.fields(&entry.value, &place, &KEYS)?;
    let required =
        fields.get("required").and_then(|node| r.boolean(node, &format!("required of {place}"))).unwrap_or(true);
    if let Some(node) = fields.get("restart") {
        r.notice(node.pos, format!("restart of {place} is not used: a service is not restarted with its dependency"));
    }
    if !required && !scope.services.contains(&entry.key) {
        r.notice(entry.pos, format!("{place} is left out: it is not required, and the stack has no such service"));
        return None;
    }
    if !known(r, entry.pos, &entry.key, &format!("{:?}", cut(&entry.key)), &place, scope) {
        return None;
    }
    let Some(node) = fields.get("condition") else { return Some(Condition::Started) };
    match r.text(node, &format!("condition of {place}"))? {
        "service_started" => Some(Condition::Started),
        "service_healthy" => Some(Condition::Healthy),
        "service_completed_successfully" => Some(Condition::Completed),
        _ => {
            let hint = "use service_started, service_healthy or service_completed_successfully";
            r.value(node, format!("condition of {place} is {}", shown(node)), hint);
            None
        }
    }
}
