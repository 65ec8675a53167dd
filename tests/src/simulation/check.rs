//! The invariants, told apart by name. They keep their own record of what happened and trust no field that the
//! shipping code computes for itself where the world knows better.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{Fence, Generation, ReleaseId, RolloutId};
use domain::name::Name;
use domain::rollout::plan::Plan;
use domain::rollout::progress::{Ordered, Previous, Progress, RolloutState, Step, StepState};
use domain::step::event::{Outcome, Sample};
use domain::step::journal::{Settled, Slot, StepPhase, Verdict};
use domain::step::report::{HealthNow, StageOutcome};

use super::Micros;
use super::brain::Brain;
use super::host::SimHost;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name, for example `S8`.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

pub(super) type Verdicts = Result<(), Violation>;

fn broken(invariant: &'static str, text: impl Into<String>) -> Verdicts {
    Err(Violation { invariant, text: text.into() })
}

/// One unbroken run of passing answers of one process.
#[derive(Clone, Debug, Default)]
struct Window {
    instance: u64,
    last_bad: Option<Micros>,
    passes: BTreeSet<Micros>,
}

/// What happened so far, as the world saw it.
#[derive(Debug, Default)]
pub struct Check {
    /// Committed orders: (host, generation) → how often, and of which rollout.
    intents: BTreeMap<(usize, Generation), (RolloutId, Ordered)>,
    /// Confirmations that were committed.
    confirms: BTreeSet<(usize, Generation)>,
    /// What ran, settled, when a rollout first touched a host.
    previous: BTreeMap<(RolloutId, usize), Option<ReleaseId>>,
    /// Releases that were settled on a host once.
    settled_once: BTreeSet<(usize, ReleaseId)>,
    /// How the journals answered.
    journal: BTreeMap<(usize, Generation), Settled>,
    /// Generations begun on a host.
    begun: BTreeSet<(usize, Generation)>,
    epochs: BTreeMap<usize, u64>,
    windows: BTreeMap<(usize, ReleaseId, Name), Window>,
    switched: BTreeMap<usize, Micros>,
    passed: BTreeSet<(RolloutId, u32)>,
    /// Results stored: (rollout, host, generation).
    results: BTreeMap<(RolloutId, usize, Generation), StepState>,
    terminal: BTreeMap<RolloutId, RolloutState>,
    /// Rollouts in which a person's pause or cancel was answered, and no resume since.
    halted: BTreeSet<RolloutId>,
    first_waves: BTreeSet<(RolloutId, u32)>,
}

/// What a commit is checked against.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The rollout's plan.
    pub plan: &'a Plan,
    /// Before.
    pub before: &'a Progress,
    /// After.
    pub after: &'a Progress,
    /// The hosts' index by the plan's order.
    pub hosts: &'a [usize],
    /// When.
    pub at: Micros,
}

impl Check {
    /// A release that a host runs from the beginning.
    pub fn settled_at_start(&mut self, host: usize, release: ReleaseId) {
        self.settled_once.insert((host, release));
    }

    /// A person's ask was stored and answered.
    pub fn halted(&mut self, rollout: RolloutId, halted: bool) {
        if halted {
            self.halted.insert(rollout);
        } else {
            self.halted.remove(&rollout);
        }
    }

