//! What a rollout will do, frozen in rows at its start.

use std::time::Duration;

use crate::host::{Host, Liveness};
use crate::ids::{HostId, ReleaseId, RolloutId};
use crate::label::Selector;
use crate::name::{Name, TargetRef};
use crate::policy::{Amount, Policy};
use crate::release::Release;

/// Forward to a release, or back from a finished rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// Canary, waves, bakes.
    Forward,
    /// `rollout revert` of a finished rollout: one wave, no canary, no bake, as parallel as
    /// `minimum_healthy_hosts` lets it, and never reverted by itself.
    Revert {
        /// The finished rollout.
        of: RolloutId,
    },
}

/// What a rollout will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The rollout.
    pub rollout: RolloutId,
    /// Where the app goes.
    pub target: TargetRef,
    /// Forward or back.
    pub kind: Kind,
    /// What shall run.
    pub release: ReleaseId,
    /// Its number within the target.
    pub number: u64,
    /// Pace, deadlines and budgets.
    pub policy: Policy,
    /// The members in order; `ordinal` is the index.
    pub members: Vec<Member>,
}

/// What one step changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Place in the plan, from 0.
    pub ordinal: u32,
    /// The member.
    pub member: HostId,
    /// The host whose agent acts; the member itself for containers.
    pub executor: HostId,
    /// Its name, for people.
    pub name: Name,
    /// Members of one wave change together; from 0, the canary.
    pub wave: u32,
    /// The release's processes that run there.
    pub processes: Vec<Name>,
}

impl Plan {
    /// Members on the frozen list.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    /// The number of waves, at least 1.
    #[must_use]
    pub fn waves(&self) -> u32 {
        self.members.iter().map(|member| member.wave + 1).max().unwrap_or(1)
    }

    /// The member's place.
    #[must_use]
    pub fn member(&self, host: HostId) -> Option<&Member> {
        self.members.iter().find(|member| member.member == host)
    }
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The rollout's id, made at the edge.
    pub rollout: RolloutId,
    /// Forward or back.
    pub kind: Kind,
    /// What shall run.
    pub release: &'a Release,
    /// Hosts with these labels are members.
    pub members: &'a Selector,
    /// Pace, deadlines and budgets; overrides of this rollout already applied.
    pub policy: &'a Policy,
    /// All hosts of the project.
    pub hosts: &'a [Host],
}

/// Why there is nothing to start. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No host fits.
    #[error("no host has the labels {selector} and a process to run; see `muster host list` and `muster host label`")]
    NoMembers {
        /// The target's selector.
        selector: String,
    },
    /// A process that must run once does not match exactly one member.
    #[error(
        "process {process} must run on exactly one member and matches {}; change its `on:` or the labels of hosts",
        or_none(matched)
    )]
    Singleton {
        /// The process.
        process: Name,
        /// The members it matches.
        matched: Vec<Name>,
    },
    /// Not even one member could be changed.
    #[error("minimum_healthy_hosts {minimum} cannot be kept while one of {members} members changes; at most {} is possible", members.saturating_sub(2))]
    MinimumHealthyImpossible {
        /// The number that must be exceeded.
        minimum: u32,
        /// Members on the list.
        members: u32,
    },
    /// More members are away than allowed.
    #[error("{} not heard from, and max_unreachable is {allowed}; wait, or go on without: --max-unreachable {}", list(away), away.len())]
    HostUnreachable {
        /// Who.
        away: Vec<Name>,
        /// How many may be.
        allowed: u32,
    },
    /// Lengths of time that exclude each other.
    #[error("{what}")]
    Policy {
        /// Which, and what to do.
        what: String,
    },
}

impl PlanError {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoMembers { .. } => "E_NO_MEMBERS",
            Self::Singleton { .. } => "E_SINGLETON",
            Self::MinimumHealthyImpossible { .. } => "E_MINIMUM_HEALTHY_IMPOSSIBLE",
            Self::HostUnreachable { .. } => "E_HOST_UNREACHABLE",
            Self::Policy { .. } => "E_POLICY",
        }
    }
}

fn list(names: &[Name]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.iter().map(Name::as_str).collect::<Vec<_>>().join(" "))
}

fn or_none(names: &[Name]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().map(Name::as_str).collect::<Vec<_>>().join(" ") }
}

