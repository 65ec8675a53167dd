//! `muster env check`: what is wrong with stack files, and what is done in another way, without a server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use manifest::stack::Report;

use super::error::Error;
use super::output::Output;
use super::stack::{self, Chosen};

/// Flags of `muster env check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Stack files, each a stack of its own; with --file, files that are laid over each other
    #[arg(value_name = "STACK", conflicts_with = "files")]
    stacks: Vec<PathBuf>,
    #[command(flatten)]
    chosen: Chosen,
}

/// Tells all problems and notices of the files at once; the exit status is 2 when there is a problem.
///
/// # Errors
/// A file cannot be read at all.
pub fn run(check: &Check, output: &Output) -> Result<ExitCode, Error> {
    let mut good = true;
    if check.stacks.is_empty() {
        good &= one(&check.chosen, None, output)?;
    }
    for path in &check.stacks {
        let shown = path.to_string_lossy();
        good &= one(&check.chosen.file(path.clone()), Some(&shown), output)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn one(chosen: &Chosen, shown: Option<&str>, output: &Output) -> Result<bool, Error> {
    let report = stack::find(chosen)?.report(shown)?;
    if output.is_json() {
        output.line(&json(&report).to_string());
    } else {
        print(&report, output);
    }
    Ok(report.problems.is_empty())
}

/// Problems and notices in the order of the files, then one line about the stack.
fn print(report: &Report, output: &Output) {
    for problem in &report.problems {
        let hint = if problem.hint.is_empty() { String::new() } else { format!("; {}", problem.hint) };
        let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
        output.line(&format!("{place}: error: {} {}{hint}", problem.code, problem.message));
    }
    for notice in &report.notices {
        output.line(&format!("{}:{}:{}: notice: {}", notice.file, notice.line, notice.column, notice.message));
    }
    let services = report.stack.as_ref().map(|stack| count(stack.services.len(), "service") + ", ").unwrap_or_default();
    let (problems, notices) = (count(report.problems.len(), "problem"), count(report.notices.len(), "notice"));
    output.line(&format!("{}: {services}{problems}, {notices}", report.file));
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn json(report: &Report) -> serde_json::Value {
    let problems: Vec<_> = report
        .problems
        .iter()
        .map(|problem| {
            serde_json::json!({
                "code": problem.code.as_str(),
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
                "hint": problem.hint,
            })
        })
        .collect();
    let notices: Vec<_> = report
        .notices
        .iter()
        .map(|notice| {
            serde_json::json!({
                "file": notice.file,
                "line": notice.line,
                "column": notice.column,
                "message": notice.message,
            })
        })
        .collect();
    let services: Vec<&String> = report.stack.iter().flat_map(|stack| stack.services.keys()).collect();
    serde_json::json!({ "file": report.file, "services": services, "problems": problems, "notices": notices })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_people_say_them() {
        assert_eq!([0, 1, 2].map(|n| count(n, "notice")), ["no notices", "1 notice", "2 notices"]);
    }
}
