//! YAML as a small tree in which every value knows its place.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::problem::{Code, Family, Pos, Problem};

mod merge;

/// Largest file, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting, aliases expanded.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most values that aliases may add.
pub(crate) const MAX_ALIASED: usize = 10_000;
/// Most values in all.
pub(crate) const MAX_NODES: usize = 100_000;

/// What a tag says about a value of an earlier file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Nothing: the two are merged.
    None,
    /// `!reset`: the value is taken away.
    Reset,
    /// `!override`: this one stands instead of it.
    Override,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    pub(crate) value: Value,
    pub(crate) mark: Mark,
    /// It or something in it has a mark.
    pub(crate) marked: bool,
    /// How many values it is, itself included, aliases expanded.
    pub(crate) size: usize,
    /// How deeply values nest in it; 1 for a scalar.
    height: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// A text, and whether it stood there plainly, so that it may mean a number, a truth value or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) plain: bool,
    /// The text before interpolation, where that changed it: shown in messages instead of it.
    pub(crate) raw: Option<String>,
}

/// A key with its place, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) pos: Pos,
    pub(crate) value: Rc<Node>,
    /// The plain key `<<`.
    merge: bool,
}

impl Node {
    pub(crate) fn new(pos: Pos, value: Value) -> Self {
        let (size, height, marked) = match &value {
            Value::Scalar(_) => (1, 1, false),
            Value::List(items) => measure(items.iter()),
            Value::Map(entries) => measure(entries.iter().map(|entry| &entry.value)),
        };
        Self { pos, value, mark: Mark::None, marked, size, height }
    }

    /// A text that stood nowhere.
    pub(crate) fn text(pos: Pos, text: &str) -> Self {
        Self::new(pos, Value::Scalar(Scalar { text: text.to_owned(), plain: false, raw: None }))
    }

    /// With a mark.
    pub(crate) fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self.marked |= mark != Mark::None;
        self
    }

    /// Another value at the same place, with the same mark.
    pub(crate) fn with(&self, value: Value) -> Self {
        Self::new(self.pos, value).with_mark(self.mark)
    }

    /// The entries of a map; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) | Value::List(_) => &[],
        }
    }

    /// The value of a key, also of one without a value.
    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// A plain scalar that stands for "nothing".
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.plain && matches!(s.text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

impl Entry {
    /// A key that stood somewhere, and its value.
    pub(crate) fn new(key: &str, pos: Pos, value: Rc<Node>) -> Self {
        Self { key: key.to_owned(), pos, value, merge: false }
    }

    /// The same key with another value.
    pub(crate) fn with(&self, value: Rc<Node>) -> Self {
        Self { key: self.key.clone(), pos: self.pos, value, merge: false }
    }
}

fn measure<'n>(children: impl Iterator<Item = &'n Rc<Node>>) -> (usize, usize, bool) {
    children.fold((1, 1, false), |(size, height, marked), child| {
        (size.saturating_add(child.size), height.max(child.height.saturating_add(1)), marked || child.marked)
    })
}

/// Reads one document; aliases and `<<` are resolved.
///
/// # Errors
/// Every duplicate key, and the first thing that cannot be read at all.
pub(crate) fn parse(file: &str, family: &'static Family, text: &str) -> Result<Rc<Node>, Vec<Problem>> {
    parse_nth(0, file, family, text)
}

/// The same for one of several files: places in it carry its index.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_nth(index: u16, file: &str, family: &'static Family, text: &str) -> Result<Rc<Node>, Vec<Problem>> {
    let mut builder = Builder::new(index, file, family);
    let tree = builder.check_text(text).and_then(|()| builder.run(text.strip_prefix('\u{feff}').unwrap_or(text)));
    match tree {
        Ok(tree) if builder.problems.is_empty() => Ok(tree),
        Ok(_) => Err(builder.problems),
        Err(fatal) => {
            builder.problems.push(*fatal);
            Err(builder.problems)
        }
    }
}

type Fatal<T> = Result<T, Box<Problem>>;

