-- The seed that a run's environment began with.
ALTER TABLE runs ADD COLUMN seed TEXT;
ALTER TABLE runs ADD COLUMN seed_address TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN seed_digest TEXT;
