"""History in PostgreSQL, session counters in Redis."""

import asyncpg
import redis.asyncio as redis

SESSIONS = "messages"
SESSION_SECONDS = 3600
SCHEMA_LOCK = 7_261_001

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author  TEXT NOT NULL,
    body    TEXT NOT NULL,
    reply   TEXT NOT NULL,
    release TEXT NOT NULL,
    sent_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS messages_by_author ON messages (author, id);
CREATE TABLE IF NOT EXISTS scheduler_runs (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host       TEXT NOT NULL,
    release    TEXT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    last_seen  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    stopped_at TIMESTAMPTZ
);
"""


class ProgrammingError(Exception):
    """The code and the database disagree."""


async def migrate(connection):
    """Makes the tables. Safe to run at once from many hosts, and again."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
        await connection.execute(SCHEMA)


class Store:
    def __init__(self, pool, sessions):
        self.pool = pool
        self.sessions = sessions

    @classmethod
    async def open(cls, config):
        pool = await asyncpg.create_pool(config.database_url, min_size=1, max_size=4, timeout=5, command_timeout=10)
        try:
            async with pool.acquire() as connection:
                await migrate(connection)
        except BaseException:
            pool.terminate()
            raise
        sessions = redis.from_url(config.redis_url, socket_timeout=5, socket_connect_timeout=5, decode_responses=True)
        return cls(pool, sessions)

    async def close(self):
        self.pool.terminate()
        await self.sessions.close()

    async def check(self):
        """Raises unless both stores answer and the tables are as this code needs them."""
        try:
            await self.pool.fetchval(f"SELECT count(*) FROM (SELECT FROM {SESSIONS} LIMIT 1) AS one")
        except asyncpg.UndefinedTableError:
            raise ProgrammingError(f"no such table: {SESSIONS}") from None
        await self.sessions.ping()

    async def count_session(self, user):
        """How many messages the user has sent in this session, with the one at hand."""
        key = f"session:{user}"
        async with self.sessions.pipeline(transaction=True) as pipe:
            count, _ = await pipe.incr(key).expire(key, SESSION_SECONDS).execute()
        return count

    async def add(self, user, text, answer, release):
        return await self.pool.fetchval(
            "INSERT INTO messages (author, body, reply, release) VALUES ($1, $2, $3, $4) RETURNING id",
            user, text, answer, release,
        )

    async def history(self, user, limit):
        """The user's last `limit` messages, oldest first."""
        rows = await self.pool.fetch(
            "SELECT id, body AS text, reply, release FROM messages WHERE author = $1 ORDER BY id DESC LIMIT $2",
            user, limit,
        )
        return [dict(row) for row in reversed(rows)]
