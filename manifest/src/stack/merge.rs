//! A file over another: the merge rules of Compose. What stands in the later file wins; maps are merged, lists are
//! added to, and a few keys have rules of their own.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::load::Loader;
use crate::problem::Code;
use crate::reader::cut;
use crate::yaml::{Entry, Mark, Node, Scalar, Value};

/// How two values of one key become one.
type Rule = fn(&mut Loader<'_>, &str, &Rc<Node>, &Rc<Node>) -> Rc<Node>;

impl Loader<'_> {
    /// A whole file over another.
    pub(super) fn merge_files(&mut self, base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
        self.merge_maps(base, over, top)
    }

    /// A service over another.
    pub(super) fn merge_services(&mut self, base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
        self.merge_maps(base, over, service)
    }

    /// Key by key; a mark of the later value comes before any rule.
    fn merge_maps(&mut self, base: &Rc<Node>, over: &Rc<Node>, rule: Rule) -> Rc<Node> {
        let (Value::Map(before), Value::Map(after)) = (&base.value, &over.value) else {
            return plain(self, "a service or file", base, over);
        };
        if !self.spend(before.len() + after.len(), over.pos) {
            return Rc::clone(base);
        }
        let places: BTreeMap<&str, usize> =
            before.iter().enumerate().map(|(at, entry)| (entry.key.as_str(), at)).collect();
        let mut entries = before.clone();
        for entry in after {
            match places.get(entry.key.as_str()) {
                None => entries.push(entry.clone()),
                Some(at) => {
                    let earlier = &before[*at].value;
                    let value = if entry.value.mark != Mark::None || earlier.mark == Mark::Reset {
                        Rc::clone(&entry.value)
                    } else {
                        rule(self, &entry.key, earlier, &entry.value)
                    };
                    entries[*at] = Entry::new(&entry.key, entry.pos, value);
                }
            }
        }
        Rc::new(base.with(Value::Map(entries)))
    }

    /// The items of both; of those with the same `key`, the later one at the place of the earlier.
    fn merge_lists(&mut self, base: &Rc<Node>, over: &Rc<Node>, key: fn(&Node) -> Option<String>) -> Rc<Node> {
        let (before, after) = (items(base), items(over));
        if !self.spend(before.len() + after.len(), over.pos) {
            return Rc::clone(base);
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut all: Vec<Rc<Node>> = Vec::new();
        for item in before.into_iter().chain(after) {
            match key(&item).map(|key| (places.get(&key).copied(), key)) {
                Some((Some(at), _)) => all[at] = item,
                Some((None, key)) => {
                    places.insert(key, all.len());
                    all.push(item);
                }
                None => all.push(item),
            }
        }
        Rc::new(base.with(Value::List(all)))
    }
}

fn top(loader: &mut Loader<'_>, key: &str, base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    match key {
        "services" => loader.merge_maps(base, over, |loader, _, base, over| loader.merge_services(base, over)),
        "x-muster" => plain(loader, key, base, over),
        _ if key.starts_with("x-") => Rc::clone(over),
        _ => plain(loader, key, base, over),
    }
}

fn service(loader: &mut Loader<'_>, key: &str, base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    match key {
        "command" | "entrypoint" | "extends" | "logging" => Rc::clone(over),
        "x-muster" => plain(loader, key, base, over),
        _ if key.starts_with("x-") => Rc::clone(over),
        // A name alone takes its value from outside, and so stands over a value of the earlier file.
        "sysctls" => plain(loader, key, &keyed(base, no_value), &keyed(over, no_value)),
        "environment" => {
            let (base, over) = (keyed(base, no_value), keyed(over, no_value));
            if are_maps(&base, &over) {
                loader.merge_maps(&base, &over, later)
            } else {
                plain(loader, key, &base, &over)
            }
        }
        "build" => plain(loader, key, &context(base), &context(over)),
        "depends_on" => plain(loader, key, &keyed(base, started), &keyed(over, started)),
        "networks" => plain(loader, key, &keyed(base, no_value), &keyed(over, no_value)),
        "healthcheck" if are_maps(base, over) => loader.merge_maps(base, over, |loader, key, base, over| match key {
            "test" => Rc::clone(over),
            _ => plain(loader, key, base, over),
        }),
        "ulimits" if are_maps(base, over) => loader.merge_maps(base, over, |loader, key, base, over| {
            if are_maps(base, over) { plain(loader, key, base, over) } else { Rc::clone(over) }
        }),
        "volumes" | "devices" => loader.merge_lists(base, over, target),
        "secrets" | "configs" => loader.merge_lists(base, over, given),
        "env_file" | "tmpfs" | "dns" | "dns_opt" | "dns_search" | "label_file" | "extra_hosts" => {
            loader.merge_lists(base, over, text)
        }
        _ => plain(loader, key, base, over),
    }
}

fn are_maps(base: &Node, over: &Node) -> bool {
    matches!((&base.value, &over.value), (Value::Map(_), Value::Map(_)))
}

fn later(_: &mut Loader<'_>, _: &str, _: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    Rc::clone(over)
}

