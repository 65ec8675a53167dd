//! Takes values out of a tree and collects what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::distance::nearest;
use crate::duration;
use crate::problem::{Code, Family, Notice, Pos, Problem};
use crate::yaml::{Entry, Node, Scalar, Value};

/// After so many problems the rest is not collected: bounds memory and work on hostile files.
const MAX_PROBLEMS: usize = 100;

/// The keys of a map.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Keys that are read.
    pub(crate) known: &'static [&'static str],
    /// Keys that exist but are not run, with what to do instead.
    pub(crate) absent: &'static [(&'static str, &'static str)],
}

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// One of the files that are read together.
#[derive(Clone)]
pub(crate) struct Source {
    /// Its name in messages.
    pub(crate) name: String,
    /// The folder that its paths are relative to, itself relative to the first file's; `.` for that one.
    pub(crate) base: String,
    /// What `$NAME` means in it.
    pub(crate) variables: Rc<Variables>,
}

/// Collects problems and notices of files that are read together.
pub(crate) struct Reader {
    sources: Vec<Source>,
    family: &'static Family,
    problems: Vec<Problem>,
    notices: Vec<Notice>,
    /// Names of variables that the files ask for.
    pub(crate) names: BTreeSet<String>,
    /// Stands before the names of all files in messages: the first one's folder, with `/`.
    pub(crate) prefix: String,
}

/// A map whose keys were checked.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'n> {
    /// Where the map begins.
    pub(crate) pos: Pos,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of a key that is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'n Rc<Node>> {
        self.entry(key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    /// The entry of a key, also of one without a value.
    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

#[cfg(test)]
impl Keys {
    /// The keys that a reference does not name in backquotes.
    pub(crate) fn undocumented(&self, reference: &str) -> Vec<&'static str> {
        let all = self.known.iter().copied().chain(self.absent.iter().map(|(key, _)| *key));
        all.filter(|key| !reference.contains(&format!("`{key}`"))).collect()
    }
}

impl Reader {
    /// A reader of one file.
    pub(crate) fn new(file: &str, family: &'static Family) -> Self {
        let mut reader = Self::empty(family);
        reader.sources.push(Source { name: file.to_owned(), base: ".".to_owned(), variables: Rc::default() });
        reader
    }

    /// A reader of files that are told one by one.
    pub(crate) fn empty(family: &'static Family) -> Self {
        Self {
            sources: Vec::new(),
            family,
            problems: Vec::new(),
            notices: Vec::new(),
            names: BTreeSet::new(),
            prefix: String::new(),
        }
    }

    /// One more file; answers what [`Pos::file`] is in it.
    pub(crate) fn add(&mut self, source: Source) -> u16 {
        let index = u16::try_from(self.sources.len()).unwrap_or(u16::MAX);
        self.sources.push(source);
        index
    }

    /// The same files without any problems yet, for a look whose problems may not count.
    pub(crate) fn aside(&self) -> Self {
        Self { sources: self.sources.clone(), prefix: self.prefix.clone(), ..Self::empty(self.family) }
    }

