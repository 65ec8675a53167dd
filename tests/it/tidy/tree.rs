//! The repository's files.

use std::path::{Path, PathBuf};

/// What a build, a demo or git leaves behind; nothing of ours.
const SKIPPED: [&str; 6] = ["target", ".git", ".demo", "reports", "__pycache__", ".pytest_cache"];

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// A text file of the repository.
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Its text; binary files are left out.
    pub text: String,
}

impl File {
    /// Lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines of a Rust file that are not comments.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Every text file whose path ends so, in order of their paths.
pub fn files(ending: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), &root(), ending, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Rust files below one of these folders.
pub fn rust(folders: &[&str]) -> Vec<File> {
    let mut found = files(".rs");
    found.retain(|file| folders.iter().any(|folder| file.path.starts_with(&format!("{folder}/"))));
    assert!(!found.is_empty(), "no Rust file below {folders:?}");
    found
}

fn walk(root: &Path, folder: &Path, ending: &str, found: &mut Vec<File>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !SKIPPED.contains(&name.as_ref()) {
            walk(root, &path, ending, found);
        } else if kind.is_file()
            && name.ends_with(ending)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(File { path, text });
        }
    }
}

/// Fails with all findings at once.
pub fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}
