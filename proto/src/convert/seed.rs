//! Seeds and snapshots.

use std::time::Duration;

use domain::ids::SeedId;
use domain::release::Digest;
use domain::seed::{DataObserved, SeedFormat, SeedInput, SeedPart, SeedState};

use super::Error;
use crate::v1;

impl From<SeedState> for v1::SeedState {
    fn from(state: SeedState) -> Self {
        match state {
            SeedState::Making => Self::Making,
            SeedState::Ready => Self::Ready,
            SeedState::Failed => Self::Failed,
            SeedState::Removing => Self::Removing,
            SeedState::Removed => Self::Removed,
        }
    }
}

impl TryFrom<v1::SeedState> for SeedState {
    type Error = Error;

    fn try_from(state: v1::SeedState) -> Result<Self, Error> {
        Ok(match state {
            v1::SeedState::Unspecified => return Err(Error::Missing("seed.state")),
            v1::SeedState::Making => Self::Making,
            v1::SeedState::Ready => Self::Ready,
            v1::SeedState::Failed => Self::Failed,
            v1::SeedState::Removing => Self::Removing,
            v1::SeedState::Removed => Self::Removed,
        })
    }
}

impl From<SeedFormat> for v1::SeedFormat {
    fn from(format: SeedFormat) -> Self {
        match format {
            SeedFormat::Sql => Self::Sql,
            SeedFormat::PgCustom => Self::PgCustom,
            SeedFormat::Folder => Self::Folder,
            SeedFormat::Rdb => Self::Rdb,
            SeedFormat::Bulk => Self::Bulk,
            SeedFormat::Script => Self::Script,
            SeedFormat::Mask => Self::Mask,
        }
    }
}

impl TryFrom<v1::SeedFormat> for SeedFormat {
    type Error = Error;

    fn try_from(format: v1::SeedFormat) -> Result<Self, Error> {
        Ok(match format {
            v1::SeedFormat::Unspecified => return Err(Error::Missing("input.format")),
            v1::SeedFormat::Sql => Self::Sql,
            v1::SeedFormat::PgCustom => Self::PgCustom,
            v1::SeedFormat::Folder => Self::Folder,
            v1::SeedFormat::Rdb => Self::Rdb,
            v1::SeedFormat::Bulk => Self::Bulk,
            v1::SeedFormat::Script => Self::Script,
            v1::SeedFormat::Mask => Self::Mask,
        })
    }
}

impl From<&SeedPart> for v1::SeedPart {
    fn from(part: &SeedPart) -> Self {
        Self {
            volume: part.volume.clone(),
            service: part.service.clone(),
            kind: part.kind.clone(),
            image: part.image.clone(),
            version: part.version.clone(),
            collation: part.collation.clone(),
            bytes: part.bytes,
            files: part.files,
        }
    }
}

impl From<v1::SeedPart> for SeedPart {
    fn from(part: v1::SeedPart) -> Self {
        Self {
            volume: part.volume,
            service: part.service,
            kind: part.kind,
            image: part.image,
            version: part.version,
            collation: part.collation,
            bytes: part.bytes,
            files: part.files,
        }
    }
}

impl From<&SeedInput> for v1::SeedInput {
    fn from(input: &SeedInput) -> Self {
        Self {
            service: input.service.clone(),
            format: v1::SeedFormat::from(input.format).into(),
            name: input.name.clone(),
            bytes: input.bytes,
            artifact: input.artifact.hex().to_owned(),
        }
    }
}

impl TryFrom<v1::SeedInput> for SeedInput {
    type Error = Error;

    fn try_from(input: v1::SeedInput) -> Result<Self, Error> {
        let format = input.format().try_into()?;
        let artifact = Digest::parse(&input.artifact).map_err(|why| Error::invalid("input.artifact", why))?;
        Ok(Self { service: input.service, format, name: input.name, bytes: input.bytes, artifact })
    }
}

