-- The coordinator's schema, for SQLite and PostgreSQL alike: TEXT ids, BIGINT microseconds since 1970, SMALLINT flags,
-- JSON text for leaf values only. Everything has a project; what somebody made has a principal.

-- Facts about the cluster: incarnation, incarnation_id, min_reader, clean_stop, and what the coordinator notes.
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
-- The oldest schema that a binary must know to work on this one.
INSERT INTO meta (key, value) VALUES ('min_reader', '1');

-- Changes only at a start or take-over: the fence that every write checks.
CREATE TABLE leader_epoch (
    id BIGINT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    address TEXT NOT NULL,
    epoch BIGINT NOT NULL
);
INSERT INTO leader_epoch (id, holder, address, epoch) VALUES (1, '', '', 0);

-- Touched at each renewal. A table of its own: one row would make the leader's renewals wait for its own writes.
CREATE TABLE leader_renewal (
    id BIGINT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
INSERT INTO leader_renewal (id, epoch, expires_at) VALUES (1, 0, 0);

-- The ledger's counter: locked by the event's own transaction, so that order is commit order.
CREATE TABLE ledger (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);
INSERT INTO ledger (id, seq) VALUES (1, 0);

CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    project TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    principal TEXT,
    actor_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    noun TEXT NOT NULL,
    subject TEXT NOT NULL,
    scope TEXT NOT NULL,
    message TEXT NOT NULL,
    reason TEXT NOT NULL
);
CREATE INDEX events_happened_at ON events (happened_at);
CREATE INDEX events_scope ON events (project, scope, seq);

CREATE TABLE principals (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, name)
);

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    created_by TEXT,
    secret TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX api_tokens_project ON api_tokens (project, created_at);

CREATE TABLE join_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    host_name TEXT NOT NULL,
    labels TEXT NOT NULL,
    secret TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_by TEXT,
    used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX join_tokens_project ON join_tokens (project, created_at);

CREATE TABLE hosts (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT,
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    draining SMALLINT NOT NULL,
    facts TEXT NOT NULL,
    joined_at BIGINT NOT NULL,
    seen_at BIGINT,
    liveness TEXT NOT NULL,
    since BIGINT NOT NULL,
    certificate_serial TEXT,
    certificate_fingerprint TEXT,
    certificate_not_after BIGINT,
    certificate_revoked SMALLINT NOT NULL,
    version BIGINT NOT NULL,
    UNIQUE (project, name)
);

CREATE TABLE apps (
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    principal TEXT NOT NULL,
    definition TEXT NOT NULL,
    manifest TEXT NOT NULL,
    repository TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE targets (
    project TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    release_id TEXT,
    since BIGINT NOT NULL,
    PRIMARY KEY (project, app, target)
);

CREATE TABLE locks (
    project TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    principal TEXT,
    holder TEXT NOT NULL,
    reason TEXT NOT NULL,
    ends_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, app, target)
);

-- What a host has of a target: the highest generation ever ordered, and what its agent told last.
CREATE TABLE members (
    project TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    host TEXT NOT NULL,
    generation BIGINT NOT NULL,
    report TEXT,
    reported_at BIGINT,
    PRIMARY KEY (project, app, target, host)
);
CREATE INDEX members_host ON members (host);

CREATE TABLE configs (
    project TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    revision BIGINT NOT NULL,
    principal TEXT NOT NULL,
    settings TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, app, target, revision)
);

CREATE TABLE builds (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    app TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    processes TEXT NOT NULL,
    image_reference TEXT,
    image_archive TEXT,
    image_archive_bytes BIGINT NOT NULL,
    image_config_digest TEXT,
    image_platform TEXT NOT NULL,
    manifest TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX builds_app ON builds (project, app, created_at);

CREATE TABLE releases (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    number BIGINT NOT NULL,
    build TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    image_reference TEXT,
    image_archive TEXT,
    image_archive_bytes BIGINT NOT NULL,
    image_config_digest TEXT,
    image_platform TEXT NOT NULL,
    processes TEXT NOT NULL,
    expose TEXT NOT NULL,
    config_revision BIGINT NOT NULL,
    settings TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, app, target, number),
    UNIQUE (project, app, target, digest)
);

