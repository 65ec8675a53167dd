-- The stack of an environment with its variables and files, sealed by the coordinator's key file. Where it counts, stack_file
-- is empty: a binary before this one writes that, and what it wrote is newer then.
ALTER TABLE environments ADD COLUMN sealed BYTEA;
