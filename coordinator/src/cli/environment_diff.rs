//! `muster env diff`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use domain::time::parse_duration;
use proto::v1;
use proto::v1::data_diff::Part;

use super::client::Client;
use super::environment::named;
use super::error::Error;
use super::output::{Output, table_lines};
use super::terminal::Block;
use super::time;

/// Flags of `muster env diff`.
#[derive(Args, Debug)]
pub struct Diff {
    /// NAME, OWNER/NAME or id; default: as `env up` names it here
    environment: Option<String>,
    /// Compare the data with the seed or snapshot that it began with
    #[arg(long)]
    data: bool,
    /// Show so many keys of each table and kind of change, at most 100
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    rows: u32,
    /// Show their values too; for the environment's owner
    #[arg(long, requires = "rows")]
    values: bool,
    /// What is not compared by then is left out: 5m, 1h at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    within: Duration,
}

/// Compares, and shows what differs.
///
/// # Errors
/// See [`Error`].
pub async fn run(ask: Diff, client: &Client, output: &Output) -> Result<ExitCode, Error> {
    if !ask.data {
        let text = "`env diff` compares data: say --data. What a changed stack file would do is done, and told, by \
                    `muster env up`; `muster env check` reads it alone";
        return Err(Error::usage("E_DIFF_DATA", text));
    }
    let environment = named(ask.environment)?;
    let request = v1::DiffEnvironmentRequest {
        environment: environment.clone(),
        rows: ask.rows,
        values: ask.values,
        within_micros: proto::convert::micros(ask.within),
    };
    let mut stream = client.environments().diff(request).await?.into_inner();
    let mut block = Block::new(output);
    let mut objects = Vec::new();
    while let Some(message) = stream.message().await? {
        if output.is_json() && !matches!(message.part, Some(Part::Progress(_))) {
            output.json(&message)?;
        }
        match message.part {
            Some(Part::Progress(text)) if output.is_terminal() => block.draw(vec![text]),
            Some(Part::Object(object)) => objects.push(object),
            Some(Part::End(end)) => {
                block.draw(Vec::new());
                if !output.is_json() {
                    lines(&environment, &objects, &end).iter().for_each(|line| output.line(line));
                }
                return Ok(if end.left_out == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            _ => {}
        }
    }
    Err(Error::Status(tonic::Status::unavailable("E_STREAM_ENDED: the comparison ended before its end; ask again")))
}

fn lines(environment: &str, objects: &[v1::ObjectDiff], end: &v1::DiffEnd) -> Vec<String> {
    let mut lines = vec![format!("{environment} against {}", end.seed)];
    let mut services: Vec<&str> = objects.iter().map(|object| object.service.as_str()).collect();
    services.dedup();
    for service in services {
        lines.push(format!("  {service}"));
        let of_service: Vec<_> = objects.iter().filter(|object| object.service == service).collect();
        let rows: Vec<Vec<String>> =
            of_service.iter().map(|object| vec![object.name.clone(), numbers(object)]).collect();
        for (line, object) in table_lines(&["", ""], &rows).iter().skip(1).zip(of_service) {
            lines.push(format!("    {line}"));
            lines.extend(object.columns.iter().map(|column| format!("      column {column}")));
            lines.extend(object.examples.iter().map(example));
        }
    }
    let same = end.compared.saturating_sub(end.differing);
    let mut last = format!("{} differ, {same} are the same", end.differing);
    if end.left_out > 0 {
        last.push_str(&format!(", {} could not be compared", end.left_out));
    }
    lines.push(format!("{last} ({})", time::duration(end.took_micros)));
    lines
}

/// `+3 -1 ~12`, or what else there is to say.
fn numbers(object: &v1::ObjectDiff) -> String {
    if !object.left_out.is_empty() {
        return format!("not compared: {}", object.left_out);
    }
    let unit = match object.kind.as_str() {
        "redis" => "keys",
        "elasticsearch" => "documents",
        _ => "rows",
    };
    match object.presence() {
        v1::ObjectPresence::New if object.name.starts_with("database ") => "new".to_owned(),
        v1::ObjectPresence::Gone if object.name.starts_with("database ") => "gone".to_owned(),
        v1::ObjectPresence::New => format!("new, {} {unit}", object.added),
        v1::ObjectPresence::Gone => format!("gone, with {} {unit}", object.removed),
        _ => {
            let parts = [("+", object.added), ("-", object.removed), ("~", object.changed)];
            let some = parts.iter().filter(|(_, count)| *count > 0).map(|(sign, count)| format!("{sign}{count}"));
            let text = some.collect::<Vec<_>>().join(" ");
            if text.is_empty() { format!("the same {unit}") } else { text }
        }
    }
}

fn example(example: &v1::DiffExample) -> String {
    let sign = match example.change() {
        v1::DiffChange::Added => "+",
        v1::DiffChange::Removed => "-",
        _ => "~",
    };
    let values = match (example.before.is_empty(), example.after.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("  {}", example.before),
        (true, false) => format!("  {}", example.after),
        (false, false) => format!("  {} -> {}", example.before, example.after),
    };
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    format!("      {sign} {}{}", plain(&example.key), plain(&values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(service: &str, name: &str, numbers: (u64, u64, u64)) -> v1::ObjectDiff {
        v1::ObjectDiff {
            service: service.to_owned(),
            name: name.to_owned(),
            presence: v1::ObjectPresence::Both.into(),
            added: numbers.0,
            removed: numbers.1,
            changed: numbers.2,
            ..v1::ObjectDiff::default()
        }
    }

    #[test]
    fn differences_are_listed_by_service_with_signs() {
        let mut people = object("postgres", "people", (3, 1, 12));
        people.columns.push("+ email text".to_owned());
        people.examples.push(v1::DiffExample {
            change: v1::DiffChange::Changed.into(),
            key: "id=7".to_owned(),
            before: "{\"a\":1}".to_owned(),
            after: "{\"a\":2}".to_owned(),
        });
        let mut audit = object("postgres", "audit", (40, 0, 0));
        audit.presence = v1::ObjectPresence::New.into();
        let mut late = object("redis", "db0", (0, 0, 0));
        late.left_out = "no time".to_owned();
        let end = v1::DiffEnd {
            seed: "staging@1".to_owned(),
            compared: 9,
            differing: 2,
            left_out: 1,
            took_micros: 1_500_000,
        };
        assert_eq!(
            lines("one", &[people, audit, late], &end),
            [
                "one against staging@1",
                "  postgres",
                "    people  +3 -1 ~12",
                "      column + email text",
                "      ~ id=7  {\"a\":1} -> {\"a\":2}",
                "    audit   new, 40 rows",
                "  redis",
                "    db0  not compared: no time",
                "2 differ, 7 are the same, 1 could not be compared (1.50 s)",
            ]
        );
    }
}
