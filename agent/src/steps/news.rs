//! What a target's task begins with, what it is told, and what it knows of a running process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use domain::ids::ReleaseId;
use domain::name::{Name, TargetRef};
use domain::release::Release;
use domain::step::event::{Event, Instance, Sample};
use domain::step::journal::{BootId, BootTime, Slot};
use proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use super::containers::Existing;
use super::health::{self, Asker};
use super::traffic::Led;
use crate::host::Host;

/// What a driver begins with.
pub(super) struct Begin {
    pub host: Arc<Host>,
    pub target: TargetRef,
    pub slot: Slot,
    pub releases: BTreeMap<ReleaseId, Release>,
    pub retain: u32,
    pub run: u64,
    pub boot: BootId,
    pub channel: watch::Receiver<Option<Channel>>,
    pub told: watch::Sender<Option<v1::StepReport>>,
    pub send: mpsc::UnboundedSender<News>,
    pub news: mpsc::UnboundedReceiver<News>,
}

/// What the driver is told.
#[derive(Debug)]
pub(super) enum News {
    /// For the machine.
    Event(Box<Event>),
    /// An order, with its release and the number of releases to keep.
    Order { event: Box<Event>, release: Option<Box<Release>>, retain: u32 },
    /// A container was started.
    Started { release: ReleaseId, process: Name, id: String, address: Option<IpAddr> },
    /// Everything that exists.
    Inspected { existing: Vec<Existing>, led: Led },
    /// Tell the whole state again.
    Tell,
    /// Look at the relay: whatever was told or missed, it says where traffic goes.
    Look,
    /// Where the relay led traffic when so many switches had been asked for.
    Led { switches: u64, led: Led },
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub instance: Instance,
    pub id: String,
    pub address: Option<IpAddr>,
    pub asker: Option<Asker>,
    pub tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A probe's answer as the machine takes it.
pub(super) fn sampled(
    boot: BootId,
    release: ReleaseId,
    process: &Name,
    instance: Instance,
    answer: health::Sample,
) -> News {
    News::Event(Box::new(Event::Sample(Sample {
        release,
        process: process.clone(),
        instance,
        taken: BootTime { boot, at: answer.taken },
        outcome: answer.outcome,
        text: answer.text,
    })))
}
