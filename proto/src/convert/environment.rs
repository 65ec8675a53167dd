//! Environments, as agents report them.

use domain::environment::{Activity, EnvironmentState, Isolation, Observed, ServiceObserved, ServiceState};
use domain::ids::Generation;
use domain::time::Timestamp;

use super::Error;
use crate::v1;

impl From<EnvironmentState> for v1::EnvironmentState {
    fn from(state: EnvironmentState) -> Self {
        match state {
            EnvironmentState::Pending => Self::Pending,
            EnvironmentState::Starting => Self::Starting,
            EnvironmentState::Ready => Self::Ready,
            EnvironmentState::Failed => Self::Failed,
            EnvironmentState::Stopping => Self::Stopping,
            EnvironmentState::Gone => Self::Gone,
            EnvironmentState::Frozen => Self::Frozen,
            EnvironmentState::Asleep => Self::Asleep,
        }
    }
}

impl TryFrom<v1::EnvironmentState> for EnvironmentState {
    type Error = Error;

    fn try_from(state: v1::EnvironmentState) -> Result<Self, Error> {
        Ok(match state {
            v1::EnvironmentState::Unspecified => return Err(Error::Missing("environment.state")),
            v1::EnvironmentState::Pending => Self::Pending,
            v1::EnvironmentState::Starting => Self::Starting,
            v1::EnvironmentState::Ready => Self::Ready,
            v1::EnvironmentState::Failed => Self::Failed,
            v1::EnvironmentState::Stopping => Self::Stopping,
            v1::EnvironmentState::Gone => Self::Gone,
            v1::EnvironmentState::Frozen => Self::Frozen,
            v1::EnvironmentState::Asleep => Self::Asleep,
        })
    }
}

impl From<ServiceState> for v1::ServiceState {
    fn from(state: ServiceState) -> Self {
        match state {
            ServiceState::Waiting => Self::Waiting,
            ServiceState::Pulling => Self::Pulling,
            ServiceState::Starting => Self::Starting,
            ServiceState::Ready => Self::Ready,
            ServiceState::Done => Self::Done,
            ServiceState::Exited => Self::Exited,
            ServiceState::CrashLoop => Self::CrashLoop,
        }
    }
}

impl TryFrom<v1::ServiceState> for ServiceState {
    type Error = Error;

    fn try_from(state: v1::ServiceState) -> Result<Self, Error> {
        Ok(match state {
            v1::ServiceState::Unspecified => return Err(Error::Missing("service.state")),
            v1::ServiceState::Waiting => Self::Waiting,
            v1::ServiceState::Pulling => Self::Pulling,
            v1::ServiceState::Starting => Self::Starting,
            v1::ServiceState::Ready => Self::Ready,
            v1::ServiceState::Done => Self::Done,
            v1::ServiceState::Exited => Self::Exited,
            v1::ServiceState::CrashLoop => Self::CrashLoop,
        })
    }
}

impl From<&ServiceObserved> for v1::Service {
    fn from(service: &ServiceObserved) -> Self {
        Self {
            name: service.name.clone(),
            state: v1::ServiceState::from(service.state).into(),
            detail: service.detail.clone(),
            ready_after_micros: service.ready_after_micros.unwrap_or(0),
            addresses: service.addresses.iter().map(|(port, address)| (u32::from(*port), address.clone())).collect(),
            variables: service.variables.clone().into_iter().collect(),
            last_lines: service.last_lines.clone(),
            isolation: service.isolation.as_ref().map(Into::into),
        }
    }
}

impl From<&Isolation> for v1::Isolation {
    fn from(found: &Isolation) -> Self {
        let (reached, problem) = (found.reached.clone(), found.problem.clone());
        Self { at: found.at.0, tried: found.tried, reached, problem }
    }
}

impl From<v1::Isolation> for Isolation {
    fn from(found: v1::Isolation) -> Self {
        Self { at: Timestamp(found.at), tried: found.tried, reached: found.reached, problem: found.problem }
    }
}

impl TryFrom<v1::Service> for ServiceObserved {
    type Error = Error;

    fn try_from(service: v1::Service) -> Result<Self, Error> {
        let state = service.state().try_into()?;
        let addresses = service
            .addresses
            .into_iter()
            .map(|(port, address)| Ok((super::port("service.addresses", port)?, address)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            name: service.name,
            state,
            detail: service.detail,
            ready_after_micros: (service.ready_after_micros > 0).then_some(service.ready_after_micros),
            addresses,
            variables: service.variables.into_iter().collect(),
            last_lines: service.last_lines,
            isolation: service.isolation.map(Into::into),
        })
    }
}

impl TryFrom<v1::EnvironmentReport> for Observed {
    type Error = Error;

    fn try_from(report: v1::EnvironmentReport) -> Result<Self, Error> {
        Ok(Self {
            generation: Generation(report.generation),
            state: report.state().try_into()?,
            reason: report.reason.map(|reason| (reason.code, reason.text)),
            services: report.services.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            notices: report.notices,
            activity: (report.last_used_at > 0).then_some(Activity {
                last_used: Timestamp(report.last_used_at),
                why: report.why,
                memory_bytes: report.memory_bytes,
            }),
        })
    }
}