/// Makes every choice that can be made before: members in order of their names, waves, who runs what.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(request: Request<'_>) -> Result<Plan, PlanError> {
    let policy = effective_policy(request.kind, request.policy)?;
    let mut hosts: Vec<&Host> =
        request.hosts.iter().filter(|host| !host.draining && request.members.matches(&host.labels)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    check_singletons(request.release, &hosts)?;
    let mut members: Vec<Member> = hosts.iter().filter_map(|host| member(request.release, host)).collect();
    if members.is_empty() {
        return Err(PlanError::NoMembers { selector: request.members.to_string() });
    }
    let size = u32::try_from(members.len()).unwrap_or(u32::MAX);
    if let Some(minimum) = policy.minimum_healthy_hosts.map(|amount| amount.of(size))
        && size.saturating_sub(1) <= minimum
    {
        return Err(PlanError::MinimumHealthyImpossible { minimum, members: size });
    }
    let away = |host: &&&Host| matches!(host.liveness, Liveness::Unreachable | Liveness::Joined);
    let away: Vec<Name> = hosts.iter().filter(away).map(|host| host.name.clone()).collect();
    let allowed = policy.max_unreachable.of(size);
    if away.len() > allowed as usize {
        return Err(PlanError::HostUnreachable { away, allowed });
    }
    number(&mut members, &policy, request.kind);
    Ok(Plan {
        rollout: request.rollout,
        target: request.release.target.clone(),
        kind: request.kind,
        release: request.release.id,
        number: request.release.number,
        policy,
        members,
    })
}

/// Going back has no canary, no bake, and is not itself reverted: it would lead to what was to be left.
fn effective_policy(kind: Kind, policy: &Policy) -> Result<Policy, PlanError> {
    let wrong = |what: &str| Err(PlanError::Policy { what: what.to_owned() });
    if policy.healthy_deadline <= policy.min_healthy_time {
        return wrong("healthy_deadline must be longer than min_healthy_time: no member could become healthy in time");
    }
    if policy.progress_deadline < policy.healthy_deadline {
        return wrong(
            "progress_deadline must not be shorter than healthy_deadline: one slow member would end the rollout",
        );
    }
    let mut policy = policy.clone();
    if let Kind::Revert { .. } = kind {
        policy.auto_revert = false;
        policy.bake_time = Duration::ZERO;
        policy.final_bake_time = Duration::ZERO;
        policy.max_parallel = Amount::Percent(100);
    }
    Ok(policy)
}

fn check_singletons(release: &Release, hosts: &[&Host]) -> Result<(), PlanError> {
    for (name, process) in &release.processes {
        let Some(on) = &process.on else { continue };
        let matched: Vec<Name> =
            hosts.iter().filter(|host| on.matches(&host.labels)).map(|host| host.name.clone()).collect();
        let once = !process.overlap;
        if matched.is_empty() || (once && matched.len() != 1) {
            return Err(PlanError::Singleton { process: name.clone(), matched });
        }
    }
    Ok(())
}

fn member(release: &Release, host: &Host) -> Option<Member> {
    let here = |on: &Option<Selector>| on.as_ref().is_none_or(|on| on.matches(&host.labels));
    let processes: Vec<Name> =
        release.processes.iter().filter(|(_, process)| here(&process.on)).map(|(name, _)| name.clone()).collect();
    if processes.is_empty() {
        return None;
    }
    Some(Member { ordinal: 0, member: host.id, executor: host.id, name: host.name.clone(), wave: 0, processes })
}

/// Ordinals and waves: the canary, then `waves`, the last of which repeats; each at least 1.
fn number(members: &mut [Member], policy: &Policy, kind: Kind) {
    let total = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let one_wave = matches!(kind, Kind::Revert { .. });
    let mut sizes = std::iter::once(policy.canary).chain(policy.waves.iter().copied());
    let mut last = Amount::Percent(100);
    let mut wave = 0;
    let mut room = 0;
    for (ordinal, member) in (0..).zip(members.iter_mut()) {
        member.ordinal = ordinal;
        if one_wave {
            continue;
        }
        if room == 0 {
            if ordinal > 0 {
                wave += 1;
            }
            if let Some(size) = sizes.next() {
                last = if ordinal == 0 && policy.waves.is_empty() { Amount::Percent(100) } else { size };
                room = size.of(total).max(1);
            } else {
                room = last.of(total).max(1);
            }
        }
        member.wave = wave;
        room -= 1;
    }
}