    /// Whether something is wrong already.
    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// All problems so far, out of order.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn source(&self, pos: Pos) -> Option<&Source> {
        self.sources.get(usize::from(pos.file))
    }

    /// The folder that paths at this place are relative to.
    pub(crate) fn base(&self, pos: Pos) -> &str {
        self.source(pos).map_or(".", |source| source.base.as_str())
    }

    /// What `$NAME` means at this place.
    pub(crate) fn variables(&self, pos: Pos) -> Rc<Variables> {
        self.source(pos).map(|source| Rc::clone(&source.variables)).unwrap_or_default()
    }

    /// A file's name in messages, from its path in the first one's folder.
    pub(crate) fn named(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    fn file(&self, pos: Pos) -> String {
        self.source(pos).map(|source| source.name.clone()).unwrap_or_default()
    }

    /// Notices, or all problems, as [`Reader::report`] has them.
    pub(crate) fn finish(self) -> Result<Vec<Notice>, Vec<Problem>> {
        let (problems, notices) = self.report();
        if problems.is_empty() { Ok(notices) } else { Err(problems) }
    }

    /// Problems and notices in the order of the files, each once: anchors can show one place twice.
    pub(crate) fn report(mut self) -> (Vec<Problem>, Vec<Notice>) {
        let mut order: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            order.entry(&source.name).or_insert(index);
        }
        let place = |file: &str| order.get(file).copied().unwrap_or(usize::MAX);
        self.notices.sort_by_key(|notice| (place(&notice.file), notice.line, notice.column));
        self.notices.dedup();
        self.problems.sort_by(|a, b| {
            let key = |one: &Problem| (place(&one.file), one.line, one.column, one.code);
            key(a).cmp(&key(b)).then_with(|| a.file.cmp(&b.file)).then_with(|| a.message.cmp(&b.message))
        });
        self.problems.dedup();
        (self.problems, self.notices)
    }

    pub(crate) fn family(&self) -> &'static Family {
        self.family
    }

    /// Problems of another file that this one names.
    pub(crate) fn foreign(&mut self, problems: Vec<Problem>) {
        let room = MAX_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(problems.into_iter().take(room));
    }

    pub(crate) fn problem(&mut self, code: Code, pos: Pos, message: impl Into<String>, hint: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                code,
                file: self.file(pos),
                line: pos.line,
                column: pos.column,
                message: message.into(),
                hint: hint.into(),
            });
        }
    }

    pub(crate) fn notice(&mut self, pos: Pos, message: impl Into<String>) {
        if self.notices.len() < MAX_PROBLEMS {
            self.notices.push(Notice {
                file: self.file(pos),
                line: pos.line,
                column: pos.column,
                message: message.into(),
            });
        }
    }

    pub(crate) fn value(&mut self, node: &Node, message: impl Into<String>, hint: impl Into<String>) {
        self.problem(self.family.value, node.pos, message, hint);
    }

    pub(crate) fn unsupported(&mut self, pos: Pos, what: &str, hint: &str) {
        self.problem(self.family.unsupported, pos, format!("{what} is not in this version"), hint);
    }

    pub(crate) fn missing(&mut self, pos: Pos, key: &str, place: &str, hint: &str) {
        self.problem(self.family.missing_key, pos, format!("{key:?} is missing in {place}"), hint);
    }

    /// A map with fixed keys; unknown and unsupported ones are told.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, place: &str, keys: &Keys) -> Option<Fields<'n>> {
        let entries = self.entries(node, place)?;
        for entry in entries {
            self.check_key(entry, place, keys);
        }
        Some(Fields { pos: node.pos, entries })
    }

    fn check_key(&mut self, entry: &Entry, place: &str, keys: &Keys) {
        let key = entry.key.as_str();
        if keys.known.contains(&key) || (self.family.extensions && key.starts_with("x-")) {
            return;
        }
        if let Some((_, hint)) = keys.absent.iter().find(|(absent, _)| *absent == key) {
            let code = self.family.unsupported;
            self.problem(code, entry.pos, format!("{key:?} in {place} is not in this version"), *hint);
            return;
        }
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let absent = keys.absent.iter().map(|(absent, _)| *absent);
        let hint = match nearest(key, keys.known.iter().copied().chain(absent)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if keys.known.is_empty() => "no key is read here".to_owned(),
            None => format!("known: {}", keys.known.join(", ")),
        };
        self.problem(self.family.unknown_key, entry.pos, format!("unknown key {:?} in {place}", cut(key)), hint);
    }

    /// A map with any keys; none for null.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, place: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => self.wrong_type(node, place, "a map"),
        }
    }

    pub(crate) fn list<'n>(&mut self, node: &'n Node, place: &str) -> Option<&'n [Rc<Node>]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => self.wrong_type(node, place, "a list"),
        }
    }

    pub(crate) fn scalar<'n>(&mut self, node: &'n Node, place: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) if !node.is_null() => Some(scalar),
            _ => self.wrong_type(node, place, "a text"),
        }
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node, place: &str) -> Option<&'n str> {
        self.scalar(node, place).map(|scalar| scalar.text.as_str())
    }

    /// A list of texts, as an argument vector is.
    pub(crate) fn texts(&mut self, node: &Node, place: &str) -> Option<Vec<String>> {
        let items = self.list(node, place)?;
        items.iter().map(|item| self.text(item, place).map(str::to_owned)).collect()
    }

    pub(crate) fn boolean(&mut self, node: &Node, place: &str) -> Option<bool> {
        match self.text(node, place)? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => self.wrong_type(node, place, "true or false"),
        }
    }

    pub(crate) fn number(&mut self, node: &Node, place: &str, low: u64, high: u64) -> Option<u64> {
        let text = self.text(node, place)?;
        let Ok(number) = text.parse::<u64>() else {
            return self.wrong_type(node, place, "a whole number");
        };
        if (low..=high).contains(&number) {
            return Some(number);
        }
        let message = format!("{place} is {}", shown(node));
        self.problem(self.family.range, node.pos, message, format!("it must be from {low} to {high}"));
        None
    }

    pub(crate) fn port(&mut self, node: &Node, place: &str) -> Option<u16> {
        self.number(node, place, 1, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    /// A duration of any length.
    pub(crate) fn any_duration(&mut self, node: &Node, place: &str) -> Option<Duration> {
        let text = self.text(node, place)?;
        match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.problem(self.family.duration, node.pos, format!("{place} is {}: {error}", shown(node)), "");
                None
            }
        }
    }

    pub(crate) fn duration(&mut self, node: &Node, place: &str, low: Duration, high: Duration) -> Option<Duration> {
        let given = self.any_duration(node, place)?;
        if (low..=high).contains(&given) {
            return Some(given);
        }
        let hint = format!("it must be from {} to {}", duration::human(low), duration::human(high));
        self.problem(self.family.range, node.pos, format!("{place} is {}", shown(node)), hint);
        None
    }

    pub(crate) fn wrong_type<T>(&mut self, node: &Node, place: &str, wanted: &str) -> Option<T> {
        let message = format!("{place} must be {wanted}, not {}", kind(node));
        self.problem(self.family.kind, node.pos, message, "");
        None
    }
}

fn kind(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Scalar(_) if node.is_null() => "empty".to_owned(),
        Value::Scalar(_) => shown(node),
    }
}

/// A scalar for a message: as it stands in the file, quoted, cut; never the value of a variable.
pub(crate) fn shown(node: &Node) -> String {
    match &node.value {
        Value::Scalar(scalar) => format!("{:?}", cut(scalar.raw.as_deref().unwrap_or(&scalar.text))),
        Value::List(_) | Value::Map(_) => kind(node),
    }
}

/// At most 80 characters.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
