//! Whose orders are taken: within an incarnation never a lower epoch, and never another incarnation of the same number.

use std::sync::atomic::{AtomicU64, Ordering};

use domain::hello::{FenceRefusal, Fenced};
use domain::ids::Fence;
use proto::v1;
use tokio::sync::Mutex;

use crate::state::State;

/// Why a message is not taken; the session ends.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It carries none, or one that cannot be read.
    #[error("E_FENCE: a message without a readable fence")]
    Unreadable,
    /// Somebody newer was heard before.
    #[error("{code}: {0}", code = .0.code())]
    Fence(#[from] FenceRefusal),
    /// It could not be remembered.
    #[error("{0}")]
    State(#[from] crate::state::Error),
}

/// The highest fence and ledger place seen, remembered.
#[derive(Debug, Default)]
pub struct Gate {
    held: Mutex<Fenced>,
    /// The ledger place that is on disk.
    saved: AtomicU64,
}

impl Gate {
    /// Reads what is remembered.
    ///
    /// # Errors
    /// The state cannot be read.
    pub async fn read(state: &State) -> crate::state::Result<Self> {
        let fence = state.meta("fence").await?.and_then(|text| parse(&text)).unwrap_or_default();
        let ledger_seq = state.meta("ledger_seq").await?.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self { held: Mutex::new(Fenced { fence, ledger_seq }), saved: AtomicU64::new(ledger_seq) })
    }

    /// Checks a message's fence; a higher one is remembered (durably) before this returns.
    ///
    /// # Errors
    /// The message is not to be obeyed.
    pub async fn admit(&self, state: &State, fence: Option<&v1::Fence>, seq: u64) -> Result<(), Refusal> {
        let given = Fence::try_from(fence.cloned().ok_or(Refusal::Unreadable)?).map_err(|_| Refusal::Unreadable)?;
        let mut held = self.held.lock().await;
        let next = held.admit(given, seq)?;
        if next.fence != held.fence {
            state.set_meta("fence", &show(next.fence)).await?;
        }
        *held = next;
        Ok(())
    }

    /// The fence and the highest ledger place.
    pub async fn held(&self) -> Fenced {
        *self.held.lock().await
    }

    /// Remembers the ledger place if it rose. Not at every message: it only helps to find a coordinator that was
    /// restored from a backup, and seconds do not matter for that.
    ///
    /// # Errors
    /// The state cannot be written.
    pub async fn save_seq(&self, state: &State) -> crate::state::Result<()> {
        let seq = self.held.lock().await.ledger_seq;
        if self.saved.load(Ordering::Relaxed) != seq {
            state.set_meta("ledger_seq", &seq.to_string()).await?;
            self.saved.store(seq, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn show(fence: Fence) -> String {
    format!("{} {} {}", fence.incarnation, fence.incarnation_id, fence.epoch)
}

fn parse(text: &str) -> Option<Fence> {
    let mut parts = text.split(' ');
    Some(Fence {
        incarnation: parts.next()?.parse().ok()?,
        incarnation_id: parts.next()?.parse().ok()?,
        epoch: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn fence(incarnation: u64, id: u128, epoch: u64) -> Fence {
        Fence { incarnation, incarnation_id: Uuid::from_u128(id), epoch }
    }

    #[tokio::test]
    async fn what_was_admitted_is_remembered() {
        let (state, _folder) = crate::state::tests::fresh().await;
        let gate = Gate::read(&state).await.expect("read");
        let message = v1::Fence::from(fence(1, 3, 4));
        gate.admit(&state, Some(&message), 17).await.expect("admitted");
        gate.admit(&state, Some(&message), 12).await.expect("admitted");
        gate.save_seq(&state).await.expect("saved");
        let again = Gate::read(&state).await.expect("read");
        assert_eq!(again.held().await, Fenced { fence: fence(1, 3, 4), ledger_seq: 17 });
        assert!(matches!(again.admit(&state, None, 0).await, Err(Refusal::Unreadable)));
        let lower = v1::Fence::from(fence(1, 3, 3));
        assert!(matches!(
            again.admit(&state, Some(&lower), 0).await,
            Err(Refusal::Fence(FenceRefusal::OldEpoch { .. }))
        ));
        let other = v1::Fence::from(fence(1, 4, 9));
        let refused = again.admit(&state, Some(&other), 0).await;
        assert!(matches!(refused, Err(Refusal::Fence(FenceRefusal::OtherIncarnation { .. }))));
    }
}
