//! A rollout as lines of text.

use proto::v1::{self, RolloutState, StepState};

use super::output::{short, table_lines};
use super::time::{duration, stamp};

/// The word for a state.
#[must_use]
pub fn state(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Unspecified => "?",
        RolloutState::Queued => "queued",
        RolloutState::Preflight => "preflight",
        RolloutState::Running => "running",
        RolloutState::Baking => "baking",
        RolloutState::Paused => "paused",
        RolloutState::Reverting => "reverting",
        RolloutState::Succeeded => "succeeded",
        RolloutState::Reverted => "reverted",
        RolloutState::RevertIncomplete => "revert incomplete",
        RolloutState::Cancelled => "cancelled",
        RolloutState::Superseded => "superseded",
    }
}

/// Whether nothing will change any more.
#[must_use]
pub fn has_ended(state: RolloutState) -> bool {
    matches!(
        state,
        RolloutState::Succeeded
            | RolloutState::Reverted
            | RolloutState::RevertIncomplete
            | RolloutState::Cancelled
            | RolloutState::Superseded
    )
}

fn step_state(state: StepState) -> &'static str {
    match state {
        StepState::Unspecified => "?",
        StepState::Pending => "pending",
        StepState::Staged => "staged",
        StepState::Starting => "starting",
        StepState::Warm => "warm",
        StepState::Switched => "switched",
        StepState::Checking => "checking",
        StepState::Confirming => "confirming",
        StepState::Healthy => "healthy",
        StepState::Reverting => "reverting",
        StepState::Reverted => "reverted",
        StepState::Failed => "failed",
        StepState::Parked => "parked",
    }
}

/// Head, one line per member, and what it waits for or how it ended.
#[must_use]
pub fn status(rollout: &v1::Rollout) -> Vec<String> {
    let from = if rollout.from_release == 0 { "nothing".to_owned() } else { rollout.from_release.to_string() };
    let mut lines = vec![format!("rollout {} · {} · {from} → {}", short(&rollout.id), rollout.target, rollout.release)];
    let width = rollout.steps.iter().map(|step| step.member.chars().count()).max().unwrap_or(0);
    lines.extend(rollout.steps.iter().map(|step| step_line(step, width)));
    lines.push(if has_ended(rollout.state()) { outcome(rollout) } else { format!(" {}", rollout.waiting) });
    lines
}

fn step_line(step: &v1::Step, width: usize) -> String {
    let doubt = if step.unknown { "?" } else { "" };
    let state = format!("{}{doubt}", step_state(step.state()));
    let timings = [
        ("staged", step.staged_micros),
        ("warm", step.warm_micros),
        ("switched", step.switched_micros),
        ("checked", step.checked_micros),
        ("confirmed", step.confirmed_micros),
        ("back in", step.reverted_micros),
    ];
    let told: Vec<String> = timings
        .iter()
        .filter(|(_, micros)| *micros > 0)
        .map(|(name, micros)| format!("{name} {}", duration(*micros)))
        .collect();
    let detail = if step.detail.is_empty() { told.join("  ") } else { step.detail.clone() };
    format!(" {:<width$}  {state:<10} {detail}", step.member).trim_end().to_owned()
}

fn outcome(rollout: &v1::Rollout) -> String {
    let id = short(&rollout.id);
    let target = &rollout.target;
    let untouched: Vec<&str> =
        rollout.steps.iter().filter(|step| !step.touched).map(|step| step.member.as_str()).collect();
    let never = match untouched.as_slice() {
        [] => String::new(),
        [one] => format!("; {one} was never touched"),
        many => format!("; {} were never touched", many.join(" ")),
    };
    let stays = if rollout.from_release == 0 {
        format!("{target} has no earlier release")
    } else {
        format!("{target} stays on release {}", rollout.from_release)
    };
    let took = u64::try_from(rollout.finished_at - rollout.created_at).map(duration).unwrap_or_default();
    match rollout.state() {
        RolloutState::Succeeded => {
            format!("rollout {id} succeeded: {target} is on release {} after {took}", rollout.release)
        }
        RolloutState::Reverted => format!("rollout {id} reverted: {stays}{never}"),
        RolloutState::RevertIncomplete => {
            let parked: Vec<&str> = rollout
                .steps
                .iter()
                .filter(|step| step.state() != StepState::Reverted && step.touched)
                .map(|step| step.member.as_str())
                .collect();
            format!(
                "rollout {id} revert incomplete: {stays}, but {} could not be taken back yet{never}",
                parked.join(" ")
            )
        }
        RolloutState::Cancelled => format!("rollout {id} cancelled: {stays}{never}"),
        RolloutState::Superseded => format!("rollout {id} superseded by a newer one{never}"),
        other => format!("rollout {id} {}", state(other)),
    }
}

