"""The tables of a cluster in PostgreSQL, and how an older database is brought to this version.

All of it is in the schema `heygen`, the engine's tables in `heygen_engine`: dropping both removes a cluster. Times are
Unix times in seconds, by the clock of the database.

Rule 1: a migration is one step from one version to the next, in a transaction and under a lock.
Rule 2: neither the API key nor a signed link has a column here.
"""

from __future__ import annotations

from typing import Final, LiteralString

SCHEMA: Final = "heygen"
ENGINE_SCHEMA: Final = "heygen_engine"
CHANNEL: Final = "heygen_cluster"
"""What is notified: `ACCOUNT` when its rows have changed, `0` when runs have, `job ID` when a webhook arrived."""

_FIRST: Final[LiteralString] = """
CREATE FUNCTION unix_time() RETURNS double precision LANGUAGE sql VOLATILE
    AS $$ SELECT extract(epoch FROM clock_timestamp())::double precision $$;

CREATE TABLE accounts (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    origin text NOT NULL,
    name text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    holder text,
    until double precision NOT NULL DEFAULT 0,
    limiter jsonb NOT NULL DEFAULT '{}',
    halted text,
    trouble text,
    next_request double precision NOT NULL DEFAULT 0,
    UNIQUE (origin, name)
);
CREATE TABLE facts (
    account integer NOT NULL REFERENCES accounts, name text, value text NOT NULL, PRIMARY KEY (account, name)
);
CREATE TABLE assets (
    account integer NOT NULL REFERENCES accounts, digest text, asset_id text NOT NULL, PRIMARY KEY (account, digest)
);
CREATE TABLE listed (
    account integer NOT NULL REFERENCES accounts, lipsync_id text, callback_id text NOT NULL,
    PRIMARY KEY (account, lipsync_id)
);
CREATE INDEX listed_by_callback ON listed (account, callback_id);

CREATE TABLE runs (
    id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    origin text NOT NULL,
    name text NOT NULL,
    account integer REFERENCES accounts,
    options jsonb NOT NULL,
    spent double precision NOT NULL DEFAULT 0,
    longest double precision NOT NULL DEFAULT 0,
    created double precision NOT NULL DEFAULT unix_time(),
    UNIQUE (origin, name)
);
CREATE TABLE rows (
    run integer NOT NULL REFERENCES runs ON DELETE CASCADE,
    key text NOT NULL,
    number integer NOT NULL,
    version bigint NOT NULL,
    token text,
    stage text NOT NULL,
    is_held boolean NOT NULL DEFAULT false,
    resend boolean NOT NULL DEFAULT false,
    due double precision NOT NULL DEFAULT 0,
    deferred double precision,
    holder text,
    fresh boolean NOT NULL DEFAULT false,
    answer text,
    retry_after double precision,
    epoch bigint NOT NULL DEFAULT 0,
    price double precision NOT NULL DEFAULT 0,
    reserved boolean NOT NULL DEFAULT false,
    lipsync_id text,
    asked_at double precision,
    changed double precision NOT NULL DEFAULT unix_time(),
    prepared jsonb NOT NULL,
    unanswered integer[] NOT NULL DEFAULT '{0,-1}',
    record jsonb NOT NULL,
    PRIMARY KEY (run, key)
) WITH (fillfactor = 70);
CREATE INDEX rows_by_number ON rows (run, number);
CREATE INDEX rows_ready ON rows (resend DESC, run, number) WHERE stage = 'ready' AND NOT is_held;
CREATE INDEX rows_to_prepare ON rows (run, number) WHERE stage = 'prepare' AND NOT is_held;
CREATE INDEX rows_busy ON rows (run, stage) WHERE stage IN ('create', 'flight');
CREATE INDEX rows_at_work ON rows (run, due) WHERE stage IN ('prepare', 'create', 'search', 'download');
CREATE INDEX rows_reserved ON rows (run) WHERE reserved;
CREATE INDEX rows_answered ON rows (run) WHERE answer IS NOT NULL;
CREATE INDEX rows_held_by ON rows (holder) WHERE holder IS NOT NULL;
CREATE INDEX rows_by_job ON rows (lipsync_id) WHERE lipsync_id IS NOT NULL;
CREATE INDEX rows_in_doubt ON rows (run) WHERE resend;

CREATE FUNCTION count_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs SET spent = spent + NEW.price - OLD.price WHERE id = NEW.run;
    RETURN NULL;
END $$;
CREATE TRIGGER rows_price AFTER UPDATE OF price ON rows
    FOR EACH ROW WHEN (NEW.price IS DISTINCT FROM OLD.price) EXECUTE FUNCTION count_price();

CREATE TABLE claims (
    claim text PRIMARY KEY, run integer NOT NULL REFERENCES runs ON DELETE CASCADE, key text NOT NULL,
    place text NOT NULL
);
CREATE INDEX claims_of_row ON claims (run, key);
CREATE TABLE files (
    path text PRIMARY KEY, fingerprint text NOT NULL, digest text NOT NULL, seconds double precision
);
CREATE TABLE workers (
    name text PRIMARY KEY,
    account integer NOT NULL REFERENCES accounts,
    host text NOT NULL,
    process integer NOT NULL,
    pid integer NOT NULL,
    beat double precision NOT NULL,
    started double precision NOT NULL DEFAULT unix_time(),
    rests_until double precision NOT NULL DEFAULT 0
);
"""

