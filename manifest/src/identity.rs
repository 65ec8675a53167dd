//! What an environment is made from, as one word: equal words, equal environments, whoever asks for them.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// Everything that goes into an environment, its owner, name and folder apart.
#[derive(Clone, Copy)]
pub struct Ingredients<'a> {
    /// The stack file's name; further files behind `:`.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Variables for `$NAME`.
    pub variables: &'a BTreeMap<String, String>,
    /// Texts of all other files.
    pub files: &'a BTreeMap<String, String>,
    /// What its data begins with.
    pub data: &'a str,
}

impl std::fmt::Debug for Ingredients<'_> {
    // Variables and files can be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingredients").field("file", &self.file).field("data", &self.data).finish_non_exhaustive()
    }
}

/// Length of an identity: hexadecimal digits of a SHA-256.
pub const DIGITS: usize = 64;

/// The word. It tells nothing of the ingredients to who cannot guess them all.
#[must_use]
pub fn identity(of: &Ingredients<'_>) -> String {
    let mut hash = Sha256::new();
    let mut put = |text: &str| {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    };
    [of.file, of.text, of.data].into_iter().for_each(&mut put);
    for map in [of.variables, of.files] {
        put(&map.len().to_string());
        map.iter().flat_map(|(key, value)| [key, value]).for_each(|text| put(text));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_ingredient_counts_and_nothing_runs_together() {
        let (none, one, two) = (map(&[]), map(&[("A", "1")]), map(&[("A", "2")]));
        let of = Ingredients { file: "c", text: "services", variables: &one, files: &none, data: "seed:x" };
        let others = [
            Ingredients { file: "d", ..of },
            Ingredients { text: "service", ..of },
            Ingredients { variables: &two, ..of },
            Ingredients { variables: &none, files: &one, ..of },
            Ingredients { data: "seed:y", ..of },
            Ingredients { file: "cs", text: "ervices", ..of },
        ];
        assert_eq!(identity(&of), identity(&of.clone()));
        assert_eq!(identity(&of).len(), DIGITS);
        assert!(others.iter().all(|other| identity(other) != identity(&of)));
    }
}