/// Why it waits, or why it ended as it did.
#[must_use]
pub fn why(rollout: &v1::Rollout) -> Vec<String> {
    let mut lines = Vec::new();
    if !has_ended(rollout.state()) {
        lines.push(rollout.waiting.clone());
    }
    if !rollout.reason_code.is_empty() {
        lines.push(format!("  reason   {}: {}", rollout.reason_code, rollout.reason_text));
    }
    for step in &rollout.steps {
        if let Some(evidence) = &step.failure {
            lines.extend(failure(step, evidence, rollout.release));
        }
    }
    if let Some(lock) = &rollout.lock {
        lines.push(format!(
            "  locked   {} until {} UTC: {}; `muster rollout start --unlock {} …` goes on before",
            rollout.target,
            stamp(lock.expires_at),
            lock.reason.split(": ").next().unwrap_or_default(),
            rollout.target
        ));
    }
    lines
}

fn failure(step: &v1::Step, evidence: &v1::Evidence, release: u64) -> Vec<String> {
    let gate = if evidence.gate.is_empty() { "step" } else { &evidence.gate };
    let named = evidence.process.is_empty() || gate.ends_with(&evidence.process);
    let of = if named { String::new() } else { format!(" of {}", evidence.process) };
    let mut lines = vec![format!("  gate     {gate}{of} on {}: {} ({})", step.member, evidence.text, evidence.code)];
    lines.extend(probe_lines(&evidence.answers));
    if evidence.exited {
        lines.push(format!("  exited   status {}, restarted {} times", evidence.exit_code, evidence.restarts));
    }
    for line in &evidence.log {
        lines.push(format!("  its log  {line}"));
    }
    if evidence.log.is_empty() {
        lines.push(format!("  its log  empty (release {release})"));
    }
    lines
}

/// Equal answers in a row become one line.
fn probe_lines(answers: &[v1::ProbeAnswer]) -> Vec<String> {
    let same = |a: &v1::ProbeAnswer, b: &v1::ProbeAnswer| a.healthy == b.healthy && a.text == b.text;
    let line = |group: &[v1::ProbeAnswer]| {
        let word = if group[0].healthy { "healthy" } else { "failing" };
        let times = if group.len() > 1 { format!(" ({} times)", group.len()) } else { String::new() };
        format!("  probe    {word}: {}{times}", group[0].text)
    };
    answers.chunk_by(same).map(line).collect()
}

/// What `rollout plan` prints.
#[must_use]
pub fn plan(plan: &v1::PlanRolloutResponse) -> Vec<String> {
    let replaces =
        if plan.from_release == 0 { "nothing runs yet".to_owned() } else { format!("replaces {}", plan.from_release) };
    let mut lines = vec![format!(
        "{}: release {} (build {}, config r{}) {replaces}",
        plan.target,
        plan.release,
        short(&plan.build),
        plan.config_revision
    )];
    let mut rows = Vec::new();
    for (n, wave) in plan.waves.iter().enumerate() {
        let canary = if n == 0 && plan.waves.len() > 1 { " (canary)" } else { "" };
        rows.push(vec![format!("wave {}{canary}", n + 1), wave.members.join(" ")]);
    }
    let changes = if plan.changes.is_empty() { "none".to_owned() } else { plan.changes.join("; ") };
    rows.push(vec!["changes".to_owned(), changes]);
    if !plan.checked.is_empty() {
        rows.push(vec!["checked".to_owned(), plan.checked.join(", ")]);
    }
    if plan.about_micros > 0 {
        rows.push(vec!["would take".to_owned(), format!("about {}", duration(plan.about_micros))]);
    }
    for problem in &plan.problems {
        rows.push(vec!["would not start".to_owned(), format!("{}: {}", problem.code, problem.text)]);
    }
    lines.extend(table_lines(&["", ""], &rows).into_iter().skip(1).map(|line| format!("  {line}")));
    lines
}

