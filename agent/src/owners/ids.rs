//! Which numbers of users and groups are exchanged.

/// Whoever a container begins as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Begins {
    /// Numbers; without one the group is whatever the image says.
    As {
        /// The user.
        uid: u32,
        /// The group.
        gid: Option<u32>,
    },
    /// A name whose number only the image knows.
    Named(String),
}

impl Begins {
    /// By the stack file's `user`, else by the image's: `UID`, `UID:GID`, `root`, a name, or nothing, which is root.
    #[must_use]
    pub fn of(user: Option<&str>, image: &str) -> Self {
        let text = user.filter(|user| !user.is_empty()).unwrap_or(image);
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let uid = if matches!(user, "" | "root") { Some(0) } else { user.parse().ok() };
        let Some(uid) = uid else { return Self::Named(user.to_owned()) };
        let gid = match group {
            Some("root") => Some(0),
            Some(group) => group.parse().ok(),
            // Images agree on this one.
            None => (uid == 0).then_some(0),
        };
        Self::As { uid, gid }
    }
}

/// Two users that change places, and two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    /// On the disk, and as seen.
    pub users: (u32, u32),
    /// See `users`.
    pub groups: (u32, u32),
}

impl Exchange {
    /// Between a folder's owner and whoever a container begins as. None: there is nothing to exchange, or the folder is
    /// root's, as whom no container may make files unless it is root itself.
    pub fn between(owner: (u32, u32), begins: (u32, Option<u32>)) -> Option<Self> {
        let users = (owner.0, begins.0);
        let groups = (owner.1, begins.1.unwrap_or(owner.1));
        let same = users.0 == users.1 && groups.0 == groups.1;
        // The highest number means "none" to the kernel.
        let usable = [users.0, users.1, groups.0, groups.1].iter().all(|id| *id != u32::MAX);
        (users.0 != 0 && !same && usable).then_some(Self { users, groups })
    }

    /// Names it in a path.
    pub fn name(self) -> String {
        let Self { users, groups } = self;
        format!("{}-{}.{}-{}", users.0, users.1, groups.0, groups.1)
    }
}

/// All numbers as lines of `/proc/PID/uid_map` (`user_namespaces(7)`): the two change places, the others keep theirs.
pub(super) fn lines((one, other): (u32, u32)) -> String {
    let (low, high) = (one.min(other), one.max(other));
    let mut ranges = vec![(0, low)];
    if low == high {
        // Nothing changes places.
        ranges = vec![(0, u32::MAX)];
    } else {
        ranges.extend([(low + 1, high), (high + 1, u32::MAX)]);
    }
    let same = ranges.into_iter().filter(|(from, to)| from < to);
    let same = same.map(|(from, to)| format!("{from} {from} {}\n", to - from));
    let changed = [(low, high), (high, low)].map(|(from, to)| format!("{from} {to} 1\n"));
    same.chain(changed.into_iter().filter(|_| low != high)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_a_container_begins_as_stands_in_the_stack_file_or_the_image() {
        let root = Begins::As { uid: 0, gid: Some(0) };
        assert_eq!(Begins::of(None, ""), root);
        assert_eq!(Begins::of(Some("root"), "1000"), root);
        assert_eq!(Begins::of(None, "1000"), Begins::As { uid: 1000, gid: None });
        assert_eq!(Begins::of(Some("33:44"), ""), Begins::As { uid: 33, gid: Some(44) });
        assert_eq!(Begins::of(Some("33:www"), ""), Begins::As { uid: 33, gid: None });
        assert_eq!(Begins::of(Some(""), "node"), Begins::Named("node".to_owned()));
    }

    #[test]
    fn a_folder_of_root_or_of_the_same_user_is_seen_as_it_is() {
        assert_eq!(Exchange::between((0, 0), (1000, None)), None);
        assert_eq!(Exchange::between((1000, 1000), (1000, None)), None);
        assert_eq!(Exchange::between((1000, 1000), (1000, Some(1000))), None);
        assert_eq!(Exchange::between((1000, 1000), (u32::MAX, None)), None);
        let other = Exchange::between((1000, 100), (0, Some(0))).expect("exchanged");
        assert_eq!(other.name(), "1000-0.100-0");
    }

    /// What a number on the disk is seen as.
    fn seen(lines: &str, disk: u32) -> Option<u32> {
        lines.lines().find_map(|line| {
            let part: Vec<u32> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
            let within = disk >= part[0] && disk - part[0] < part[2];
            within.then(|| part[1] + (disk - part[0]))
        })
    }

    #[test]
    fn two_numbers_change_places_and_every_other_one_stays() {
        for (one, other) in [(1000, 0), (0, 1000), (1, 0), (33, 1000), (1000, 1001), (u32::MAX - 1, 0), (5, 5)] {
            let lines = lines((one, other));
            assert_eq!(seen(&lines, one), Some(other), "{lines}");
            assert_eq!(seen(&lines, other), Some(one), "{lines}");
            for stays in [0, 1, 2, 999, 1002, 65534, u32::MAX - 1] {
                if stays != one && stays != other {
                    assert_eq!(seen(&lines, stays), Some(stays), "{lines}");
                }
            }
            assert!(lines.lines().count() <= 5, "the kernel takes five without further ado: {lines}");
            assert_eq!(seen(&lines, u32::MAX), None);
        }
    }
}
