import asyncio

import asyncpg
from conftest import needs_database, needs_redis

from bot import config, scheduler, store


def with_store(scenario):
    async def run():
        opened = await store.Store.open(config.load())
        try:
            return await scenario(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


@needs_database
def test_order_is_kept(user):
    async def scenario(opened):
        for number in range(5):
            await opened.add(user, f"message {number}", "ok", "dev")
        return await opened.history(user, 3)

    assert [m["text"] for m in with_store(scenario)] == ["message 2", "message 3", "message 4"]


@needs_database
def test_users_do_not_see_each_other(user):
    async def scenario(opened):
        await opened.add(user, "mine", "ok", "dev")
        return await opened.history(user + "-other", 10)

    assert with_store(scenario) == []


@needs_database
def test_migrating_at_once_from_many_places_is_safe():
    async def run():
        connections = await asyncio.gather(*(asyncpg.connect(config.load().database_url) for _ in range(4)))
        await asyncio.gather(*(store.migrate(c) for c in connections))
        tables = await connections[0].fetchval("SELECT count(*) FROM information_schema.tables WHERE table_name = 'messages'")
        for connection in connections:
            await connection.close()
        return tables

    assert asyncio.run(run()) == 1


@needs_redis
@needs_database
def test_sessions_count_messages(user):
    async def scenario(opened):
        return [await opened.count_session(user) for _ in range(3)]

    assert with_store(scenario) == [1, 2, 3]


@needs_database
def test_overlapping_scheduler_runs_are_found():
    async def run():
        connection = await asyncpg.connect(config.load().database_url)
        await store.migrate(connection)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM scheduler_runs")
        await connection.execute(
            """INSERT INTO scheduler_runs (host, release, started_at, last_seen, stopped_at) VALUES
               ('a', '1', '2026-01-01 10:00Z', '2026-01-01 11:00Z', '2026-01-01 11:00Z'),
               ('b', '1', '2026-01-01 11:00Z', '2026-01-01 12:00Z', NULL),
               ('c', '2', '2026-01-01 11:30Z', '2026-01-01 13:00Z', NULL)"""
        )
        pairs = await connection.fetch(scheduler.OVERLAPS)
        await transaction.rollback()
        await connection.close()
        return [(pair["first_host"], pair["second_host"]) for pair in pairs]

    assert asyncio.run(run()) == [("b", "c")]
