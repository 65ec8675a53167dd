//! What making a seed came to. It is noted in the seed's folder: an agent that is killed after the seed is there and
//! before that was told finds it again, instead of making another one that nobody knows the first one from.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sealed::Sealed;
use crate::files;
use crate::pool::Pool;

/// Largest note in bytes.
const MAX_FILE: u64 = 4096;

/// What making a seed came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Made {
    pub sealed: Sealed,
    pub canaries: usize,
    pub freeze: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    order: String,
    canaries: usize,
    freeze_micros: u64,
}

impl Made {
    /// Writes the note and then the manifest into the folder: from then on the folder is a seed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, folder: &Path, order: &str) -> io::Result<()> {
        let freeze_micros = u64::try_from(self.freeze.as_micros()).unwrap_or(u64::MAX);
        let note = Note { order: order.to_owned(), canaries: self.canaries, freeze_micros };
        files::write_atomic(&folder.join("made.json"), &serde_json::to_vec(&note)?)?;
        self.sealed.write(folder)
    }

    /// What an order came to before; none: nothing yet.
    pub fn before(pool: &Pool, order: &str) -> Option<Self> {
        let entries = std::fs::read_dir(pool.layout().seeds()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find_map(|folder| {
            let text = files::read_limited(&folder.join("made.json"), MAX_FILE).ok()?;
            let note: Note = serde_json::from_slice(&text).ok().filter(|note: &Note| note.order == order)?;
            let sealed = Sealed::read(&folder).ok().flatten()?;
            Some(Self { sealed, canaries: note.canaries, freeze: Duration::from_micros(note.freeze_micros) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_order_came_to_is_found_again_once_it_is_a_seed() {
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Pool::plain(folder.path()).expect("a pool");
        let sealed = Sealed::new(Vec::new(), [].into(), true);
        let made = Made { sealed, canaries: 3, freeze: Duration::from_micros(1234) };
        let place = pool.seed(&made.sealed.digest);
        std::fs::create_dir_all(&place).expect("made");
        assert_eq!(Made::before(&pool, "one"), None);
        made.write(&place, "one").expect("written");
        assert_eq!(Made::before(&pool, "one"), Some(made));
        assert_eq!(Made::before(&pool, "two"), None);
        std::fs::remove_file(place.join("seed.json")).expect("removed");
        assert_eq!(Made::before(&pool, "one"), None, "half of a seed is none");
    }
}
