//! `muster-agent pool`: what people and scripts ask of the pool on the host itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::error::Result;
use super::image::Image;
use super::record::{self, Record};
use super::setting::Settings;

/// `muster-agent pool …`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Settings of the agent, a TOML file
    #[arg(long, value_name = "FILE", default_value = "/etc/muster/agent.toml", global = true)]
    pub config: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// Verbs of `muster-agent pool`.
#[derive(Subcommand, Clone, Copy, Debug)]
pub enum Verb {
    /// Say which pool this agent has, why, and how much room is in it
    Status,
    /// Unmount the pool's loop file; refused while the agent or a container uses it
    Unmount,
}

/// Carries out a verb and answers its words.
///
/// # Errors
/// `E_POOL_BUSY` when the pool is in use; the record cannot be read.
pub fn run(verb: Verb, settings: &Settings) -> Result<String> {
    match verb {
        Verb::Status => status(settings),
        Verb::Unmount => {
            let image = Image::of(&settings.state_dir);
            let mounted = image.device();
            image.unmount()?;
            Ok(match mounted {
                Some(device) => {
                    format!("{} is unmounted, and {} is free", settings.own_root().display(), device.display())
                }
                None => "nothing is mounted".to_owned(),
            })
        }
    }
}

fn status(settings: &Settings) -> Result<String> {
    let Some(record) = Record::read(&settings.state_dir)? else {
        return Ok("there is no pool yet; the agent makes one at its start".to_owned());
    };
    let here = record::mark(&record.root).ok().flatten().is_some_and(|id| id == record.id);
    let mut lines = vec![
        ("backend", record.backend.clone()),
        ("why", record.why.clone()),
        ("root", record.root.display().to_string()),
    ];
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    if record.image {
        let image = Image::of(&settings.state_dir);
        let (size, held) = image.size();
        let device = image.device().map_or_else(|| "not mounted".to_owned(), |device| device.display().to_string());
        let file = image.file().display();
        lines.push(("loop file", format!("{file} on {device}, {} of {} used on its disk", mib(held), mib(size))));
    }
    if !here {
        lines.push(("state", "not mounted: the pool's mark is not there".to_owned()));
    } else if let Ok(stat) = rustix::fs::statvfs(&record.root) {
        let (total, available) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
        lines.push(("room", format!("{} free of {}", mib(available), mib(total))));
    }
    Ok(lines.into_iter().map(|(name, value)| format!("{name:<9} {value}")).collect::<Vec<_>>().join("\n"))
}
