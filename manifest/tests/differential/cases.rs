//! The stacks of `tests/corpora`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use manifest::Problem;
use manifest::stack::{Input, Reading, read};

/// One stack, and how both read it.
pub struct Case {
    /// Its folder's or file's name.
    pub name: String,
    /// Where its files lie.
    pub folder: PathBuf,
    /// Files for this reader; the first one is read, others are laid over it.
    ours: Vec<String>,
    /// Files for `docker-compose -f`; empty: those that it finds.
    pub theirs: Vec<String>,
    /// The caller's variables.
    pub variables: BTreeMap<String, String>,
}

impl Case {
    /// Reads it.
    pub fn read(&self) -> Result<Reading, Vec<Problem>> {
        let path = self.folder.join(&self.ours[0]);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let files = |path: &str| {
            let found = std::fs::read_to_string(self.folder.join(path)).ok();
            // The files of secrets did not come with the stacks of others.
            found.or_else(|| path.ends_with("password.txt").then(|| "x\n".to_owned()))
        };
        let file = self.ours.join(":");
        read(Input { file: &file, text: &text, variables: &self.variables, files: &files })
    }

    /// The profiles that the caller asks for.
    pub fn profiles(&self) -> Vec<&str> {
        self.variables.get("COMPOSE_PROFILES").map(|names| names.split(',').collect()).unwrap_or_default()
    }
}

/// All cases, in the order of their names.
pub fn all() -> Vec<Case> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora");
    let mut cases: Vec<Case> = entries(&corpora.join("own")).into_iter().map(own).collect();
    for path in entries(&corpora.join("awesome-compose")) {
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        cases.push(Case {
            name: file.trim_end_matches(".yaml").to_owned(),
            folder: path.parent().expect("a folder").to_owned(),
            ours: vec![file.clone()],
            theirs: vec![file],
            variables: BTreeMap::new(),
        });
    }
    cases
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn own(folder: PathBuf) -> Case {
    let lines = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        Some(text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let given = lines("files.txt");
    let usual = ["compose.yaml", "docker-compose.yml"].into_iter().find(|name| folder.join(name).is_file());
    let ours = match &given {
        Some(files) if !files.is_empty() => files.clone(),
        _ => vec![usual.expect("a stack").to_owned()],
    };
    let theirs = lines("theirs.txt").or(given).unwrap_or_else(|| ours.clone());
    let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = lines("env.txt").unwrap_or_default().iter().filter_map(pair).collect();
    let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
    Case { name, folder, ours, theirs, variables }
}
