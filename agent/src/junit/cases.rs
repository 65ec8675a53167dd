//! One file's cases.

use std::io::Read;

use domain::run::{CaseOutcome, TestCase};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::input::Input;
use super::{FAILURES, Limits, Reading};

/// Characters of a name or a message that are kept.
const TEXT: usize = 500;

/// A case whose element is open.
struct Open {
    case: TestCase,
    depth: usize,
    /// The text of its failure is being read.
    telling: bool,
}

struct Cases<'a> {
    name: &'a str,
    limits: Limits,
    reading: &'a mut Reading,
    depth: usize,
    open: Option<Open>,
    strange_times: u64,
    nameless: u64,
}

/// Adds the cases of one file; the error says where it is broken.
pub(super) fn read(file: impl Read, name: &str, limits: Limits, reading: &mut Reading) -> Result<(), String> {
    let mut reader = Reader::from_reader(Input::new(file, limits.bytes, limits.event));
    reader.config_mut().allow_dangling_amp = true;
    let mut cases = Cases { name, limits, reading, depth: 0, open: None, strange_times: 0, nameless: 0 };
    let mut buffer = Vec::new();
    let done = loop {
        buffer.clear();
        reader.get_mut().begin(limits.event);
        let place = reader.buffer_position();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Eof) if cases.depth > 0 => break Err(format!("byte {place}: it ends within an element")),
            Ok(Event::Eof) => break Ok(()),
            Ok(event) => {
                if let Err(why) = cases.take(&event) {
                    break Err(format!("byte {place}: {why}"));
                }
            }
            Err(error) => break Err(format!("byte {place}: {error}")),
        }
    };
    let replaced = reader.get_ref().replaced;
    cases.finish(replaced);
    done
}

impl Cases<'_> {
    fn take(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(element) => {
                self.descend()?;
                self.begin(element)
            }
            Event::Empty(element) => {
                self.descend()?;
                self.begin(element)?;
                self.end();
                Ok(())
            }
            Event::End(_) => {
                self.end();
                Ok(())
            }
            Event::Text(text) => {
                self.tell(text.as_ref());
                Ok(())
            }
            Event::CData(text) => {
                self.tell(text.as_ref());
                Ok(())
            }
            Event::DocType(_) => Err("a document type declaration is not read".to_owned()),
            _ => Ok(()),
        }
    }

    fn descend(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return Err(format!("nested deeper than {}", self.limits.depth));
        }
        Ok(())
    }

    fn begin(&mut self, element: &BytesStart<'_>) -> Result<(), String> {
        let attributes = self.attributes(element)?;
        let get = |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        match (element.local_name().as_ref(), &mut self.open) {
            ("testcase", None) => {
                self.reading.report.total += 1;
                if self.reading.report.total > self.limits.cases {
                    return Err(format!("more than {} cases", self.limits.cases));
                }
                let micros = self.micros(get("time"));
                let name = self.case_name(get("classname").or(get("class")), get("name"));
                let case = TestCase { name, outcome: CaseOutcome::Passed, micros, message: String::new() };
                self.open = Some(Open { case, depth: self.depth, telling: false });
            }
            (kind @ ("failure" | "error" | "skipped"), Some(open)) if self.depth == open.depth + 1 => {
                let outcome = match kind {
                    "failure" => CaseOutcome::Failed,
                    "error" => CaseOutcome::Errored,
                    _ => CaseOutcome::Skipped,
                };
                // A case with both (an error in its tear-down) counts once, as the worse.
                if rank(outcome) > rank(open.case.outcome) {
                    open.case.outcome = outcome;
                    open.case.message = get("message").map(first_line).unwrap_or_default();
                }
                open.telling = open.case.message.is_empty();
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(open) = &mut self.open
            && self.depth == open.depth + 1
        {
            open.telling = false;
        }
        if self.open.as_ref().is_some_and(|open| open.depth == self.depth)
            && let Some(open) = self.open.take()
        {
            self.count(open.case);
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn count(&mut self, case: TestCase) {
        let report = &mut self.reading.report;
        match case.outcome {
            CaseOutcome::Passed => return,
            CaseOutcome::Skipped => {
                report.skipped += 1;
                return;
            }
            CaseOutcome::Failed => report.failed += 1,
            CaseOutcome::Errored => report.errored += 1,
        }
        if report.failures.len() < FAILURES {
            report.failures.push(case);
        }
    }

    /// Where the failure has no `message`, its text's first line is one.
    fn tell(&mut self, text: &str) {
        if let Some(open) = &mut self.open
            && open.telling
            && open.case.message.is_empty()
        {
            open.case.message = first_line(text);
        }
    }

    fn attributes(&self, element: &BytesStart<'_>) -> Result<Vec<(String, String)>, String> {
        let mut found = Vec::new();
        let mut all = element.attributes();
        // The check for repeated names is quadratic; the first of a name counts.
        for attribute in all.with_checks(false) {
            if found.len() >= self.limits.attributes {
                return Err(format!("more than {} attributes on one element", self.limits.attributes));
            }
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = quick_xml::escape::unescape(&attribute.value).map_or_else(
                // An entity that nobody declared stays as it is written.
                |_| attribute.value.to_string(),
                std::borrow::Cow::into_owned,
            );
            found.push((attribute.key.local_name().as_ref().to_owned(), value));
        }
        Ok(found)
    }

    fn case_name(&mut self, class: Option<&str>, name: Option<&str>) -> String {
        let name = name.map(str::trim).filter(|name| !name.is_empty());
        if name.is_none() {
            self.nameless += 1;
        }
        let name = name.unwrap_or("(without a name)");
        match class.map(str::trim).filter(|class| !class.is_empty()) {
            Some(class) => clean(&format!("{class}::{name}")),
            None => clean(name),
        }
    }

    /// Seconds as most tools write them, with thousands separators as some do; anything else is 0 and told once.
    fn micros(&mut self, time: Option<&str>) -> u64 {
        let Some(text) = time.map(str::trim).filter(|text| !text.is_empty()) else { return 0 };
        let seconds = text.replace(',', "").parse::<f64>().ok();
        match seconds.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok()) {
            Some(time) => u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            None => {
                self.strange_times += 1;
                0
            }
        }
    }

    fn finish(mut self, replaced: bool) {
        // A file that ends within a failing case has told of a failure.
        if let Some(open) = self.open.take() {
            self.count(open.case);
        }
        let name = self.name;
        if self.strange_times > 0 {
            self.reading.warn(format!("{name}: {} cases have a time that is none", self.strange_times));
        }
        if self.nameless > 0 {
            self.reading.warn(format!("{name}: {} cases have no name", self.nameless));
        }
        if replaced {
            self.reading.warn(format!("{name}: not all of it is UTF-8"));
        }
    }
}

fn rank(outcome: CaseOutcome) -> u8 {
    match outcome {
        CaseOutcome::Passed => 0,
        CaseOutcome::Skipped => 1,
        CaseOutcome::Failed => 2,
        CaseOutcome::Errored => 3,
    }
}

fn first_line(text: &str) -> String {
    clean(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

/// At most 500 characters without control characters: it ends up on terminals.
fn clean(text: &str) -> String {
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect();
    text.trim().to_owned()
}
