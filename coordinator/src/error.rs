//! What a call is refused with: a stable reason code, what happened to what, and what to do.

use std::fmt;

use crate::store;

/// Which answer a program gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request is malformed.
    Invalid,
    /// The thing is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// Something must change first.
    Precondition,
    /// Somebody else changed it at the same time.
    Aborted,
    /// Nobody is known to have sent it.
    Unauthenticated,
    /// Who sent it may not.
    Denied,
    /// The coordinator cannot now.
    Unavailable,
    /// A limit is reached.
    Exhausted,
    /// The coordinator failed.
    Internal,
}

/// A stable reason code with its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// `E_...`
    pub code: &'static str,
    /// Which answer a program gets.
    pub kind: Kind,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:ident;)+) => {
        impl Code {
            $($(#[doc = $doc])+ pub const $name: Self = Self { code: $text, kind: Kind::$kind };)+
            /// Every code of the coordinator, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

codes! {
    /// A field holds what it cannot hold.
    FIELD = "E_FIELD", Invalid;
    /// Not a name.
    NAME = "E_NAME", Invalid;
    /// Not an id of that noun.
    ID = "E_ID", Invalid;
    /// Not labels.
    LABELS = "E_LABELS", Invalid;
    /// Not a selector.
    SELECTOR = "E_SELECTOR", Invalid;
    /// Not APP/TARGET.
    TARGET_REF = "E_TARGET_REF", Invalid;
    /// Not a full commit.
    COMMIT = "E_GIT_COMMIT", Invalid;
    /// Not a role.
    ROLE = "E_ROLE", Invalid;
    /// Not a scope.
    SCOPE = "E_SCOPE", Invalid;
    /// A lifetime outside its range.
    TTL = "E_TTL", Invalid;
    /// Not a key as idempotency keys are.
    IDEMPOTENCY_KEY = "E_IDEMPOTENCY_KEY", Invalid;
    /// The key was used for another request.
    IDEMPOTENCY_KEY_REUSED = "E_IDEMPOTENCY_KEY_REUSED", Exists;
    /// A text or a list is too long.
    TOO_LARGE = "E_TOO_LARGE", Invalid;
    /// A setting's name or value is not one.
    CONFIG_KEY = "E_CONFIG_KEY", Invalid;
    /// Nothing to set or unset.
    CONFIG_EMPTY = "E_CONFIG_EMPTY", Invalid;
    /// A setting that is not there cannot be unset.
    CONFIG_UNKNOWN = "E_CONFIG_UNKNOWN", NotFound;
    /// `muster.yaml` has problems; each has a code of its own.
    MANIFEST = "E_MANIFEST", Invalid;
    /// The app in `muster.yaml` is another than the one named.
    MANIFEST_APP = "E_MANIFEST_APP", Invalid;
    /// The stack file has problems; each has a code of its own.
    STACK = "E_STACK", Invalid;
    /// Not a git URL.
    REPOSITORY = "E_GIT_URL", Invalid;
    /// Not an image with a digest.
    IMAGE = "E_IMAGE_NOT_PINNED", Invalid;
    /// Not a platform.
    PLATFORM = "E_PLATFORM", Invalid;
    /// The archive is not an image's.
    ARCHIVE = "E_ARCHIVE", Invalid;
    /// The archive is larger than it may be.
    ARCHIVE_TOO_LARGE = "E_ARCHIVE_TOO_LARGE", Exhausted;
    /// The stream of messages is not what it must be.
    STREAM = "E_STREAM", Invalid;
    /// An override of a rollout's policy is not one.
    OVERRIDE = "E_OVERRIDE", Invalid;
    /// Two things were given of which one is allowed.
    AMBIGUOUS = "E_AMBIGUOUS", Invalid;

    /// There is no such host.
    HOST_NOT_FOUND = "E_HOST_NOT_FOUND", NotFound;
    /// A host has this name already.
    HOST_EXISTS = "E_HOST_EXISTS", Exists;
    /// The host is in use.
    HOST_IN_USE = "E_HOST_IN_USE", Precondition;
    /// The host is reachable.
    HOST_REACHABLE = "E_HOST_REACHABLE", Precondition;
    /// A stream was ended before its end.
    STREAM_ENDED = "E_STREAM_ENDED", Unavailable;
    /// The host is not heard from.
    HOST_UNREACHABLE = "E_HOST_UNREACHABLE", Unavailable;
    /// There is no such join-token.
    JOIN_TOKEN_NOT_FOUND = "E_JOIN_TOKEN_NOT_FOUND", NotFound;
    /// The join-token was used or revoked.
    JOIN_TOKEN_SPENT = "E_JOIN_TOKEN_SPENT", Precondition;
    /// The join-token is wrong, was used, was revoked or has expired: which is told to the ledger only.
    JOIN_TOKEN_INVALID = "E_JOIN_TOKEN_INVALID", Unauthenticated;
    /// The certificate request is not one.
    CSR = "E_CSR", Invalid;
    /// The certificate is not the host's, was revoked or ended too long ago.
    CERTIFICATE = "E_CERTIFICATE", Unauthenticated;
    /// There is no such api-token.
    API_TOKEN_NOT_FOUND = "E_API_TOKEN_NOT_FOUND", NotFound;
    /// The api-token was revoked before.
    API_TOKEN_REVOKED = "E_API_TOKEN_REVOKED", Precondition;
    /// There is no such app.
    APP_NOT_FOUND = "E_APP_NOT_FOUND", NotFound;
    /// The app has no such tests.
    TESTS_NOT_FOUND = "E_TESTS_NOT_FOUND", NotFound;
    /// The app has no repository.
    NO_REPOSITORY = "E_NO_REPOSITORY", Precondition;
    /// The app has no such target.
    TARGET_NOT_FOUND = "E_TARGET_NOT_FOUND", NotFound;
    /// The target is locked.
    TARGET_LOCKED = "E_TARGET_LOCKED", Precondition;
    /// There is no such build.
    BUILD_NOT_FOUND = "E_BUILD_NOT_FOUND", NotFound;
    /// There is no such release.
    RELEASE_NOT_FOUND = "E_RELEASE_NOT_FOUND", NotFound;
    /// There is no such environment.
    ENV_NOT_FOUND = "E_ENV_NOT_FOUND", NotFound;
    /// The owner has an environment of this name, and it is another.
    ENV_EXISTS = "E_ENV_EXISTS", Exists;
    /// The environment belongs to a run.
    ENV_OF_RUN = "E_ENV_OF_RUN", Precondition;
    /// The environment has no such service, or not of the needed kind.
    ENV_SERVICE = "E_ENV_SERVICE", NotFound;
    /// Too many tunnels wait, or nobody waits for this one.
    TUNNELS = "E_TUNNELS", Unavailable;
    /// The owner holds as many environments as a developer may.
    QUOTA_ENVIRONMENTS = "E_QUOTA_ENVIRONMENTS", Exhausted;
    /// The owner's environments have as much memory as a developer's may.
    QUOTA_MEMORY = "E_QUOTA_MEMORY", Exhausted;
    /// The environment, or its owner, holds as much disk as it may.
    QUOTA_DISK = "E_QUOTA_DISK", Exhausted;
    /// The policy of the host allows no more.
    QUOTA_HOST = "E_QUOTA_HOST", Exhausted;
    /// No host can take the environment.
    ENV_NO_HOST = "E_ENV_NO_HOST", Precondition;
    /// No host can take the environment now: the container engine does not answer.
    ENV_ENGINE_AWAY = "E_ENV_ENGINE_AWAY", Unavailable;
    /// The environment is not up.
    ENV_NOT_UP = "E_ENV_NOT_UP", Precondition;
    /// Nothing is kept of the environment's data before its last reset.
    ENV_NO_UNDO = "E_ENV_NO_UNDO", Precondition;
    /// The environment began with empty data: there is nothing to compare with.
    DIFF_NO_SEED = "E_DIFF_NO_SEED", Precondition;
    /// The environment's folder is not an uploaded one.
    SYNC_SOURCE = "E_SYNC_SOURCE", Precondition;
    /// There is no such seed or snapshot.
    SEED_UNKNOWN = "E_SEED_UNKNOWN", NotFound;
    /// There is a seed of this name and version, or a snapshot of this name of the caller's.
    SEED_EXISTS = "E_SEED_EXISTS", Exists;
    /// The seed is not ready, or not in a state for this.
    SEED_STATE = "E_SEED_STATE", Precondition;
    /// Environments began with the seed.
    SEED_IN_USE = "E_SEED_IN_USE", Precondition;
    /// The seed lies on another host.
    SEED_ELSEWHERE = "E_SEED_ELSEWHERE", Precondition;
    /// A chunk of a seed does not fit its hash, or is not in the store.
    SEED_CHUNK = "E_SEED_CHUNK", Precondition;
    /// A seed's index is malformed, or chunks that it names are missing.
    SEED_INDEX = "E_SEED_INDEX", Precondition;
    /// The host has no order to move that seed.
    SEED_NOT_ORDERED = "E_SEED_NOT_ORDERED", Precondition;
    /// An input is for a service that the stack does not have.
    SEED_SERVICE = "E_SEED_SERVICE", Invalid;
    /// A service cannot be fed with this format.
    SEED_FORMAT = "E_SEED_FORMAT", Invalid;
    /// The coordinator's disk has too little room.
    NO_ROOM = "E_ARTIFACTS_FULL", Exhausted;
    /// There is no such run.
    RUN_NOT_FOUND = "E_RUN_NOT_FOUND", NotFound;
    /// The run has ended.
    RUN_ENDED = "E_RUN_ENDED", Precondition;
    /// There is no such rollout.
    ROLLOUT_NOT_FOUND = "E_ROLLOUT_NOT_FOUND", NotFound;
    /// The rollout has ended.
    ROLLOUT_ENDED = "E_ROLLOUT_ENDED", Precondition;
    /// The rollout cannot do this in its state.
    ROLLOUT_STATE = "E_ROLLOUT_STATE", Precondition;
    /// Preflight says why it would not start.
    ROLLOUT_PREFLIGHT = "E_ROLLOUT_PREFLIGHT", Precondition;
    /// There is nothing to go back to.
    NO_PREVIOUS = "E_NO_PREVIOUS", Precondition;
    /// The artifact is not in the store.
    ARTIFACT_NOT_FOUND = "E_ARTIFACT_NOT_FOUND", NotFound;
    /// The log is not there.
    LOG_NOT_FOUND = "E_LOG_NOT_FOUND", NotFound;
    /// The host refused to give the log.
    LOG_REFUSED = "E_LOG_REFUSED", Precondition;

    /// No api-token or certificate, or not a good one.
    UNAUTHENTICATED = "E_UNAUTHENTICATED", Unauthenticated;
    /// The role, scope or owner does not allow it.
    PERMISSION_DENIED = "E_PERMISSION_DENIED", Denied;
    /// An agent that has seen a newer coordinator, or a newer state of this one.
    STALE_COORDINATOR = "E_STALE_COORDINATOR", Precondition;
    /// A newer session of the host took over.
    SESSION_REPLACED = "E_SESSION_REPLACED", Aborted;
    /// The agent reads too slowly, or sends what no agent sends.
    SESSION_PROTOCOL = "E_SESSION_PROTOCOL", Invalid;
    /// The coordinator stops.
    STOPPING = "E_STOPPING", Unavailable;
    /// Somebody else changed it at the same time.
    CONFLICT = "E_CONFLICT", Aborted;
    /// It was made at the same time.
    EXISTS = "E_EXISTS", Exists;
    /// This coordinator does not lead.
    NOT_LEADER = "E_NOT_LEADER", Unavailable;
    /// The store did not answer.
    STORE_UNAVAILABLE = "E_STORE_UNAVAILABLE", Unavailable;
    /// The store's disk is full.
    STORE_FULL = "E_STORE_FULL", Exhausted;
    /// A bug, or a damaged store; the coordinator's log says more.
    INTERNAL = "E_INTERNAL", Internal;
}

/// A refused call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Reason code and kind.
    pub code: Code,
    /// A finer code to be told in place of the general one: `E_MANIFEST_RANGE`.
    pub detail: Option<&'static str>,
    /// What happened to what, and what to do.
    pub text: String,
}

/// What a call returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with its text.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, detail: None, text: text.into() }
    }

    /// An error with a finer code than the general one.
    pub fn detailed(code: Code, detail: &'static str, text: impl Into<String>) -> Self {
        Self { code, detail: Some(detail), text: text.into() }
    }

    /// A failure that says nothing to the outside; `why` goes to the coordinator's log.
    pub fn internal(why: impl fmt::Display) -> Self {
        tracing::error!(%why, "internal error");
        Self::new(Code::INTERNAL, "the coordinator failed; its log says more")
    }

    /// The code that programs see.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.detail.unwrap_or(self.code.code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason(), self.text)
    }
}

