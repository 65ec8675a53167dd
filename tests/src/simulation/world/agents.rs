//! Agents: start, dial, beat, hear, perform what the machine asks for, die.

use domain::hello::Fenced;
use domain::step::event::{Action, Event};
use domain::step::machine::Machine;
use domain::step::order::{Envelope, OrderKind};

use super::{Down, Ev, Op, Up, World};
use crate::simulation::check::Verdicts;
use crate::simulation::faults::Fault;
use crate::simulation::host::Agent;
use crate::simulation::{Micros, SECOND};

const BEAT: Micros = 5 * SECOND;
const GIVE_UP: Micros = 15 * SECOND;

impl World {
    pub(super) fn agent_start(&mut self, host: usize, boot: u64) -> Verdicts {
        let place = &mut self.hosts[host];
        if place.agent.is_some() || place.boot != boot {
            return Ok(());
        }
        place.run += 1;
        let run = place.run;
        let clock = place.clock(self.now);
        let (machine, actions) = Machine::restore(place.slot.clone(), run, clock);
        place.agent =
            Some(Agent { machine, session: None, heard: 0, unacked: None, dials: 0, wake: 0, dies_after: None });
        self.say(|| format!("{host:>2} agent starts (run {run})"));
        self.perform(host, actions)?;
        self.after(SECOND / 20, Ev::AgentDial { host, run });
        Ok(())
    }

    fn alive(&self, host: usize, run: u64) -> bool {
        self.hosts[host].run == run && self.hosts[host].agent.is_some()
    }

