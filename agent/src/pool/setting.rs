//! What the agent's settings say about its pool.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::backend::Kind;

/// The setting `pool`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Setting {
    /// The best that this machine can do.
    #[default]
    Auto,
    /// This backend, here; none: `pool` in the agent's state folder.
    Fixed(Kind, Option<PathBuf>),
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: write auto, or reflink, btrfs or copy, each with an absolute path if it is not to lie in \
                 state_dir (reflink:/data/muster)"
            )
        };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let (word, path) = match text.split_once(':') {
            Some((word, path)) => (word, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let kind = Kind::from_word(word).ok_or_else(wrong)?;
        let plain =
            |path: &Path| path.is_absolute() && path.components().all(|part| part != std::path::Component::ParentDir);
        match &path {
            Some(path) if !plain(path) => Err(wrong()),
            _ => Ok(Self::Fixed(kind, path)),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Fixed(kind, None) => write!(f, "{kind}"),
            Self::Fixed(kind, Some(path)) => write!(f, "{kind}:{}", path.display()),
        }
    }
}

/// What a pool is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which backend, and where.
    pub setting: Setting,
    /// The agent's state folder, with the record of the pool and, where one is needed, its loop file.
    pub state_dir: PathBuf,
    /// Bytes below which nothing new is made; none: 2 GiB or 5 % of the pool, whichever is less.
    pub floor_bytes: Option<u64>,
    /// First size of a loop file in bytes; none: half of what its disk has left, at most 256 GiB.
    pub image_bytes: Option<u64>,
}

impl Settings {
    /// Those for a pool in this state folder.
    #[must_use]
    pub fn new(state_dir: PathBuf, setting: Setting) -> Self {
        Self { setting, state_dir, floor_bytes: None, image_bytes: None }
    }

    /// Where the pool lies unless the setting says otherwise.
    #[must_use]
    pub fn own_root(&self) -> PathBuf {
        self.state_dir.join("pool")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_and_shown_as_it_is_written() {
        for text in ["auto", "copy", "reflink", "reflink:/data/muster", "btrfs:/mnt/x", "copy:/var/lib/pool"] {
            assert_eq!(text.parse::<Setting>().expect("valid").to_string(), text);
        }
        for text in ["", "zfs", "reflink:", "reflink:data", "copy:/x/../y", "auto:/x", "Copy"] {
            assert!(text.parse::<Setting>().is_err(), "{text}");
        }
    }
}
