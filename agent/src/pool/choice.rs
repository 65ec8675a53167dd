//! Which pool an agent has: the one it had, or the best that this machine can do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backend::{Backend, Kind};
use super::btrfs::{self, Btrfs};
use super::error::{Error, Result};
use super::folders::Folders;
use super::image::Image;
use super::layout::Layout;
use super::record::{self, Hold, Record};
use super::setting::{Setting, Settings};
use super::tool;
use crate::files;

/// An open pool.
#[derive(Debug)]
pub struct Opened {
    /// Where.
    pub layout: Layout,
    /// How.
    pub backend: Arc<dyn Backend>,
    /// Why so, for people.
    pub why: String,
    /// In a loop file.
    pub image: Option<Image>,
    /// Others are kept out while this is held.
    pub hold: Hold,
}

/// What was decided, before the record of it is written.
struct Choice {
    kind: Kind,
    root: PathBuf,
    image: bool,
    why: String,
}

/// Opens the pool that the record is about, or chooses one.
///
/// # Errors
/// See [`Error`]; nothing is made where a pool should be and is not.
pub fn open(settings: &Settings) -> Result<Opened> {
    if let Some(record) = Record::read(&settings.state_dir)? {
        if let Some(opened) = reopen(settings, &record)? {
            return Ok(opened);
        }
        tracing::info!(held = %shown(&record), wanted = %settings.setting, "the pool is empty; it is chosen anew");
    }
    let choice = choose(settings)?;
    let id = record::set_mark(&choice.root)?;
    let record =
        Record { id, backend: choice.kind.word().to_owned(), root: choice.root, image: choice.image, why: choice.why };
    record.write(&settings.state_dir)?;
    finish(settings, &record)
}

/// The pool of an earlier start; none: it holds nothing, and another is wanted.
fn reopen(settings: &Settings, record: &Record) -> Result<Option<Opened>> {
    let image = Image::of(&settings.state_dir);
    if record.image && image.exists() {
        image.mount()?;
    }
    let opened = finish(settings, record)?;
    let same = match &settings.setting {
        // Copying was never wanted, only the best there was.
        Setting::Auto => record.kind() != Kind::Copy || record.root != settings.own_root(),
        Setting::Fixed(kind, path) => {
            record.kind() == *kind && record.root == path.clone().unwrap_or_else(|| settings.own_root())
        }
    };
    if same {
        return Ok(Some(opened));
    }
    if !opened.layout.is_empty() {
        if settings.setting == Setting::Auto {
            return Ok(Some(opened));
        }
        return Err(Error::Changed { wanted: settings.setting.to_string(), held: shown(record) });
    }
    drop(opened);
    if record.image {
        image.unmount()?;
        files::remove_all(image.file()).map_err(Error::at("remove", image.file()))?;
    } else {
        Layout::new(record.root.clone()).unmake()?;
    }
    Ok(None)
}

fn shown(record: &Record) -> String {
    format!("{}:{}", record.backend, record.root.display())
}

/// Takes hold of the pool and looks whether it works.
fn finish(settings: &Settings, record: &Record) -> Result<Opened> {
    let hold = record.hold(&settings.state_dir)?;
    let layout = Layout::new(record.root.clone());
    layout.make()?;
    let backend = backend(record.kind(), &layout);
    backend.probe().map_err(|why| unsuitable(record.kind(), &record.root, &why))?;
    let image = record.image.then(|| Image::of(&settings.state_dir));
    Ok(Opened { layout, backend, why: record.why.clone(), image, hold })
}

fn backend(kind: Kind, layout: &Layout) -> Arc<dyn Backend> {
    match kind {
        Kind::Reflink => Arc::new(Folders::sharing(layout.clone())),
        Kind::Btrfs => Arc::new(Btrfs::new(layout.clone())),
        Kind::Copy => Arc::new(Folders::copying(layout.clone())),
    }
}

fn unsuitable(kind: Kind, root: &Path, why: &Error) -> Error {
    Error::Unsuitable { kind: kind.word(), root: root.to_owned(), why: why.to_string() }
}

/// Whether `kind` works at `root`.
fn works(kind: Kind, root: &Path) -> Result<()> {
    let layout = Layout::new(root.to_owned());
    layout.make()?;
    backend(kind, &layout).probe()
}

fn choose(settings: &Settings) -> Result<Choice> {
    let image = Image::of(&settings.state_dir);
    match &settings.setting {
        Setting::Fixed(kind, path) => {
            let root = path.clone().unwrap_or_else(|| settings.own_root());
            files::private_dir(&root).map_err(Error::at("make", &root))?;
            works(*kind, &root).map_err(|why| unsuitable(*kind, &root, &why))?;
            Ok(Choice { kind: *kind, root, image: false, why: "the settings say so".to_owned() })
        }
        Setting::Auto if image.exists() => {
            // The record was lost, or never written.
            image.mount()?;
            Ok(in_image(settings))
        }
        Setting::Auto => automatic(settings, &image),
    }
}

fn automatic(settings: &Settings, image: &Image) -> Result<Choice> {
    let root = settings.own_root();
    let layout = Layout::new(root.clone());
    let used = layout.is_used();
    files::private_dir(&root).map_err(Error::at("make", &root))?;
    let choice = |kind, why: String| Choice { kind, root: root.clone(), image: false, why };
    let no_sharing = match works(Kind::Reflink, &root) {
        Ok(()) if btrfs::is_btrfs(&root) && tool::find("btrfs").is_some() && works(Kind::Btrfs, &root).is_ok() => {
            return Ok(choice(Kind::Btrfs, "state_dir lies on btrfs, and subvolumes can be made".to_owned()));
        }
        Ok(()) => return Ok(choice(Kind::Reflink, "files share extents on the disk of state_dir".to_owned())),
        Err(why) => why,
    };
    tracing::debug!(%no_sharing, "files do not share extents on the disk of state_dir");
    let copying = |why: String| {
        tracing::warn!(root = %root.display(), %why, "clones are full copies: slow, and each takes all its bytes");
        Ok(choice(Kind::Copy, why))
    };
    if used {
        return copying("files do not share extents on the disk of state_dir, which holds data already".to_owned());
    }
    let without = "files do not share extents on the disk of state_dir, and a loop file";
    if let Some(why) = image.impossible(settings.image_bytes) {
        return copying(format!("{without} cannot be made: {why}"));
    }
    // Nothing is mounted over what is not empty.
    layout.unmake()?;
    match image.make(settings.image_bytes).and_then(|()| image.mount()).and_then(|()| works(Kind::Reflink, &root)) {
        Ok(()) => Ok(in_image(settings)),
        Err(why) => {
            let _ = image.unmount();
            let _ = files::remove_all(image.file());
            files::private_dir(&root).map_err(Error::at("make", &root))?;
            copying(format!("{without} does not work: {why}"))
        }
    }
}

fn in_image(settings: &Settings) -> Choice {
    let why = "files do not share extents on the disk of state_dir, so it holds a file with XFS in it".to_owned();
    Choice { kind: Kind::Reflink, root: settings.own_root(), image: true, why }
}
