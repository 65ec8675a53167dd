//! Removing what is old, in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::name::TargetRef;
use domain::run::RunState;
use domain::time::Timestamp;

use super::super::error::Result;
use super::super::retention::{Cutoffs, Keep, Removed, RetentionWrites};
use super::MemoryTx;

#[async_trait]
impl RetentionWrites for MemoryTx {
    async fn retention_run(&mut self, now: Timestamp, keep: &Keep) -> Result<Removed> {
        let before = Cutoffs::new(now, keep);
        let batch = usize::try_from(keep.batch).unwrap_or(usize::MAX);
        let mut removed = Removed::default();
        self.remove_events(before.events, batch, &mut removed);
        self.remove_runs(before.runs, batch, &mut removed);
        self.remove_rollouts(before.rollouts, keep.rollouts_per_target, batch, &mut removed);
        self.remove_environments(before.environments, batch, &mut removed);
        self.remove_seeds(before.seeds, batch, &mut removed);
        self.remove_keys(before.idempotency, batch, &mut removed);
        self.remove_tokens(before.tokens, batch, &mut removed);
        Ok(removed)
    }
}

/// Notes that a whole batch was removed.
fn count(length: usize, batch: usize, removed: &mut bool) -> u64 {
    *removed |= length >= batch;
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl MemoryTx {
    fn remove_events(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let old = self.state.events.iter().filter(|(_, row)| row.at < before).map(|(seq, _)| *seq);
        let old: Vec<u64> = old.take(batch).collect();
        removed.events = count(old.len(), batch, &mut removed.more);
        for seq in old {
            self.state.events.delete(&seq);
        }
    }

    fn remove_runs(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let ended = self
            .state
            .runs
            .rows()
            .filter(|row| row.run.state == RunState::Finished && row.run.finished_at.is_some_and(|at| at < before));
        let old: Vec<_> = ended.map(|row| row.run.id).take(batch).collect();
        removed.runs = count(old.len(), batch, &mut removed.more);
        for id in old {
            self.state.runs.delete(&id);
            let key = format!("run:{id}");
            let range = (key.clone(), 0)..=(key, u64::MAX);
            let segments: Vec<_> =
                self.state.log_segments.range(range).map(|(key, row)| (key.clone(), row.path.clone())).collect();
            for (key, path) in segments {
                self.state.log_segments.delete(&key);
                removed.log_paths.push(path);
            }
        }
    }

    fn remove_rollouts(&mut self, before: Timestamp, newest: u32, batch: usize, removed: &mut Removed) {
        let mut targets: BTreeMap<(&str, &TargetRef), Vec<_>> = BTreeMap::new();
        for row in self.state.rollouts.rows() {
            targets.entry((row.project.as_str(), &row.plan.target)).or_default().push(row);
        }
        let newest = usize::try_from(newest).unwrap_or(usize::MAX);
        let mut old = Vec::new();
        for rows in targets.values_mut() {
            rows.sort_by_key(|row| std::cmp::Reverse((row.created_at, row.plan.rollout)));
            let beyond = rows.iter().skip(newest);
            let ended =
                beyond.filter(|row| row.finished_at.is_some_and(|at| at < before) && !row.progress.needs_turns());
            old.extend(ended.map(|row| row.plan.rollout));
        }
        old.truncate(batch);
        removed.rollouts = count(old.len(), batch, &mut removed.more);
        for id in old {
            self.state.rollouts.delete(&id);
        }
    }

    fn remove_environments(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let gone = self.state.environments.rows().filter(|row| row.gone_at.is_some_and(|at| at < before));
        let old: Vec<_> = gone.map(|row| row.environment.id).take(batch).collect();
        removed.environments = count(old.len(), batch, &mut removed.more);
        for id in old {
            self.state.environments.delete(&id);
            self.state.secrets.delete(&("environment".to_owned(), id.to_string()));
        }
    }

    fn remove_seeds(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let ended = self.state.seeds.rows().filter(|row| row.seed.ended_at.is_some_and(|at| at < before));
        let old: Vec<_> = ended.map(|row| row.seed.id).take(batch).collect();
        removed.seeds = count(old.len(), batch, &mut removed.more);
        for id in old {
            self.state.seeds.delete(&id);
            self.state.secrets.delete(&("seed".to_owned(), id.to_string()));
        }
    }

    fn remove_keys(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let old = self.state.idempotency.iter().filter(|(_, row)| row.at < before);
        let old: Vec<_> = old.map(|(key, _)| key.clone()).take(batch).collect();
        removed.idempotency = count(old.len(), batch, &mut removed.more);
        for key in old {
            self.state.idempotency.delete(&key);
        }
    }

    fn remove_tokens(&mut self, before: Timestamp, batch: usize, removed: &mut Removed) {
        let passed = |at: Option<Timestamp>| at.is_some_and(|at| at < before);
        let tokens = self.state.api_tokens.rows();
        let tokens = tokens.filter(|row| row.expires_at < before || passed(row.revoked_at));
        let api: Vec<_> = tokens.map(|row| row.id).take(batch).collect();
        let tokens = self.state.join_tokens.rows();
        let tokens = tokens
            .filter(|row| row.expires_at < before || passed(row.revoked_at) || passed(row.used.map(|(_, at)| at)));
        let join: Vec<_> = tokens.map(|row| row.id).take(batch).collect();
        removed.tokens = count(api.len(), batch, &mut removed.more) + count(join.len(), batch, &mut removed.more);
        for id in api {
            self.state.api_tokens.delete(&id);
        }
        for id in join {
            self.state.join_tokens.delete(&id);
        }
    }
}
