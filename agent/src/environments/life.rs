//! What is remembered of an environment's sleep, so that an agent that was killed half-way goes on.

use std::collections::BTreeMap;

use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::{Result, State};

/// How far an environment is on its way to sleep and back. Written before the first thing of a stage is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its services run.
    #[default]
    Awake,
    /// Its ports are held, then its containers frozen.
    Freezing,
    /// They are.
    Frozen,
    /// Its containers are thawed, then stopped.
    Stopping,
    /// They are.
    Asleep,
    /// Its containers are started; a port is let go when its service is ready.
    Waking,
}

impl Stage {
    /// It sleeps, or is on the way there.
    #[must_use]
    pub fn sleeps(self) -> bool {
        matches!(self, Self::Freezing | Self::Frozen | Self::Stopping | Self::Asleep)
    }
}

/// What is remembered of an environment's sleep.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Life {
    /// How far it is.
    pub stage: Stage,
    /// The order that this is about; another one wakes it.
    pub generation: u64,
    /// Microseconds since 1970: the last use that the relay does not count.
    pub last_used: i64,
    /// The last order under which everything was ready at some time; 0: none.
    #[serde(default)]
    pub ready_under: u64,
    /// Services that were restarted or built again, with the generation that asked for it.
    #[serde(default)]
    pub done: BTreeMap<String, u64>,
}

fn name(id: &str) -> String {
    format!("life:{id}")
}

impl Life {
    /// What is remembered; what cannot be read is awake.
    ///
    /// # Errors
    /// The state cannot be read.
    pub async fn read(state: &State, id: &str) -> Result<Self> {
        let text = state.meta(&name(id)).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Remembers it; durable when this returns.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn write(&self, state: &State, id: &str) -> Result<()> {
        crate::failpoints::effect("life.write");
        state.set_meta(&name(id), &serde_json::to_string(self).unwrap_or_default()).await
    }

    /// Forgets it.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn forget(state: &State, id: &str) -> Result<()> {
        state.forget_meta(&name(id)).await
    }

    /// The last use that the relay does not count.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        Timestamp(self.last_used)
    }
}
