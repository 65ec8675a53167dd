//! `muster env logs -f` over whatever is restarted meanwhile.

use std::collections::BTreeMap;

use tests::harness::call::Running;
use tests::harness::condition::{SOON, eventually};
use tests::harness::real;

use super::stand::Stand;

const STACK: &str = "
name: shop
services:
  counter:
    image: python:3.11-slim
    command: [python, /srv/count.py]
    volumes: [\"./conf:/srv:ro\"]
";

/// Counts on both outputs from 1 on, and says where it was stopped.
const COUNT: &str = "
import signal, sys, time
on = True
def stop(*_):
    global on
    on = False
signal.signal(signal.SIGTERM, stop)
n = 0
while on:
    n += 1
    for output in sys.stdout, sys.stderr:
        print('out' if output is sys.stdout else 'error', n, file=output, flush=True)
    time.sleep(0.003)
for output in sys.stdout, sys.stderr:
    print('out' if output is sys.stdout else 'error', 'stopped', file=output, flush=True)
";

/// What each output said, in its order. What is no number is a line that is only being written.
fn said(printed: &str) -> BTreeMap<String, Vec<String>> {
    let mut said = BTreeMap::<String, Vec<String>>::new();
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    for line in whole.lines().filter_map(|line| line.strip_prefix("counter | ")) {
        let (output, word) = line.split_once(' ').unwrap_or((line, ""));
        if word == "stopped" || word.parse::<usize>().is_ok() {
            said.entry(output.to_owned()).or_default().push(word.to_owned());
        }
    }
    said
}

fn counts(output: &str, first: usize, run: &[String]) {
    let expected: Vec<String> = (first..first + run.len()).map(|number| number.to_string()).collect();
    assert_eq!(run, expected, "{output}");
}

/// Waits until it has printed 100 lines more.
fn goes_on(follows: &Running) {
    let lines = || follows.so_far().lines().count();
    let before = lines();
    eventually(SOON, "it goes on", || {
        let now = lines();
        if now >= before + 100 { Ok(()) } else { Err(format!("{before} lines, now {now}")) }
    });
}

#[test]
fn followed_logs_go_on_without_a_gap_or_a_repetition_over_restarts_of_everything() {
    let Some(_turn) = real::turn() else { return };
    let mut stand = Stand::open(STACK);
    std::fs::create_dir(stand.folder.join("conf")).expect("a folder");
    stand.file("conf/count.py", COUNT);
    stand.muster(&["env", "up", "--name", "shop"]).ok();
    let follows = stand.muster(&["env", "logs", "shop", "-f"]).begin();
    goes_on(&follows);
    let last = stand.muster(&["env", "logs", "shop", "-f", "--tail", "3"]).begin();
    goes_on(&last);
    stand.cluster.crash();
    goes_on(&last);
    for (output, words) in said(&last.so_far()) {
        let first = words[0].parse().expect("a number");
        assert!(first > 1, "{output}: {words:?}");
        counts(&output, first, &words);
    }
    last.kill();
    goes_on(&follows);
    stand.host.crash(&stand.cluster);
    goes_on(&follows);
    stand.muster(&["env", "restart", "counter", "-e", "shop"]).ok();
    goes_on(&follows);
    stand.cluster.crash();
    goes_on(&follows);
    let without = stand.muster(&["env", "logs", "shop", "--tail", "4"]).ok();
    assert_eq!(said(&without.stdout).values().flatten().count(), 4, "{}", without.stdout);
    // Its container is made anew.
    stand.file("compose.yaml", STACK.replace("/srv/count.py]", "/srv/count.py, again]"));
    stand.muster(&["env", "up", "--name", "shop"]).ok();
    goes_on(&follows);
    stand.muster(&["env", "down", "shop"]).ok();
    let printed = follows.finish().with_code(0);

    let said = said(&printed.stdout);
    assert_eq!(said.keys().collect::<Vec<_>>(), ["error", "out"]);
    for (output, words) in said {
        let mut runs = words.split_inclusive(|word| word == "stopped");
        let restarted = runs.next().and_then(|run| run.split_last()).expect("a first run");
        assert_eq!(restarted.0, "stopped", "{output}: {words:?}");
        counts(&output, 1, restarted.1);
        // What is removed is not told before.
        let rest: Vec<_> = runs.flatten().cloned().collect();
        let anew = rest.iter().rposition(|word| word == "1").expect("a last run");
        assert!(anew > 0, "{output}: {words:?}");
        counts(&output, 1, &rest[..anew]);
        counts(&output, 1, rest[anew..].strip_suffix(&["stopped".to_owned()]).unwrap_or(&rest[anew..]));
    }
    stand.ends();
}
