//! `.dockerignore`: which files of a build context are left out.

/// Patterns in the file's order; the last that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ignore {
    rules: Vec<(bool, Vec<String>)>,
}

impl Ignore {
    /// Reads the text of a `.dockerignore`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let rules = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (keep, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
                let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
                (keep, parts.map(str::to_owned).collect())
            })
            .collect();
        Self { rules }
    }

    /// Whether a file or folder is left out: a pattern for a folder also covers what is in it.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut left_out = false;
        for (keep, rule) in &self.rules {
            if (1..=parts.len()).any(|length| matches(rule, &parts[..length])) {
                left_out = !keep;
            }
        }
        left_out
    }

    /// Whether something below a folder that is left out may be kept all the same.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(keep, _)| *keep)
    }
}

fn matches(rule: &[String], parts: &[&str]) -> bool {
    match (rule.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => (0..=parts.len()).any(|skip| matches(rest, &parts[skip..])),
        (Some((first, rest)), Some((part, others))) => glob(first.as_bytes(), part.as_bytes()) && matches(rest, others),
        _ => false,
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((b'?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
        Some((byte, rest)) => text.first() == Some(byte) && glob(rest, &text[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_pattern_decides() {
        let ignore = Ignore::parse("# comment\n.git\n*.pyc\n**/__pycache__\nbuild/\n!build/keep.txt\ndocs/*.m?\n");
        for path in [".git", ".git/config", "a.pyc", "x/__pycache__/a", "__pycache__", "build/x", "docs/a.md"] {
            assert!(ignore.covers(path), "{path}");
        }
        for path in ["src/a.pyc", "a.py", "build/keep.txt", "docs/a/b.md", "x.git"] {
            assert!(!ignore.covers(path), "{path}");
        }
        assert!(ignore.has_exceptions());
        assert!(!Ignore::default().covers("a"));
    }
}