    pub(super) fn agent_dial(&mut self, host: usize, run: u64) -> Verdicts {
        if !self.alive(host, run) {
            return Ok(());
        }
        let clock = self.hosts[host].clock(self.now);
        let reachable = self.brain.up() && !self.hosts[host].cut(self.now);
        let fenced = self.hosts[host].fenced;
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return Ok(()) };
        if agent.session.is_some() {
            return Ok(());
        }
        agent.dials += 1;
        if !reachable {
            let most = (200_000 << agent.dials.min(5)).min(2 * SECOND);
            let wait = self.rng.between(50_000, most);
            self.after(wait, Ev::AgentDial { host, run });
            return Ok(());
        }
        self.sessions += 1;
        let session = self.sessions;
        let report = agent.machine.report(clock);
        agent.session = Some(session);
        agent.heard = now;
        agent.dials = 0;
        agent.unacked = Some(Box::new(report.clone()));
        self.send_up(host, session, Up::Hello(fenced, Box::new(report)));
        self.after(BEAT, Ev::AgentBeat { host, run });
        Ok(())
    }

    pub(super) fn agent_beat(&mut self, host: usize, run: u64) -> Verdicts {
        if !self.alive(host, run) {
            return Ok(());
        }
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return Ok(()) };
        let Some(session) = agent.session else { return Ok(()) };
        if now.saturating_sub(agent.heard) >= GIVE_UP {
            return self.hang_up(host, run);
        }
        let unacked = agent.unacked.clone();
        self.send_up(host, session, Up::Beat);
        if let Some(report) = unacked {
            self.send_up(host, session, Up::Report(report));
        }
        self.after(BEAT, Ev::AgentBeat { host, run });
        Ok(())
    }

    fn hang_up(&mut self, host: usize, run: u64) -> Verdicts {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.session = None;
        }
        let wait = self.rng.between(1000, 200_000);
        self.after(wait, Ev::AgentDial { host, run });
        Ok(())
    }

    pub(super) fn agent_hears(&mut self, host: usize, session: u64, message: Down) -> Verdicts {
        if self.hosts[host].cut(self.now) {
            return Ok(());
        }
        let now = self.now;
        let run = self.hosts[host].run;
        let Some(agent) = &mut self.hosts[host].agent else { return Ok(()) };
        let mine = agent.session == Some(session);
        if mine {
            agent.heard = now;
        }
        match message {
            Down::Heard => Ok(()),
            Down::Unknown if mine => self.hang_up(host, run),
            Down::Unknown => Ok(()),
            Down::Ack(stamp) => {
                if agent.unacked.as_ref().is_some_and(|report| report.stamp == stamp) {
                    agent.unacked = None;
                }
                Ok(())
            }
            Down::Welcome(fence, seq) => {
                if let Ok(fenced) = self.hosts[host].fenced.admit(fence, seq) {
                    self.hosts[host].fenced = fenced;
                    self.check.heard(host, fence.epoch);
                }
                Ok(())
            }
            // Also from a session that is gone: it may have been in a queue when the session ended.
            Down::Order(envelope) => self.agent_ordered(host, *envelope),
        }
    }

    fn agent_ordered(&mut self, host: usize, envelope: Envelope) -> Verdicts {
        let held = self.hosts[host].fenced;
        let fenced: Fenced = match held.admit(envelope.fence, envelope.ledger_seq) {
            Ok(fenced) => fenced,
            Err(refusal) => {
                self.say(|| format!("{host:>2} refuses: {refusal}"));
                return Ok(());
            }
        };
        self.hosts[host].fenced = fenced;
        let generation = envelope.order.generation;
        let slot = &self.hosts[host].slot;
        let confirm = envelope.order.kind == OrderKind::Confirm;
        let open = slot.step.as_ref().is_some_and(|step| step.generation == generation && step.settled.is_none());
        let takes = if confirm { open } else { generation > slot.generation };
        let (fence, kind) = (envelope.fence, envelope.order.kind.clone());
        self.say(|| format!("{host:>2} <- order {} {kind:?}", generation.0));
        let before = self.hosts[host].slot.clone();
        self.tell(host, Event::Order { order: envelope.order, work: envelope.work })?;
        let changed = self.hosts[host].slot != before;
        if takes && changed {
            let name = self.hosts[host].name.clone();
            self.check.taken(host, &name, fence, generation, confirm)?;
        }
        Ok(())
    }

    pub(super) fn agent_wake(&mut self, host: usize, run: u64, number: u64) -> Verdicts {
        let stands = self.hosts[host].agent.as_ref().is_some_and(|agent| agent.wake == number);
        if self.alive(host, run) && stands { self.tell(host, Event::Tick) } else { Ok(()) }
    }

    /// What the agent's driver does.
    pub(super) fn perform(&mut self, host: usize, actions: Vec<Action>) -> Verdicts {
        for action in actions {
            if let Some(agent) = &mut self.hosts[host].agent
                && let Some(left) = &mut agent.dies_after
            {
                if *left == 0 {
                    self.agent_dies(host);
                    return Ok(());
                }
                *left -= 1;
            }
            self.perform_one(host, action)?;
        }
        Ok(())
    }

    fn perform_one(&mut self, host: usize, action: Action) -> Verdicts {
        let run = self.hosts[host].run;
        let boot = self.hosts[host].boot;
        let engine = |op: Op| Ev::Engine { host, boot, run, op };
        match action {
            Action::Persist(slot) => {
                let before = std::mem::replace(&mut self.hosts[host].slot, *slot);
                self.note_settled(host, &before);
                self.check.persisted(&self.hosts[host], host, &before, self.now)?;
            }
            Action::Inspect => {
                let took = self.rng.between(2000, 60_000);
                self.after(took, engine(Op::Inspect));
            }
            Action::Stage { generation, .. } => {
                let took = self.rng.between(50_000, 2 * SECOND);
                self.after(took, engine(Op::Stage { generation }));
            }
            Action::Start { release, process } => {
                let took = self.rng.between(50_000, 900_000);
                self.after(took, engine(Op::Start { release, process }));
            }
            Action::Stop { release, process, drain, .. } => {
                let drain = u64::try_from(drain.as_micros()).unwrap_or(0);
                let took = self.rng.between(20_000, 600_000) + self.rng.between(0, drain);
                self.after(took, engine(Op::Stop { release, process }));
            }
            Action::Route { release, .. } => {
                let took = self.rng.between(500, 6000);
                self.after(took, engine(Op::Route { release }));
            }
            Action::Logs { release, process } => self.after(3000, engine(Op::Logs { release, process })),
            Action::Watch { release, process, instance } => {
                self.after(1000, Ev::Probe { host, run, release, process, instance, again: true });
            }
            Action::ProbeNow { release, process } => {
                let instance = self.hosts[host].containers.get(&(release, process.clone())).map(|found| found.instance);
                if let Some(instance) = instance {
                    self.after(0, Ev::Probe { host, run, release, process, instance, again: false });
                }
            }
            Action::Report(report) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.unacked = Some(report.clone());
                    if let Some(session) = agent.session {
                        self.send_up(host, session, Up::Report(report));
                    }
                }
            }
            Action::Refused(refusal) => self.say(|| format!("{host:>2} refused: {refusal}")),
            Action::WakeAt(at) => {
                let when = self.hosts[host].booted + u64::try_from(at.as_micros()).unwrap_or(u64::MAX / 2);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.wake += 1;
                    let number = agent.wake;
                    self.at(when, Ev::AgentWake { host, run, number });
                }
            }
        }
        Ok(())
    }

    fn note_settled(&mut self, host: usize, before: &domain::step::journal::Slot) {
        use domain::step::journal::Settled;
        let step = self.hosts[host].slot.step.as_ref();
        let Some((generation, phase)) = step.map(|step| (step.generation, step.phase)) else { return };
        let settled = step.and_then(|step| step.settled);
        let old = before.step.as_ref().filter(|old| old.generation == generation);
        if settled == Some(Settled::Undone) && old.is_none_or(|old| old.settled.is_none()) {
            self.stats.undone += 1;
        }
        let verdict = self.hosts[host].slot.step.as_ref().and_then(|step| step.verdict.clone());
        self.say(|| format!("{host:>2} journal: generation {} {phase:?} {verdict:?} {settled:?}", generation.0));
    }

    /// The process is gone; what it had asked of the engine happens at once or never.
    pub(super) fn agent_dies(&mut self, host: usize) {
        if self.hosts[host].agent.take().is_none() {
            return;
        }
        self.stats.fault(Fault::AgentCrash);
        self.say(|| format!("{host:>2} agent dies"));
        self.finish_engine_calls(host);
        let wait = self.rng.between(100_000, 5 * SECOND);
        let boot = self.hosts[host].boot;
        self.after(wait, Ev::AgentStart { host, boot });
    }
}
