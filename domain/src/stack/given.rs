//! Secrets and configs: files that a service finds in its container, not writable.

use std::fmt;

/// A file that is put into a service's container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenFile {
    /// The secret's or config's name in the stack file.
    pub name: String,
    /// Absolute path in the container.
    pub target: String,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Owner in the container; none: root.
    pub uid: Option<u32>,
    /// Group in the container; none: root's.
    pub gid: Option<u32>,
    /// What stands in it.
    pub content: Content,
}

/// A text that must not be seen: it shows itself as its length.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Content(pub String);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_does_not_show_itself() {
        assert_eq!(format!("{:?}", Content("hunter2".to_owned())), "Content(7 bytes)");
    }
}