/// Maps are merged, lists added to, and of two texts the later one stands.
fn plain(loader: &mut Loader<'_>, key: &str, base: &Rc<Node>, over: &Rc<Node>) -> Rc<Node> {
    let (mut base, mut over) = (Rc::clone(base), Rc::clone(over));
    if matches!(key, "labels" | "args" | "annotations" | "additional_contexts") {
        (base, over) = (keyed(&base, no_value), keyed(&over, no_value));
    }
    match (&base.value, &over.value) {
        _ if over.is_null() => base,
        _ if base.is_null() => over,
        (Value::Map(_), Value::Map(_)) => loader.merge_maps(&base, &over, plain),
        (Value::List(_), Value::List(_)) => loader.merge_lists(&base, &over, text),
        (Value::Scalar(_), Value::Scalar(_)) => over,
        _ => {
            let message = format!("{} has another form here than in the file that this one is laid over", cut(key));
            let hint = "write it in the same form, or `!override` before the value";
            loader.r.problem(Code::StackType, over.pos, message, hint);
            over
        }
    }
}

/// A text alone is a list of one; a map is a list of `KEY=VALUE`.
fn items(node: &Rc<Node>) -> Vec<Rc<Node>> {
    match &node.value {
        Value::List(items) => items.clone(),
        Value::Scalar(_) if node.is_null() => Vec::new(),
        Value::Scalar(_) => vec![Rc::clone(node)],
        // `env_file` of one file with its options is a map, too, but never one of texts.
        Value::Map(_) if node.get("path").is_some() => vec![Rc::clone(node)],
        Value::Map(entries) => entries.iter().flat_map(pairs).collect(),
    }
}

fn pairs(entry: &Entry) -> Vec<Rc<Node>> {
    let pair = |value: &Node| match &value.value {
        Value::Scalar(scalar) => {
            let join = |value: &str| format!("{}={value}", entry.key);
            let raw = scalar.raw.as_deref().map(join);
            let scalar = Scalar { text: join(&scalar.text), plain: false, raw };
            Rc::new(Node::new(value.pos, Value::Scalar(scalar)))
        }
        _ => Rc::new(value.clone()),
    };
    match &entry.value.value {
        Value::List(items) => items.iter().map(|item| pair(item)).collect(),
        _ => vec![pair(&entry.value)],
    }
}

/// A list of `KEY=VALUE` as a map; `alone` gives the value of a `KEY` without one.
fn keyed(node: &Rc<Node>, alone: fn(&Node) -> Rc<Node>) -> Rc<Node> {
    let Value::List(items) = &node.value else { return Rc::clone(node) };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        // What is no text stays a list, so that whoever reads it tells what is wrong.
        let Value::Scalar(scalar) = &item.value else { return Rc::clone(node) };
        let (key, value) = match scalar.text.split_once('=') {
            Some((key, value)) => {
                let raw = scalar.raw.as_ref().map(|raw| raw.split_once('=').map_or(raw.as_str(), |(_, raw)| raw));
                let scalar = Scalar { text: value.to_owned(), plain: false, raw: raw.map(str::to_owned) };
                (key, Rc::new(Node::new(item.pos, Value::Scalar(scalar))))
            }
            None => (scalar.text.as_str(), alone(item)),
        };
        let entry = Entry::new(key, item.pos, value);
        match places.get(key) {
            Some(at) => entries[*at] = entry,
            None => {
                places.insert(key.to_owned(), entries.len());
                entries.push(entry);
            }
        }
    }
    Rc::new(node.with(Value::Map(entries)))
}

fn no_value(item: &Node) -> Rc<Node> {
    let scalar = Scalar { text: String::new(), plain: true, raw: None };
    Rc::new(Node::new(item.pos, Value::Scalar(scalar)))
}

/// What a dependency in a list waits for.
fn started(item: &Node) -> Rc<Node> {
    let condition = Rc::new(Node::text(item.pos, "service_started"));
    Rc::new(Node::new(item.pos, Value::Map(vec![Entry::new("condition", item.pos, condition)])))
}

/// `build: FOLDER` as a map.
fn context(node: &Rc<Node>) -> Rc<Node> {
    match &node.value {
        Value::Scalar(_) if !node.is_null() => {
            Rc::new(node.with(Value::Map(vec![Entry::new("context", node.pos, Rc::clone(node))])))
        }
        _ => Rc::clone(node),
    }
}

fn text(item: &Node) -> Option<String> {
    match &item.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        // Files of variables with options are known by their path.
        Value::Map(_) => text(item.get("path")?),
        Value::List(_) => None,
    }
}

/// Where a mount stands in the container.
fn target(item: &Node) -> Option<String> {
    let Value::Scalar(scalar) = &item.value else { return text(item.get("target")?) };
    let mut parts = scalar.text.split(':');
    let first = parts.next().unwrap_or_default();
    Some(parts.next().unwrap_or(first).trim_end_matches('/').to_owned())
}

/// Where a secret or config stands in the container, or its name.
fn given(item: &Node) -> Option<String> {
    text(item).or_else(|| text(item.get("target").or_else(|| item.get("source"))?))
}
