-- Seeds and snapshots, and what the data of environments began with.

CREATE TABLE seeds (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL,
    principal TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    snapshot SMALLINT NOT NULL,
    -- Within what its name is unique: its owner for a snapshot, nothing for a seed.
    namespace TEXT NOT NULL,
    app TEXT,
    environment TEXT,
    host TEXT NOT NULL,
    inputs TEXT NOT NULL,
    state TEXT NOT NULL,
    -- Its host has something to do for it.
    pending SMALLINT NOT NULL,
    reason_code TEXT,
    reason_text TEXT,
    detail TEXT NOT NULL,
    digest TEXT,
    parts TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    canaries BIGINT NOT NULL,
    masked SMALLINT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    took BIGINT,
    frozen BIGINT,
    row_version BIGINT NOT NULL
);
CREATE UNIQUE INDEX seeds_name ON seeds (project, snapshot, namespace, name, version) WHERE ended_at IS NULL;
CREATE INDEX seeds_pending ON seeds (host) WHERE pending = 1;

-- One row beside that of an environment, once its data has something to tell.
CREATE TABLE environment_data (
    environment TEXT NOT NULL PRIMARY KEY,
    data_seed TEXT,
    data_address TEXT NOT NULL,
    data_digest TEXT,
    data_from TEXT NOT NULL,
    data_epoch BIGINT NOT NULL,
    data_line TEXT NOT NULL,
    data_own BIGINT NOT NULL,
    data_shared BIGINT NOT NULL,
    data_kept TEXT NOT NULL
);
CREATE INDEX environment_data_seed ON environment_data (data_seed);