/// What a host tells about a seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// The seed.
    pub id: SeedId,
    /// Its state.
    pub state: SeedState,
    /// Why it failed: reason code and text.
    pub reason: Option<(String, String)>,
    /// One line for people.
    pub detail: String,
    /// SHA-256 over its manifest; always there when it is ready and was made.
    pub digest: Option<Digest>,
    /// Size of its data.
    pub bytes: u64,
    /// Its data, by volume.
    pub parts: Vec<SeedPart>,
    /// How long it took to make.
    pub took: Option<Duration>,
    /// For how long the environment of a snapshot stood still.
    pub freeze: Option<Duration>,
    /// Canary values that were looked for.
    pub canaries: u32,
    /// Masking SQL was run.
    pub masked: bool,
    /// Which order it answers.
    pub work: v1::SeedWork,
    /// Bytes that went over the network.
    pub moved: u64,
}

impl TryFrom<v1::SeedReport> for Reported {
    type Error = Error;

    fn try_from(report: v1::SeedReport) -> Result<Self, Error> {
        let digest = match report.digest.as_str() {
            "" => None,
            text => Some(Digest::parse(text).map_err(|why| Error::invalid("seed.digest", why))?),
        };
        let time = |micros: u64| (micros > 0).then(|| super::duration(micros));
        Ok(Self {
            id: super::id("seed.id", &report.id)?,
            state: report.state().try_into()?,
            work: report.work(),
            moved: report.moved_bytes,
            reason: report.reason.map(|reason| (reason.code, reason.text)),
            detail: report.detail,
            digest,
            bytes: report.bytes,
            parts: report.parts.into_iter().map(Into::into).collect(),
            took: time(report.took_micros),
            freeze: time(report.freeze_micros),
            canaries: report.canaries,
            masked: report.masked,
        })
    }
}

impl v1::SeedWork {
    /// What an order is called beside others of the same seed.
    #[must_use]
    pub fn key(self, seed: &str) -> String {
        match self {
            Self::Unspecified => seed.to_owned(),
            Self::Push => format!("push:{seed}"),
            Self::Pull => format!("pull:{seed}"),
        }
    }
}

impl From<&v1::EnvironmentReport> for DataObserved {
    fn from(report: &v1::EnvironmentReport) -> Self {
        let mut kept = report.kept_epochs.clone();
        kept.sort_unstable();
        kept.dedup();
        Self { line: report.data.clone(), own_bytes: report.own_bytes, shared_bytes: report.shared_bytes, kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> v1::SeedReport {
        v1::SeedReport {
            id: "0190b5a0-0000-7000-8000-000000000001".to_owned(),
            state: v1::SeedState::Making.into(),
            ..v1::SeedReport::default()
        }
    }

    #[test]
    fn a_report_without_a_state_or_with_a_digest_that_is_none_is_refused() {
        let told = Reported::try_from(report()).unwrap();
        assert_eq!((told.digest, told.took, told.freeze), (None, None, None));
        assert!(Reported::try_from(v1::SeedReport { state: 0, ..report() }).is_err());
        assert!(Reported::try_from(v1::SeedReport { digest: "abc".to_owned(), ..report() }).is_err());
        assert!(Reported::try_from(v1::SeedReport { id: "x".to_owned(), ..report() }).is_err());
    }

    #[test]
    fn kept_epochs_are_each_told_once_and_ascending() {
        let report = v1::EnvironmentReport { kept_epochs: vec![3, 1, 3], ..v1::EnvironmentReport::default() };
        assert_eq!(DataObserved::from(&report).kept, [1, 3]);
    }

    #[test]
    fn states_and_formats_come_back_as_they_went() {
        let states = [SeedState::Making, SeedState::Ready, SeedState::Failed, SeedState::Removing, SeedState::Removed];
        for state in states {
            assert_eq!(v1::SeedState::from(state).try_into(), Ok(state));
        }
        let formats = [
            SeedFormat::Sql,
            SeedFormat::PgCustom,
            SeedFormat::Folder,
            SeedFormat::Rdb,
            SeedFormat::Bulk,
            SeedFormat::Script,
            SeedFormat::Mask,
        ];
        for format in formats {
            assert_eq!(v1::SeedFormat::from(format).try_into(), Ok(format));
        }
    }
}