impl std::error::Error for Error {}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        match &error {
            E::Conflict { .. } => Self::new(Code::CONFLICT, format!("{error}")),
            E::Exists { .. } => Self::new(Code::EXISTS, format!("{error}")),
            E::NotLeader { .. } => Self::new(Code::NOT_LEADER, format!("{error}")),
            E::Unavailable { .. } => Self::new(Code::STORE_UNAVAILABLE, format!("{error}")),
            E::Full { .. } => Self::new(Code::STORE_FULL, format!("{error}")),
            E::Unstorable { .. } => Self::new(Code::FIELD, format!("{error}")),
            _ => Self::internal(&error),
        }
    }
}

impl From<domain::name::NameError> for Error {
    fn from(error: domain::name::NameError) -> Self {
        let code = if error.what.starts_with("target (") { Code::TARGET_REF } else { Code::NAME };
        Self::new(code, error.to_string())
    }
}

impl From<domain::ids::ParseIdError> for Error {
    fn from(error: domain::ids::ParseIdError) -> Self {
        Self::new(Code::ID, error.to_string())
    }
}

impl From<domain::release::CommitError> for Error {
    fn from(error: domain::release::CommitError) -> Self {
        Self::new(Code::COMMIT, error.to_string())
    }
}

impl From<domain::authorize::Denied> for Error {
    fn from(denied: domain::authorize::Denied) -> Self {
        Self::new(Code::PERMISSION_DENIED, denied.to_string())
    }
}

impl From<proto::convert::Error> for Error {
    fn from(error: proto::convert::Error) -> Self {
        Self::new(Code::FIELD, error.to_string())
    }
}
