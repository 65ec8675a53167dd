//! Paths as texts with `/`, without looking at any disk.

/// Whether a link at `path` (relative, below some folder) with this target leads to somewhere within that folder, read as
/// text: what is a link on the way is not followed.
#[must_use]
pub fn stays_within(path: &str, target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_lead_up_as_far_as_the_folder() {
        for (path, target) in [("a", "b"), ("a/b", "../c"), ("a/b", "./c/../../d"), ("a", "b/..")] {
            assert!(stays_within(path, target), "{path} -> {target}");
        }
        for (path, target) in [("a", ""), ("a", "/etc"), ("a", "../b"), ("a/b", "../../c"), ("a", "b/../../c/d")] {
            assert!(!stays_within(path, target), "{path} -> {target}");
        }
    }
}