enum Open {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, seen: BTreeSet<String>, key: Option<(String, Pos, bool)> },
}

struct Frame {
    open: Open,
    anchor: usize,
    pos: Pos,
    mark: Mark,
}

struct Builder<'a> {
    index: u16,
    file: &'a str,
    family: &'static Family,
    problems: Vec<Problem>,
    anchors: BTreeMap<usize, Rc<Node>>,
    frames: Vec<Frame>,
    root: Option<Rc<Node>>,
    nodes: usize,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn new(index: u16, file: &'a str, family: &'static Family) -> Self {
        Self {
            index,
            file,
            family,
            problems: Vec::new(),
            anchors: BTreeMap::new(),
            frames: Vec::new(),
            root: None,
            nodes: 0,
            aliased: 0,
        }
    }

    fn problem(&self, code: Code, pos: Pos, message: impl Into<String>, hint: impl Into<String>) -> Box<Problem> {
        Box::new(Problem {
            code,
            file: self.file.to_owned(),
            line: pos.line,
            column: pos.column,
            message: message.into(),
            hint: hint.into(),
        })
    }

    fn pos(&self, marker: Marker) -> Pos {
        let fit = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Pos { file: self.index, line: fit(marker.line()).max(1), column: fit(marker.col()).saturating_add(1) }
    }

    fn start(&self) -> Pos {
        Pos { file: self.index, ..Pos::START }
    }

    fn syntax(&self, pos: Pos, message: impl Into<String>, hint: impl Into<String>) -> Box<Problem> {
        self.problem(self.family.syntax, pos, message, hint)
    }

    fn unreadable(&self, error: &ScanError) -> Box<Problem> {
        let pos = self.pos(*error.marker());
        // The parser's own limit on brackets, met while it looks ahead.
        if error.info().contains("recursion limit") {
            return self.too_deep(pos);
        }
        self.syntax(pos, error.info().to_lowercase(), "")
    }

    fn too_deep(&self, pos: Pos) -> Box<Problem> {
        let hint = format!("at most {MAX_DEPTH} levels are read");
        self.problem(self.family.too_deep, pos, "values nest too deeply here", hint)
    }

    fn check_text(&self, text: &str) -> Fatal<()> {
        if text.len() > MAX_BYTES {
            let message = format!("the file has {} bytes", text.len());
            return Err(self.problem(self.family.too_large, self.start(), message, "at most 1 MiB is read"));
        }
        // The parser takes NUL for the end of the file, and would drop what follows without a word.
        match text.find('\0') {
            Some(at) => Err(self.syntax(place_of(self.index, text, at), "a NUL byte", "is this a text file?")),
            None => Ok(()),
        }
    }

    fn run(&mut self, text: &str) -> Fatal<Rc<Node>> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| self.unreadable(&error))?;
            self.event(event, self.pos(span.start))?;
        }
        let empty = || self.syntax(self.start(), "the file is empty", "");
        self.root.clone().ok_or_else(empty)
    }

    fn event(&mut self, event: Event<'_>, pos: Pos) -> Fatal<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.syntax(pos, "a second document begins here", "keep one document in this file"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Scalar(text, style, anchor, tag) => self.scalar(&text, style, anchor, tag.as_deref(), pos),
            Event::Alias(anchor) => self.alias(anchor, pos),
            Event::SequenceStart(anchor, tag) => self.open(Open::List(Vec::new()), anchor, tag.as_deref(), pos),
            Event::MappingStart(anchor, tag) => {
                let open = Open::Map { entries: Vec::new(), seen: BTreeSet::new(), key: None };
                self.open(open, anchor, tag.as_deref(), pos)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, tag: Option<&Tag>, pos: Pos) -> Fatal<()> {
        let mark = self.mark(tag, pos)?;
        if text.contains('\0') {
            return Err(self.syntax(pos, "a text with a NUL character", "no program could be given it"));
        }
        let texted = tag.is_some_and(|tag| tag.suffix == "str");
        let scalar = Scalar { text: text.to_owned(), plain: style == ScalarStyle::Plain && !texted, raw: None };
        self.attach(Rc::new(Node::new(pos, Value::Scalar(scalar)).with_mark(mark)), anchor)
    }

    fn mark(&self, tag: Option<&Tag>, pos: Pos) -> Fatal<Mark> {
        let Some(tag) = tag else { return Ok(Mark::None) };
        let plain = ["str", "int", "float", "bool", "null", "map", "seq"].contains(&tag.suffix.as_str());
        if tag.is_yaml_core_schema() && plain {
            return Ok(Mark::None);
        }
        match (self.family.marks && tag.handle == "!", tag.suffix.as_str()) {
            (true, "reset") => return Ok(Mark::Reset),
            (true, "override") => return Ok(Mark::Override),
            _ => {}
        }
        let shown: String = tag.to_string().chars().take(80).collect();
        let hint = if self.family.marks {
            "only !reset and !override are read; write the value itself"
        } else {
            "no tags are read here; write the value itself"
        };
        Err(self.problem(self.family.unsupported, pos, format!("the tag {shown:?}"), hint))
    }

    fn open(&mut self, open: Open, anchor: usize, tag: Option<&Tag>, pos: Pos) -> Fatal<()> {
        let mark = self.mark(tag, pos)?;
        if matches!(self.frames.last(), Some(Frame { open: Open::Map { key: None, .. }, .. })) {
            return Err(self.syntax(pos, "a list or a map as a key", "a key is a single word"));
        }
        self.check_depth(1, pos)?;
        self.frames.push(Frame { open, anchor, pos, mark });
        Ok(())
    }

    fn check_depth(&self, height: usize, pos: Pos) -> Fatal<()> {
        if self.frames.len() + height <= MAX_DEPTH { Ok(()) } else { Err(self.too_deep(pos)) }
    }

    fn close(&mut self) -> Fatal<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let value =
            match frame.open {
                Open::List(items) => Value::List(items),
                Open::Map { entries, .. } => {
                    let merged = merge::resolve(entries);
                    Value::Map(merged.map_err(|pos| {
                        self.syntax(pos, "\"<<\" needs a map or a list of maps", "write `<<: *anchor`")
                    })?)
                }
            };
        self.attach(Rc::new(Node::new(frame.pos, value).with_mark(frame.mark)), frame.anchor)
    }

    fn alias(&mut self, anchor: usize, pos: Pos) -> Fatal<()> {
        let inside = || self.syntax(pos, "an alias inside the value that it stands for", "");
        let node = self.anchors.get(&anchor).cloned().ok_or_else(inside)?;
        self.aliased = self.aliased.saturating_add(node.size);
        if self.aliased > MAX_ALIASED {
            let hint = format!("they may add {MAX_ALIASED} values");
            return Err(self.problem(
                self.family.too_many_nodes,
                pos,
                "the aliases of this file expand to too much",
                hint,
            ));
        }
        self.check_depth(node.height, pos)?;
        self.attach(node, 0)
    }

    fn attach(&mut self, node: Rc<Node>, anchor: usize) -> Fatal<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let hint = format!("at most {MAX_NODES} are read");
            return Err(self.problem(self.family.too_many_nodes, node.pos, "the file has too many values", hint));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, seen, key } => match (key.take(), &node.value) {
                (Some((key, pos, merge)), _) => {
                    if seen.insert(key.clone()) {
                        entries.push(Entry { key, pos, value: node, merge });
                    } else {
                        let shown: String = key.chars().take(80).collect();
                        let hint = "the first would be ignored; remove one";
                        let twice = self.problem(
                            self.family.duplicate_key,
                            pos,
                            format!("the key {shown:?} stands twice"),
                            hint,
                        );
                        self.problems.push(*twice);
                    }
                }
                (None, Value::Scalar(s)) => *key = Some((s.text.clone(), node.pos, s.plain && s.text == "<<")),
                (None, _) => return Err(self.syntax(node.pos, "a list or a map as a key", "a key is a single word")),
            },
        }
        Ok(())
    }
}

fn place_of(file: u16, text: &str, at: usize) -> Pos {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    Pos { file, line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests;
