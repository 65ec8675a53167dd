//! Whether a repository lies within a prefix of the policy.

/// Whether `url` begins with `prefix`, and what follows it is another component: of the path, or of the address before it.
/// Where a prefix ends with a separator the next component is anything. `url` is one that was parsed: only its user has an `@`
/// behind it, and no part of its path is `..`.
pub(super) fn within(prefix: &str, url: &str) -> bool {
    let Some(rest) = url.strip_prefix(prefix).filter(|_| !prefix.is_empty()) else { return false };
    rest.is_empty() || rest.starts_with('/') || separated(prefix) || (is_host(prefix) && rest.starts_with(':'))
}

/// It ends where a component does.
fn separated(prefix: &str) -> bool {
    let separator = |end| prefix.strip_suffix(end).is_some_and(|before| !has_path(before));
    prefix.ends_with('/') || separator('@') || separator(':')
}

/// `USER@HOST`: the path comes after a `:`.
fn is_host(prefix: &str) -> bool {
    prefix.contains('@') && !prefix.contains("://") && !has_path(prefix)
}

/// The address before the path, or a part of it, is over: from there on `@` and `:` are characters as others.
fn has_path(prefix: &str) -> bool {
    prefix.split_once("://").map_or(prefix, |(_, rest)| rest).contains(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_prefix_ends_with_a_component() {
        for (prefix, url) in [
            ("https://", "https://git.example/a"),
            ("https://git.example", "https://git.example/a"),
            ("https://git.example/", "https://git.example/a"),
            ("https://git.example/team", "https://git.example/team"),
            ("https://git.example/team", "https://git.example/team/x"),
            ("https://git.example/team/", "https://git.example/team/x"),
            ("ssh://", "ssh://git@git.example/a"),
            ("ssh://git@git.example", "ssh://git@git.example/a"),
            ("ssh://git@git.example:", "ssh://git@git.example:2222/a"),
            ("ssh://git@", "ssh://git@git.example/a"),
            ("git@", "git@git.example:a"),
            ("git@git.example", "git@git.example:team/x"),
            ("git@git.example:", "git@git.example:team/x"),
            ("git@git.example:team", "git@git.example:team/x"),
            ("/", "/srv/x"),
            ("/srv/releases", "/srv/releases/bot"),
            ("file:///srv", "file:///srv/x.git"),
        ] {
            assert!(within(prefix, url), "{prefix} {url}");
        }
    }

    #[test]
    fn what_only_begins_alike_is_not_within() {
        for (prefix, url) in [
            ("", "https://git.example/a"),
            ("", "/srv/x"),
            ("https", "https://git.example/a"),
            ("https://git.example", "https://git.example.evil/a"),
            ("https://git.example", "https://git.example-evil/a"),
            ("https://git.example", "https://git.example@evil/a"),
            ("https://git.example", "https://git.example:8443/a"),
            ("https://git.example/team", "https://git.example/team-evil/x"),
            ("https://git.example/team", "https://git.example/team.evil/x"),
            ("https://git.example/team", "https://git.example/team:evil/x"),
            ("https://git.example/team", "https://git.example/team?x"),
            ("https://git.example/team:", "https://git.example/team:evil"),
            ("https://git.example/team@", "https://git.example/team@evil"),
            ("ssh://git.example", "ssh://git.example@evil/a"),
            ("ssh://git", "ssh://git@evil/a"),
            ("ssh://git@git.example", "ssh://git@git.example:2222/a"),
            ("ssh://git@git.example:22", "ssh://git@git.example:2222/a"),
            ("git", "git@evil:a"),
            ("git@git.example", "git@git.example.evil:a"),
            ("git@git.example:team", "git@git.example:team-evil/x"),
            ("git@git.example:team", "git@git.example:team:evil/x"),
            ("git@git.example:team:", "git@git.example:team:evil"),
            ("/srv/releases", "/srv/releases-evil/bot"),
            ("/srv/releases", "/srv/releases:evil"),
            ("/srv/a@", "/srv/a@evil"),
        ] {
            assert!(!within(prefix, url), "{prefix} {url}");
        }
    }
}