_SECOND: Final[LiteralString] = f"""
-- A job that rows of several runs share, because their key and inputs are the same, is paid for once.
ALTER TABLE rows ADD COLUMN counted double precision NOT NULL DEFAULT 0;
UPDATE rows SET counted = price WHERE price <> 0;
DROP TRIGGER rows_price ON rows;
DROP FUNCTION count_price();

CREATE FUNCTION count_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.counted := NEW.price;
    IF NEW.price <> 0 AND NEW.lipsync_id IS NOT NULL THEN
        -- One of two that get the same job at the same moment sees the other.
        PERFORM pg_advisory_xact_lock(hashtextextended(NEW.lipsync_id, 0));
        IF EXISTS (
            SELECT 1 FROM {SCHEMA}.rows
            WHERE lipsync_id = NEW.lipsync_id AND counted <> 0 AND (run, key) <> (NEW.run, NEW.key)
        ) THEN
            NEW.counted := 0;
        END IF;
    END IF;
    UPDATE {SCHEMA}.runs SET spent = spent + NEW.counted - OLD.counted
    WHERE id = NEW.run AND NEW.counted <> OLD.counted;
    RETURN NEW;
END $$;
CREATE TRIGGER rows_price BEFORE UPDATE OF price, lipsync_id ON rows FOR EACH ROW
    WHEN (NEW.price <> OLD.price OR NEW.lipsync_id IS DISTINCT FROM OLD.lipsync_id)
    EXECUTE FUNCTION count_price();
"""  # noqa: S608 a name of ours

_THIRD: Final[LiteralString] = """
-- Callback ids and paths may be longer than an ordered index takes; those in the list are of anybody.
DROP INDEX listed_by_callback;
CREATE INDEX listed_by_callback ON listed USING hash (callback_id);
ALTER TABLE claims DROP CONSTRAINT claims_pkey;
ALTER TABLE claims ADD CONSTRAINT claims_once EXCLUDE USING hash (claim WITH =);
-- Without a primary key nothing could be deleted where all tables of a database are replicated.
ALTER TABLE claims ADD COLUMN id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY;
-- As the rows that claim them, until their enqueue comes to its end.
ALTER TABLE claims ADD COLUMN is_held boolean NOT NULL DEFAULT false;
-- What rows that are stored already become when their enqueue comes to its end.
CREATE TABLE changes (
    run integer NOT NULL REFERENCES runs ON DELETE CASCADE, key text, change jsonb NOT NULL, PRIMARY KEY (run, key)
);
"""

MIGRATIONS: Final[tuple[LiteralString, ...]] = (_FIRST, _SECOND, _THIRD)
"""The steps from each version to the next; version 0 is an empty schema."""

VERSION: Final = len(MIGRATIONS)
