//! `develop`: what `muster env up --watch` does when sources change.

use domain::stack::{Watch, WatchAction};

use super::service::outside;
use crate::path;
use crate::reader::{Fields, Keys, Reader, shown};
use crate::yaml::Node;

const KEYS: Keys = Keys { known: &["watch"], absent: &[] };
const RULE: Keys =
    Keys { known: &["action", "path", "target", "ignore", "include", "initial_sync", "exec"], absent: &[] };

pub(super) fn read(r: &mut Reader, fields: Fields<'_>, place: &str) -> Vec<Watch> {
    let Some(node) = fields.get("develop") else { return Vec::new() };
    let place = format!("develop of {place}");
    let Some(fields) = r.fields(node, &place, &KEYS) else { return Vec::new() };
    let Some(node) = fields.get("watch") else { return Vec::new() };
    let place = format!("watch in {place}");
    let Some(rules) = r.list(node, &place) else { return Vec::new() };
    rules.iter().filter_map(|node| rule(r, node, &place)).collect()
}

fn rule(r: &mut Reader, node: &Node, place: &str) -> Option<Watch> {
    let fields = r.fields(node, place, &RULE)?;
    for key in ["include", "initial_sync", "exec"] {
        if let Some(entry) = fields.entry(key) {
            r.notice(entry.pos, format!("{key:?} in {place} is not used"));
        }
    }
    let Some(action) = fields.get("action") else {
        r.missing(fields.pos, "action", place, "write action: sync, rebuild, restart or sync+restart");
        return None;
    };
    let Some(at) = fields.get("path") else {
        r.missing(fields.pos, "path", place, "write the file or folder to watch");
        return None;
    };
    let text = r.text(at, &format!("path in {place}"))?;
    let path = match path::below(r.base(at.pos), text) {
        Ok(path) => path,
        Err(why) => {
            outside(r, at, &format!("path in {place}"), &why.to_string());
            return None;
        }
    };
    let ignore = fields.get("ignore").and_then(|node| r.texts(node, &format!("ignore in {place}"))).unwrap_or_default();
    let action = match r.text(action, &format!("action in {place}"))? {
        "sync" => {
            r.notice(
                action.pos,
                format!(
                    "sync in {place}: files are not copied into containers; mount {path}, and changes are seen at once"
                ),
            );
            WatchAction::Sync
        }
        "restart" | "sync+restart" => WatchAction::Restart,
        "rebuild" => WatchAction::Rebuild,
        "sync+exec" => {
            r.notice(action.pos, format!("sync+exec in {place} is not used"));
            return None;
        }
        _ => {
            let hint = "use sync, rebuild, restart or sync+restart";
            r.value(action, format!("action in {place} is {}", shown(action)), hint);
            return None;
        }
    };
    Some(Watch { action, path, ignore })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::stack::{Watch, WatchAction};

    use super::super::{Input, Reading, read};

    fn web(rules: &str) -> Result<Reading, String> {
        let text = format!("services:\n  web:\n    image: bot\n    develop:\n      watch:\n{rules}");
        let variables = BTreeMap::new();
        let input = Input { file: "c.yaml", text: &text, variables: &variables, files: &|_| None };
        read(input).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_are_read_with_their_patterns() {
        let reading = web("        - { action: rebuild, path: ./app/, ignore: [\"*.md\"] }\n        - { action: sync+restart, path: conf, target: /etc/conf }\n").unwrap();
        let watch = &reading.stack.services["web"].watch;
        let rule = |action, path: &str, ignore: &[&str]| Watch {
            action,
            path: path.to_owned(),
            ignore: ignore.iter().map(|one| (*one).to_owned()).collect(),
        };
        assert_eq!(watch[..], [rule(WatchAction::Rebuild, "app", &["*.md"]), rule(WatchAction::Restart, "conf", &[])]);
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let reading = web("        - { action: sync, path: src, target: /src }\n        - { action: sync+exec, path: src, exec: { command: x } }\n").unwrap();
        assert_eq!(reading.stack.services["web"].watch.len(), 1);
        assert_eq!(reading.notices.len(), 3);
        for bad in [
            "{ action: dance, path: a }",
            "{ path: a }",
            "{ action: sync }",
            "{ action: sync, path: ../a }",
            "{ action: sync, path: a, what: b }",
        ] {
            assert!(web(&format!("        - {bad}\n")).is_err(), "{bad}");
        }
    }
}