    /// A rollout's progress was committed.
    pub fn commit(&mut self, commit: &Commit<'_>, brain: &Brain, world: &[SimHost]) -> Verdicts {
        let rollout = commit.plan.rollout;
        if let Some(state) = self.terminal.get(&rollout)
            && *state != commit.after.state
        {
            return broken("S15", format!("{} became {}", state.name(), commit.after.state.name()));
        }
        if commit.after.state.is_terminal() {
            self.terminal.insert(rollout, commit.after.state);
        }
        let ended = commit.after.state == RolloutState::Succeeded && commit.before.state != RolloutState::Succeeded;
        for wave in commit.before.wave..commit.after.wave + u32::from(ended) {
            self.gate(commit, wave, brain)?;
        }
        let mut forward = Vec::new();
        for (ordinal, (old, new)) in commit.before.steps.iter().zip(&commit.after.steps).enumerate() {
            let host = commit.hosts[ordinal];
            if old.generation != new.generation || old.ordered != new.ordered {
                self.ordered(commit, ordinal, host, old, new, brain, world)?;
                if new.ordered == Ordered::Forward && old.generation != new.generation {
                    forward.push(ordinal);
                }
            }
            self.result(rollout, host, ordinal, old, new, brain, commit)?;
        }
        self.minimum(commit, brain)?;
        if forward.is_empty() { Ok(()) } else { self.forward(commit, &forward, brain) }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one commit, with what it is judged by")]
    fn ordered(
        &mut self,
        commit: &Commit<'_>,
        ordinal: usize,
        host: usize,
        old: &Step,
        new: &Step,
        brain: &Brain,
        world: &[SimHost],
    ) -> Verdicts {
        let rollout = commit.plan.rollout;
        let name = &commit.plan.members[ordinal].name;
        let again = old.ordered == Ordered::Confirm && new.ordered == Ordered::Forward;
        match new.ordered {
            Ordered::Nothing => return Ok(()),
            Ordered::Confirm => {
                self.confirms.insert((host, new.generation));
                return Ok(());
            }
            Ordered::Forward if again && old.generation == new.generation => return Ok(()),
            _ => {}
        }
        let highest = self.intents.range((host, Generation(0))..=(host, Generation(u64::MAX))).next_back();
        if let Some(((_, held), _)) = highest
            && new.generation <= *held
        {
            return broken(
                "S4",
                format!("{name}: {:?} under generation {} after {}", new.ordered, new.generation.0, held.0),
            );
        }
        self.intents.insert((host, new.generation), (rollout, new.ordered));
        if new.ordered == Ordered::Stage {
            return Ok(());
        }
        if !brain.observed(host) {
            return broken("S17", format!("{name} was ordered {:?} before it was observed", new.ordered));
        }
        let running = world[host].slot.current.as_ref().map(|work| work.release);
        let first = !old.touched() && new.touched();
        if first {
            self.previous.insert((rollout, host), running);
        }
        if let Ordered::Revert(release) | Ordered::Converge(release) = new.ordered {
            self.scope(commit, name, host, new, release)?;
        }
        if new.ordered == Ordered::Remove && self.previous.get(&(rollout, host)) != Some(&None) {
            return broken("S14", format!("{name} had a release and was to be removed"));
        }
        Ok(())
    }

    fn scope(&self, commit: &Commit<'_>, name: &Name, host: usize, new: &Step, release: ReleaseId) -> Verdicts {
        let forward =
            commit.after.state == RolloutState::Succeeded && new.ordered == Ordered::Converge(commit.plan.release);
        if forward {
            return Ok(());
        }
        match self.previous.get(&(commit.plan.rollout, host)) {
            Some(Some(previous)) if *previous == release && self.settled_once.contains(&(host, release)) => Ok(()),
            Some(previous) => broken("S14", format!("{name} goes back to {release:?}, and {previous:?} ran there")),
            None => broken("S14", format!("{name} goes back and was never touched")),
        }
    }

    /// Forward orders of this commit: all the conditions for touching a member.
    fn forward(&mut self, commit: &Commit<'_>, started: &[usize], brain: &Brain) -> Verdicts {
        let plan = commit.plan;
        let before = commit.before.state;
        if before.is_terminal() || commit.before.base() == RolloutState::Reverting {
            return broken("S13", format!("a forward order in state {}", before.name()));
        }
        if self.halted.contains(&plan.rollout) {
            return broken("S21", "a forward order after a pause or cancel was answered");
        }
        let unknown = |ordinal: usize| !brain.known(commit.hosts[ordinal], commit.at);
        let steps = || commit.after.steps.iter().enumerate();
        let unavailable =
            steps().filter(|(ordinal, step)| busy(step.state) || (step.touched() && unknown(*ordinal))).count();
        let parallel = plan.policy.max_parallel.of(plan.size()).max(1) as usize;
        if unavailable > parallel {
            return broken(
                "S8",
                format!("{unavailable} members unavailable after a start, max_parallel is {parallel}"),
            );
        }
        let doubtful = steps()
            .filter(|(ordinal, step)| step.state == StepState::Failed || (step.touched() && unknown(*ordinal)))
            .count();
        let budget = plan.policy.max_fail.of(plan.size()) as usize;
        if doubtful > budget {
            return broken("S12", format!("{doubtful} members failed or unknown at a start, max_fail is {budget}"));
        }
        let unstaged = |(ordinal, step): (usize, &Step)| {
            let staged = brain.report(commit.hosts[ordinal]).and_then(|report| report.stage.as_ref());
            let ready =
                staged.is_some_and(|stage| stage.release == plan.release && stage.outcome == Some(StageOutcome::Ready));
            !step.touched() && step.state != StepState::Parked && !ready
        };
        if let Some((ordinal, _)) = steps().find(|item| unstaged(*item)) {
            return broken("S29", format!("{} had not staged when a member was touched", plan.members[ordinal].name));
        }
        for ordinal in started {
            let wave = plan.members[*ordinal].wave;
            if self.first_waves.insert((plan.rollout, wave)) {
                self.order_of_waves(commit, wave)?;
            }
        }
        Ok(())
    }

    fn order_of_waves(&self, commit: &Commit<'_>, wave: u32) -> Verdicts {
        for earlier in 0..wave {
            if !self.passed.contains(&(commit.plan.rollout, earlier)) {
                return broken("S9", format!("wave {wave} began before the gate of wave {earlier} passed"));
            }
        }
        let open = commit.plan.members.iter().zip(&commit.after.steps).find(|(member, step)| {
            let done = matches!(step.state, StepState::Healthy | StepState::Parked)
                || (step.state == StepState::Reverted && step.failed);
            member.wave < wave && !done
        });
        match open {
            Some((member, step)) => {
                broken("S9", format!("wave {wave} began while {} was {}", member.name, step.state.name()))
            }
            None => Ok(()),
        }
    }

    /// A gate passed: every member up to it is seen to be healthy under the current order, by a host whose word counts.
    fn gate(&mut self, commit: &Commit<'_>, wave: u32, brain: &Brain) -> Verdicts {
        self.passed.insert((commit.plan.rollout, wave));
        for (ordinal, (member, step)) in commit.plan.members.iter().zip(&commit.after.steps).enumerate() {
            if member.wave > wave || step.state != StepState::Healthy {
                continue;
            }
            let host = commit.hosts[ordinal];
            let fresh = brain.known(host, commit.at)
                && brain.report(host).is_some_and(|report| {
                    report.health == HealthNow::Passing && report.current == Some(commit.plan.release)
                });
            if !fresh {
                return broken(
                    "S10",
                    format!("the gate of wave {wave} passed while {} was not seen healthy", member.name),
                );
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one commit, with what it is judged by")]
    fn result(
        &mut self,
        rollout: RolloutId,
        host: usize,
        ordinal: usize,
        old: &Step,
        new: &Step,
        brain: &Brain,
        commit: &Commit<'_>,
    ) -> Verdicts {
        let name = &commit.plan.members[ordinal].name;
        if old.state == new.state || !matches!(new.state, StepState::Healthy | StepState::Failed | StepState::Reverted)
        {
            return Ok(());
        }
        // Not a verdict: there is nothing that a parked member could be brought to.
        let no_previous = commit.after.state.is_terminal() && new.previous == Previous::Nothing;
        if !no_previous {
            let told = brain.report(host);
            let current = told.is_some_and(|report| {
                report.generation == new.generation
                    || report.step.as_ref().is_some_and(|step| step.generation == new.generation)
            });
            if !brain.known(host, commit.at) || !current {
                return broken("S11", format!("{name} became {} without an observation", new.state.name()));
            }
        }
        let key = (rollout, host, new.generation);
        let later = |first: &StepState| *first == StepState::Healthy && new.state == StepState::Failed;
        match self.results.get(&key) {
            Some(first) if !later(first) => {
                return broken("S7", format!("{name}: {} after {} for one order", new.state.name(), first.name()));
            }
            _ => {}
        }
        self.results.insert(key, new.state);
        Ok(())
    }

    /// A change takes nobody away below what must stay.
    fn minimum(&self, commit: &Commit<'_>, brain: &Brain) -> Verdicts {
        let plan = commit.plan;
        let Some(minimum) = plan.policy.minimum_healthy_hosts.map(|amount| amount.of(plan.size())) else {
            return Ok(());
        };
        let well = |steps: &[Step], ordinal: usize| {
            let step = &steps[ordinal];
            let report = brain.report(commit.hosts[ordinal]);
            let passes = report.is_some_and(|report| {
                report.serving && report.current.is_some() && report.health == HealthNow::Passing
            });
            let ended = commit.after.state.is_terminal() && step.state == StepState::Failed;
            (ended || !busy(step.state)) && !step.converging && passes && brain.known(commit.hosts[ordinal], commit.at)
        };
        let count = |steps: &[Step]| (0..steps.len()).filter(|ordinal| well(steps, *ordinal)).count();
        let taken = (0..commit.after.steps.len()).any(|ordinal| {
            let ordered = commit.before.steps[ordinal].generation != commit.after.steps[ordinal].generation;
            ordered && well(&commit.before.steps, ordinal) && !well(&commit.after.steps, ordinal)
        });
        let after = count(&commit.after.steps);
        if taken && after <= minimum as usize {
            return broken("S8", format!("{after} members available after a change, more than {minimum} must be"));
        }
        Ok(())
    }

    /// A new order exists only if it was committed; a confirmation only if its verdict was.
    pub fn taken(&mut self, host: usize, name: &str, fence: Fence, generation: Generation, confirm: bool) -> Verdicts {
        let epoch = self.epochs.entry(host).or_default();
        if fence.epoch < *epoch {
            return broken("S2", format!("{name} acted for epoch {} after {epoch}", fence.epoch));
        }
        *epoch = fence.epoch;
        if !self.intents.contains_key(&(host, generation)) {
            return broken("S5", format!("{name} acted on generation {}, which is not in the store", generation.0));
        }
        if confirm && !self.confirms.contains(&(host, generation)) {
            return broken(
                "S5",
                format!("{name} confirmed generation {}, which the store did not decide", generation.0),
            );
        }
        Ok(())
    }

    /// A coordinator of this epoch was heard: nothing older counts from now on.
    pub fn heard(&mut self, host: usize, epoch: u64) {
        let held = self.epochs.entry(host).or_default();
        *held = epoch.max(*held);
    }

    /// An order was sent.
    pub fn sent(&self, name: &str, known: bool, mutating: bool) -> Verdicts {
        if mutating && !known {
            return broken("S18", format!("an order was sent to {name}, which is not heard from"));
        }
        Ok(())
    }

    /// An agent wrote its journal.
    pub fn persisted(&mut self, host: &SimHost, index: usize, before: &Slot, now: Micros) -> Verdicts {
        let after = &host.slot;
        if after.generation < before.generation {
            return broken(
                "S4",
                format!("{} went from generation {} to {}", host.name, before.generation.0, after.generation.0),
            );
        }
        let Some(step) = &after.step else { return Ok(()) };
        let old = before.step.as_ref().filter(|old| old.generation == step.generation);
        if old.is_none() && !self.begun.insert((index, step.generation)) {
            return broken("S6", format!("{} began generation {} twice", host.name, step.generation.0));
        }
        if let Some(settled) = step.settled {
            let first = *self.journal.entry((index, step.generation)).or_insert(settled);
            if first != settled {
                return broken("C1", format!("{} answered {first:?}, then {settled:?}", host.name));
            }
            if settled == Settled::Confirmed {
                self.settled_once.insert((index, step.to.release));
            }
        } else if self.journal.contains_key(&(index, step.generation)) {
            return broken("C1", format!("{} forgot how it answered", host.name));
        }
        let checking = step.phase == StepPhase::Checking;
        if checking && old.is_none_or(|old| old.switched != step.switched) {
            self.switched.insert(index, now);
            let exposed = step.to.processes.iter().any(|process| process.exposed);
            if exposed && host.confirmed_route() != Some(step.to.release) {
                return broken("S10", format!("{} checks under traffic that goes elsewhere", host.name));
            }
        }
        let decided = old.is_none_or(|old| old.verdict.is_none()) && step.verdict == Some(Verdict::Healthy);
        if decided { self.window(host, index) } else { Ok(()) }
    }

    /// A healthy verdict rests on answers of this run, this boot, after the switch, unbroken for long enough.
    fn window(&self, host: &SimHost, index: usize) -> Verdicts {
        let Some(step) = &host.slot.step else { return Ok(()) };
        let Some(switched) = self.switched.get(&index) else {
            return broken("S10", format!("{} gave a verdict before any switch", host.name));
        };
        for process in &step.to.processes {
            let key = (index, step.to.release, process.name.clone());
            let empty = Window::default();
            let window = self.windows.get(&key).unwrap_or(&empty);
            let counts = |taken: &&Micros| *taken >= switched && window.last_bad.is_none_or(|bad| **taken >= bad);
            let mut after = window.passes.iter().filter(counts);
            let (first, last) = (after.next(), after.next_back());
            let span = first.map(|first| last.unwrap_or(first) - first);
            let needed = u64::try_from(step.pace.min_healthy_time.as_micros()).unwrap_or(u64::MAX);
            if span.is_none_or(|span| span < needed) {
                return broken(
                    "S10",
                    format!(
                        "{} is healthy by {span:?} µs of answers of {} after the switch, {needed} are needed",
                        host.name, process.name
                    ),
                );
            }
        }
        Ok(())
    }

    /// An answer reached the agent.
    pub fn sampled(&mut self, index: usize, sample: &Sample, taken: Micros) {
        let window = self.windows.entry((index, sample.release, sample.process.clone())).or_default();
        if sample.instance < window.instance {
            return;
        }
        if window.instance != sample.instance {
            *window = Window { instance: sample.instance, ..Window::default() };
        }
        if sample.outcome == Outcome::Pass {
            window.passes.insert(taken);
        } else {
            window.last_bad = window.last_bad.max(Some(taken));
        }
    }

    /// A host started anew.
    pub fn rebooted(&mut self, index: usize) {
        self.windows.retain(|(host, _, _), _| *host != index);
        self.switched.remove(&index);
    }

    /// What must hold of the rollouts of the target together.
    pub fn together(&self, brain: &Brain) -> Verdicts {
        let active: Vec<_> = brain.rollouts().filter(|(_, progress)| progress.state.is_active()).collect();
        if active.len() > 1 {
            return broken("S1", format!("{} rollouts of one target are active", active.len()));
        }
        let mut writers: BTreeMap<domain::ids::HostId, u32> = BTreeMap::new();
        for (plan, progress) in brain.rollouts().filter(|(_, progress)| progress.needs_turns()) {
            for (member, step) in plan.members.iter().zip(&progress.steps) {
                let ended = progress.state.is_terminal();
                let open =
                    if ended { step.converging } else { step.state.in_flight() || step.state == StepState::Reverting };
                if open {
                    *writers.entry(member.executor).or_default() += 1;
                }
            }
        }
        match writers.iter().find(|(_, count)| **count > 1) {
            Some((host, count)) => broken("S16", format!("{count} rollouts change {host}")),
            None => Ok(()),
        }
    }
}

const fn busy(state: StepState) -> bool {
    state.in_flight() || matches!(state, StepState::Failed | StepState::Reverting)
}
