//! What is to be done in an environment when sources change (`develop.watch`), decided by paths alone.

use std::collections::{BTreeMap, BTreeSet};

use super::{MountSource, Service, Stack};

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchAction {
    /// Nothing: the files are mounted, and seen at once.
    Sync,
    /// The service is stopped and started.
    Restart,
    /// Its image is built again.
    Rebuild,
}

/// A rule of `develop.watch`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// What it does.
    pub action: WatchAction,
    /// File or folder relative to the stack file; `.` is its folder.
    pub path: String,
    /// Patterns of what does not matter, relative to `path`.
    pub ignore: Vec<String>,
}

/// What is done with a service; the stronger one comes last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Again {
    /// Stopped and started.
    Restart,
    /// Built again.
    Rebuild,
}

/// The rest of `path` below `folder`; none: it is not there.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    if folder == "." || folder.is_empty() || path == folder {
        return Some(path);
    }
    path.strip_prefix(folder)?.strip_prefix('/')
}

fn part(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| part(rest, &text[skip..])),
        Some((b'?', rest)) => !text.is_empty() && part(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && part(rest, &text[1..]),
    }
}

fn parts(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        // A pattern for a folder covers what is in it.
        (None, _) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| parts(rest, &path[skip..])),
        (Some((first, rest)), Some((name, others))) => part(first.as_bytes(), name.as_bytes()) && parts(rest, others),
        (Some(_), None) => false,
    }
}

fn ignored(watch: &Watch, rest: &str) -> bool {
    let path: Vec<&str> = rest.split('/').collect();
    watch.ignore.iter().any(|pattern| {
        let pattern: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        !pattern.is_empty() && parts(&pattern, &path)
    })
}

fn by_rule(watch: &Watch, path: &str) -> Option<Again> {
    let rest = below(path, &watch.path)?;
    match watch.action {
        _ if ignored(watch, rest) => None,
        WatchAction::Sync => None,
        WatchAction::Restart => Some(Again::Restart),
        WatchAction::Rebuild => Some(Again::Rebuild),
    }
}

/// Without rules: what goes into its image and is not mounted over it.
fn by_itself(service: &Service, path: &str) -> Option<Again> {
    let build = service.build.as_ref()?;
    let mounted = service.mounts.iter().any(|mount| match &mount.source {
        MountSource::Folder(folder) => folder != "." && below(path, folder).is_some(),
        _ => false,
    });
    (!mounted && below(path, &build.context).is_some()).then_some(Again::Rebuild)
}

/// What is done again in which services when those files change; paths are relative to the stack file.
#[must_use]
pub fn affected(stack: &Stack, changed: &BTreeSet<String>) -> BTreeMap<String, Again> {
    let of = |service: &Service| {
        let each = changed.iter().filter_map(|path| match service.watch.as_slice() {
            [] => by_itself(service, path),
            rules => rules.iter().filter_map(|rule| by_rule(rule, path)).max(),
        });
        each.max()
    };
    stack.services.iter().filter_map(|(name, service)| Some((name.clone(), of(service)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Build, Mount};

    fn build(context: &str) -> Service {
        let build = Build { context: context.to_owned(), dockerfile: None, target: None, args: BTreeMap::new() };
        Service { build: Some(build), ..Service::default() }
    }

    fn rule(action: WatchAction, path: &str, ignore: &[&str]) -> Watch {
        Watch { action, path: path.to_owned(), ignore: ignore.iter().map(|one| (*one).to_owned()).collect() }
    }

    fn asked(service: Service, path: &str) -> Option<Again> {
        let stack = Stack { services: [("web".to_owned(), service)].into(), ..Stack::default() };
        affected(&stack, &[path.to_owned()].into()).get("web").copied()
    }

    #[test]
    fn an_image_is_built_again_for_what_goes_into_it_and_is_not_mounted() {
        let mount =
            Mount { source: MountSource::Folder("app/src".to_owned()), target: "/src".to_owned(), read_only: false };
        let service = Service { mounts: vec![mount], ..build("app") };
        assert_eq!(asked(service.clone(), "app/Dockerfile"), Some(Again::Rebuild));
        assert_eq!(asked(service.clone(), "app/src/main.py"), None);
        assert_eq!(asked(service, "application/x"), None);
        assert_eq!(asked(build("."), "any/thing"), Some(Again::Rebuild));
        assert_eq!(asked(Service::default(), "any/thing"), None);
    }

    #[test]
    fn rules_of_the_file_come_instead_and_the_strongest_holds() {
        let watch = vec![
            rule(WatchAction::Sync, "src", &[]),
            rule(WatchAction::Restart, "src/config", &["*.md", "**/cache/"]),
            rule(WatchAction::Rebuild, "package.json", &[]),
        ];
        let service = Service { watch, ..build(".") };
        let asked = |path| asked(service.clone(), path);
        assert_eq!((asked("src/main.py"), asked("README")), (None, None));
        assert_eq!(asked("src/config/a.toml"), Some(Again::Restart));
        assert_eq!((asked("src/config/a.md"), asked("src/config/x/cache/y")), (None, None));
        assert_eq!(asked("package.json"), Some(Again::Rebuild));
        let stack = Stack { services: [("web".to_owned(), service.clone())].into(), ..Stack::default() };
        let both = ["package.json".to_owned(), "src/config/a".to_owned()].into();
        assert_eq!(affected(&stack, &both)["web"], Again::Rebuild);
    }
}
