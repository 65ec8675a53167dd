//! What an agent says first: ids and hashes only, so that thousands of them fit at once.

use std::sync::Arc;

use proto::v1;

use crate::agent::Agent;

/// Largest Hello in bytes; see the test that computes the worst one.
pub const MAX_HELLO: usize = 1 << 20;
/// Most environments on one host.
pub const MAX_ENVIRONMENTS: usize = 2000;
/// Most targets on one host.
pub const MAX_TARGETS: usize = 1000;
/// Most runs at once on one host.
pub const MAX_RUNS: usize = 1000;
/// Longest text among the facts, in bytes.
const MAX_TEXT: usize = 256;

/// The Hello of this moment.
pub async fn compose(agent: &Arc<Agent>, backlog: usize) -> v1::Hello {
    let held = agent.fence.held().await;
    bounded(v1::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        facts: Some((&agent.facts().await).into()),
        fence: Some(held.fence.into()),
        ledger_seq: held.ledger_seq,
        environments: agent.environments.applied(),
        targets: agent.steps.applied(),
        runs: agent.running(),
        backlog: u32::try_from(backlog).unwrap_or(u32::MAX),
        state_lost: agent.state_lost(),
        process_id: agent.process_id.clone(),
    })
}

/// Cuts what is beyond the limits. Orders beyond them are refused, so nothing real is lost.
fn bounded(mut hello: v1::Hello) -> v1::Hello {
    hello.environments.truncate(MAX_ENVIRONMENTS);
    hello.targets.truncate(MAX_TARGETS);
    hello.runs.truncate(MAX_RUNS);
    if let Some(facts) = &mut hello.facts {
        let texts = [
            &mut facts.agent_version,
            &mut facts.boot_id,
            &mut facts.platform,
            &mut facts.os,
            &mut facts.engine_version,
            &mut facts.address,
            &mut facts.pool_backend,
            &mut facts.pool_why,
        ];
        for text in texts {
            let mut end = MAX_TEXT.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
    }
    hello
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_largest_possible_hello_fits() {
        let text = || "é".repeat(2000);
        let id = || "0".repeat(36);
        let applied = |length: usize| v1::Applied { id: "x".repeat(length), generation: u64::MAX, release: id() };
        let hello = bounded(v1::Hello {
            agent_version: "0".repeat(64),
            facts: Some(v1::Facts {
                agent_version: text(),
                boot_id: text(),
                platform: text(),
                os: text(),
                engine_version: text(),
                address: text(),
                cpus: u32::MAX,
                memory_bytes: u64::MAX,
                memory_available_bytes: u64::MAX,
                disk_bytes: u64::MAX,
                disk_available_bytes: u64::MAX,
                pool_backend: text(),
                pool_why: text(),
                pool_total_bytes: u64::MAX,
                pool_available_bytes: u64::MAX,
                pool_own_bytes: u64::MAX,
                pool_shared_bytes: u64::MAX,
                max_environments: u32::MAX,
                max_environment_bytes: u64::MAX,
            }),
            fence: Some(v1::Fence { incarnation: u64::MAX, incarnation_id: id(), epoch: u64::MAX }),
            ledger_seq: u64::MAX,
            environments: vec![applied(36); 5000],
            // An app's and a target's name with the slash.
            targets: vec![applied(127); 5000],
            runs: vec![id(); 5000],
            backlog: u32::MAX,
            state_lost: true,
            process_id: id(),
        });
        assert_eq!(hello.environments.len(), MAX_ENVIRONMENTS);
        assert!(hello.encoded_len() <= MAX_HELLO, "{} bytes", hello.encoded_len());
        assert!(hello.encoded_len() > MAX_HELLO / 4, "the bound is far from what can happen");
    }
}