CREATE TABLE environments (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    app TEXT,
    host TEXT NOT NULL,
    run TEXT,
    file TEXT NOT NULL,
    stack_file TEXT NOT NULL,
    variables TEXT NOT NULL,
    env_files TEXT NOT NULL,
    source TEXT NOT NULL,
    source_grant TEXT,
    generation BIGINT NOT NULL,
    wanted TEXT NOT NULL,
    observed_generation BIGINT NOT NULL,
    observed_state TEXT NOT NULL,
    reason_code TEXT,
    reason_text TEXT,
    services TEXT NOT NULL,
    notices TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    gone_at BIGINT,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX environments_name ON environments (project, principal, name) WHERE gone_at IS NULL;
CREATE INDEX environments_host ON environments (host);

CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    app TEXT NOT NULL,
    tests TEXT NOT NULL,
    build TEXT,
    commit_id TEXT NOT NULL,
    repository TEXT NOT NULL,
    manifest TEXT NOT NULL,
    host TEXT,
    environment TEXT,
    state TEXT NOT NULL,
    finished SMALLINT NOT NULL,
    cancel SMALLINT NOT NULL,
    verdict TEXT,
    reason_code TEXT,
    reason_text TEXT,
    exit_code BIGINT,
    report TEXT,
    detail TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    assigned_at BIGINT,
    first_line_at BIGINT,
    finished_at BIGINT,
    took BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX runs_app ON runs (project, app, created_at);
CREATE INDEX runs_open ON runs (created_at) WHERE finished = 0;

-- The frozen plan, and how far it is.
CREATE TABLE rollouts (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    app TEXT NOT NULL,
    target TEXT NOT NULL,
    reverts TEXT,
    release_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    policy TEXT NOT NULL,
    from_release TEXT,
    message TEXT NOT NULL,
    unlocked SMALLINT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    state TEXT NOT NULL,
    active SMALLINT NOT NULL,
    turning SMALLINT NOT NULL,
    reason_code TEXT,
    reason_detail TEXT,
    reason_text TEXT,
    interrupted TEXT,
    holders TEXT NOT NULL,
    cancel_asked SMALLINT NOT NULL,
    supersede_asked SMALLINT NOT NULL,
    asked_by TEXT NOT NULL,
    wave BIGINT NOT NULL,
    progress_at BIGINT,
    progress_left BIGINT,
    bake_until BIGINT,
    version BIGINT NOT NULL
);
-- At most one rollout holds a target.
CREATE UNIQUE INDEX rollouts_active ON rollouts (project, app, target) WHERE active = 1;
CREATE INDEX rollouts_turning ON rollouts (created_at) WHERE turning = 1;
CREATE INDEX rollouts_target ON rollouts (project, app, target, created_at);

CREATE TABLE rollout_steps (
    rollout TEXT NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    ordinal BIGINT NOT NULL,
    project TEXT NOT NULL,
    member TEXT NOT NULL,
    executor TEXT NOT NULL,
    name TEXT NOT NULL,
    wave BIGINT NOT NULL,
    processes TEXT NOT NULL,
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    unknown_since BIGINT,
    generation BIGINT NOT NULL,
    ordered TEXT NOT NULL,
    ordered_release TEXT,
    attempt BIGINT NOT NULL,
    previous TEXT NOT NULL,
    previous_release TEXT,
    failed SMALLINT NOT NULL,
    undone BIGINT NOT NULL,
    converging SMALLINT NOT NULL,
    failure TEXT,
    staged BIGINT,
    warm BIGINT,
    switched BIGINT,
    checked BIGINT,
    confirmed BIGINT,
    reverted_in BIGINT,
    healthy_since BIGINT,
    touched_at BIGINT,
    PRIMARY KEY (rollout, ordinal)
);
CREATE INDEX rollout_steps_member ON rollout_steps (member);

CREATE TABLE artifacts (
    digest TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE artifact_refs (
    noun TEXT NOT NULL,
    id TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (noun, id, digest)
);
CREATE INDEX artifact_refs_digest ON artifact_refs (digest);

CREATE TABLE log_segments (
    log TEXT NOT NULL,
    first_byte BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    project TEXT NOT NULL,
    path TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (log, first_byte)
);

CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    method TEXT NOT NULL,
    key TEXT NOT NULL,
    project TEXT NOT NULL,
    body TEXT NOT NULL,
    created TEXT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (principal, method, key)
);
CREATE INDEX idempotency_used_at ON idempotency (used_at);

-- Sealed by the coordinator's key file before they come here.
CREATE TABLE secrets (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    project TEXT NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
