-- How environments are used, when they end, and what is to be restarted in them.
ALTER TABLE environments ADD COLUMN last_used_at BIGINT;
ALTER TABLE environments ADD COLUMN why TEXT NOT NULL DEFAULT '';
ALTER TABLE environments ADD COLUMN memory_bytes BIGINT NOT NULL DEFAULT 0;
-- Microseconds; NULL: it does not end by itself.
ALTER TABLE environments ADD COLUMN ttl BIGINT;
ALTER TABLE environments ADD COLUMN keep_until BIGINT;
-- The end that was warned of, and when.
ALTER TABLE environments ADD COLUMN warned_of BIGINT;
ALTER TABLE environments ADD COLUMN warned_at BIGINT;
-- Service -> the generation that asked for it.
ALTER TABLE environments ADD COLUMN restarts TEXT NOT NULL DEFAULT '{}';
ALTER TABLE environments ADD COLUMN rebuilds TEXT NOT NULL DEFAULT '{}';
