//! Something released, described by `muster.yaml` in its repository.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::HealthCheck;
use crate::label::Selector;
use crate::name::Name;
use crate::policy::Policy;

/// An app as its `muster.yaml` describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct App {
    /// Unique in the project.
    pub name: Name,
    /// The parts that run.
    pub processes: BTreeMap<Name, Process>,
    /// Path of the stack file, relative to `muster.yaml`.
    pub stack: Option<String>,
    /// Named test commands.
    pub tests: BTreeMap<Name, TestSpec>,
    /// Where the app goes.
    pub targets: BTreeMap<Name, TargetSpec>,
}

/// A part of an app with its command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Argument vector; empty: the image's own.
    pub command: Vec<String>,
    /// Container ports.
    pub ports: Vec<u16>,
    /// None: `container` (running without a restart).
    pub health: Option<HealthCheck>,
    /// False: never beside its successor on one host.
    pub overlap: bool,
    /// Only on members with these labels.
    pub on: Option<Selector>,
    /// Plain settings of this process, under the target's config.
    pub environment: BTreeMap<String, String>,
}

/// A named test command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestSpec {
    /// Argument vector.
    pub command: Vec<String>,
    /// The stack's service in whose image the command runs.
    pub service: Option<Name>,
    /// Glob of JUnit files, relative to the checkout.
    pub junit: Option<String>,
    /// The whole command's limit.
    pub timeout: Duration,
    /// Limit without a byte of output.
    pub no_output: Duration,
}

/// How a published port treats traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Mode {
    /// Bytes; a switch moves new connections.
    Tcp,
    /// HTTP/1.1; a switch moves requests.
    Http,
}

/// A process published on every member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expose {
    /// The process; its first port is published.
    pub process: Name,
    /// The host's port.
    pub port: u16,
    /// How it treats traffic.
    pub mode: Mode,
    /// Address it listens on; `127.0.0.1` unless configured.
    pub address: Option<String>,
}

/// How a target's members are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Driver {
    /// Containers, new beside old.
    Container,
}

/// A condition that must hold before the next wave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gate {
    /// The members' health checks.
    Health,
}

/// Where an app goes: driver, gates, members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetSpec {
    /// Hosts with these labels are its members.
    pub members: Selector,
    /// How members are changed.
    pub driver: Driver,
    /// What is published.
    pub expose: Vec<Expose>,
    /// Pace, deadlines and budgets.
    pub policy: Policy,
    /// Gates in order; health always counts.
    pub gates: Vec<Gate>,
}
