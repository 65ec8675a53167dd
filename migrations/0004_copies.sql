-- Copies of seeds on other hosts and in the coordinator's store, and the chunks that the store has.

CREATE TABLE seed_copies (
    seed TEXT NOT NULL,
    -- A host's id, or `store`.
    place TEXT NOT NULL,
    project TEXT NOT NULL,
    -- The host that has to do something for it.
    host TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    pending SMALLINT NOT NULL,
    reason_code TEXT,
    reason_text TEXT,
    detail TEXT NOT NULL,
    -- Of the store: SHA-256 of the seed's index.
    seed_index TEXT,
    moved BIGINT NOT NULL,
    took BIGINT,
    created_at BIGINT NOT NULL,
    row_version BIGINT NOT NULL,
    PRIMARY KEY (seed, place)
);
CREATE INDEX seed_copies_pending ON seed_copies (host) WHERE pending = 1;

-- Objects of the store with some chunks each.
CREATE TABLE chunk_segments (
    segment TEXT NOT NULL PRIMARY KEY,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE chunks (
    hash TEXT NOT NULL PRIMARY KEY,
    segment TEXT NOT NULL,
    -- Where it begins in the segment, and how many bytes it has there.
    begins BIGINT NOT NULL,
    length BIGINT NOT NULL,
    -- It is compressed.
    packed SMALLINT NOT NULL
);
CREATE INDEX chunks_segment ON chunks (segment);
-- Seeds that need a segment.
CREATE TABLE chunk_refs (
    seed TEXT NOT NULL,
    segment TEXT NOT NULL,
    PRIMARY KEY (seed, segment)
);
CREATE INDEX chunk_refs_segment ON chunk_refs (segment);