/// Outside a terminal one line per change is wanted, not one per tick: cuts what only counts time.
pub fn without_running_figures(lines: &mut [String]) {
    for line in lines.iter_mut() {
        if line.starts_with(" waiting for") {
            cut_clocks(line);
        } else if let Some(at) = line.find(" of ").filter(|_| line.contains("checking")) {
            let cut = line[..at].rfind("  ").unwrap_or(at);
            line.truncate(cut);
        }
    }
}

/// `(starting; deadline in 9 m 59 s)` → `(starting)`, and what a running clock says at the end goes.
fn cut_clocks(line: &mut String) {
    for clock in ["; deadline in ", " (deadline in "] {
        if let Some(from) = line.find(clock) {
            let closing = usize::from(clock.starts_with(" ("));
            let to = line[from..].find(')').map_or(line.len(), |end| from + end + closing);
            line.replace_range(from..to, "");
        }
    }
    if let Some(at) = line.find(" for another ") {
        line.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout() -> v1::Rollout {
        let failed = v1::Evidence {
            code: "E_HEALTH_FAILED".into(),
            gate: "health".into(),
            process: "web".into(),
            text: "HTTP 500 three times".into(),
            answers: vec![v1::ProbeAnswer { text: "HTTP 500: no table".into(), ..v1::ProbeAnswer::default() }; 3],
            log: vec!["bot.web: no table".into()],
            ..v1::Evidence::default()
        };
        let step = |member: &str, state: StepState, touched| v1::Step {
            member: member.into(),
            state: state.into(),
            touched,
            ..v1::Step::default()
        };
        v1::Rollout {
            id: "019a0000-0000-7000-8000-000000000d08".into(),
            target: "bot/production".into(),
            state: RolloutState::Reverted.into(),
            release: 43,
            from_release: 42,
            steps: vec![
                v1::Step {
                    failure: Some(failed),
                    reverted_micros: 300_000,
                    ..step("web-1", StepState::Reverted, true)
                },
                step("web-2", StepState::Pending, false),
            ],
            ..v1::Rollout::default()
        }
    }

    #[test]
    fn a_reverted_rollout_says_what_stays_and_what_was_never_touched() {
        let lines = status(&rollout());
        assert_eq!(lines[1], " web-1  reverted   back in 0.30 s");
        assert_eq!(
            lines[3],
            "rollout 000000000d08 reverted: bot/production stays on release 42; web-2 was never touched"
        );
    }

    #[test]
    fn lines_for_a_pipe_do_not_count_time() {
        let mut lines = vec![
            " waiting for: web-1 (starting; deadline in 9 m 59 s); then wave 2: web-2".to_owned(),
            " waiting for: web-2 to stay healthy for another 3.8 s (deadline in 4 m); then web-3".to_owned(),
            " web-2  checking   6.2 of 10 s".to_owned(),
        ];
        without_running_figures(&mut lines);
        assert_eq!(lines[0], " waiting for: web-1 (starting); then wave 2: web-2");
        assert_eq!(lines[1], " waiting for: web-2 to stay healthy");
        assert_eq!(lines[2], " web-2  checking ");
    }

    #[test]
    fn why_names_host_gate_probe_answers_and_the_apps_own_lines() {
        let text = why(&rollout()).join("\n");
        for part in
            ["health of web on web-1: HTTP 500 three times", "HTTP 500: no table (3 times)", "bot.web: no table"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
