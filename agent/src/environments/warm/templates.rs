//! Stacks that were asked for of late, with what a slot of them is made from. They hold files of environments, as the
//! orders in the agent's state do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::time::Timestamp;
use prost::Message as _;
use proto::v1;
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::state::Result;

/// Name in the agent's state.
const NAME: &str = "warm";
/// Most that are remembered.
const MOST: usize = 8;

/// A stack that was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Template {
    /// What it is made from, as one word.
    pub key: String,
    /// When it was asked for last.
    pub at: Timestamp,
    /// An order of such an environment.
    pub order: v1::EnvironmentOrder,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    at: i64,
    order: String,
}

async fn read(host: &Host) -> Result<Vec<Kept>> {
    let text = host.state.meta(NAME).await?.unwrap_or_default();
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

async fn write(host: &Host, mut all: Vec<Kept>) -> Result<()> {
    all.sort_by_key(|kept| std::cmp::Reverse(kept.at));
    all.truncate(MOST);
    host.state.set_meta(NAME, &serde_json::to_string(&all).unwrap_or_default()).await
}

/// Remembers that a stack was asked for.
///
/// # Errors
/// The state cannot be read or written.
pub async fn put(host: &Host, key: String, order: &v1::EnvironmentOrder, at: Timestamp) -> Result<()> {
    let mut all = read(host).await?;
    all.retain(|kept| kept.key != key);
    all.push(Kept { key, at: at.0, order: STANDARD.encode(order.encode_to_vec()) });
    write(host, all).await
}

/// Forgets a stack.
///
/// # Errors
/// The state cannot be read or written.
pub async fn forget(host: &Host, key: &str) -> Result<()> {
    let mut all = read(host).await?;
    all.retain(|kept| kept.key != key);
    write(host, all).await
}

/// Stacks that were asked for since then and whose seed is still on this host, the newest first.
///
/// # Errors
/// The state cannot be read.
pub async fn hot(host: &Host, since: Timestamp) -> Result<Vec<Template>> {
    let all = read(host).await?;
    let templates = all.into_iter().filter(|kept| kept.at >= since.0).filter_map(|kept| {
        let bytes = STANDARD.decode(&kept.order).ok()?;
        let order = v1::EnvironmentOrder::decode(bytes.as_slice()).ok()?;
        let seed = host.pool.seed(order.data_from.strip_prefix("seed:")?);
        seed.is_dir().then_some(Template { key: kept.key, at: Timestamp(kept.at), order })
    });
    Ok(templates.collect())
}
