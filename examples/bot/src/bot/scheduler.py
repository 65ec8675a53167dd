"""What must run once in the fleet: `python -m bot.scheduler`.

It leaves a row per run in scheduler_runs, with the database's own clock, so that anybody can see
whether two ever ran at once: `python -m bot.scheduler --check` prints such pairs and then exits 1.
"""

import asyncio
import logging
import signal
import sys

import asyncpg

from bot import config
from bot.store import migrate

log = logging.getLogger("bot.scheduler")
BEAT_SECONDS = 0.2
CONNECT_SECONDS = 10
LOST = (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

# A run that was killed has no stopped_at; it lived at least until it was last seen.
OVERLAPS = """
SELECT a.id AS first, b.id AS second, a.host AS first_host, b.host AS second_host
FROM scheduler_runs a JOIN scheduler_runs b ON a.id < b.id
WHERE a.started_at < COALESCE(b.stopped_at, b.last_seen) AND b.started_at < COALESCE(a.stopped_at, a.last_seen)
ORDER BY 1, 2
"""


async def connect(settings, stop):
    """Waits for the database, but not for long, and not at all when asked to stop."""
    end = asyncio.get_running_loop().time() + CONNECT_SECONDS
    while True:
        try:
            return await asyncpg.connect(settings.database_url, timeout=5, command_timeout=5)
        except LOST as error:
            if stop.is_set() or asyncio.get_running_loop().time() > end:
                raise
            log.warning("cannot reach the database: %s", error)
            await asyncio.sleep(0.3)


async def run():
    settings = config.load()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = await connect(settings, stop)
    await migrate(connection)
    row = await connection.fetchval(
        "INSERT INTO scheduler_runs (host, release) VALUES ($1, $2) RETURNING id", settings.host, settings.release
    )
    log.info("run %s on %s, release %s", row, settings.host, settings.release)

    async def write(column):
        nonlocal connection
        statement = f"UPDATE scheduler_runs SET {column} = clock_timestamp() WHERE id = $1"
        try:
            await connection.execute(statement, row)
        except LOST as error:
            log.warning("lost the database: %s", error)
            connection.terminate()
            connection = await connect(settings, stop)
            await connection.execute(statement, row)

    while not stop.is_set():
        await write("last_seen")
        try:
            await asyncio.wait_for(stop.wait(), BEAT_SECONDS)
        except asyncio.TimeoutError:
            pass
    await write("stopped_at")
    await connection.close()
    log.info("run %s stopped", row)


async def check():
    connection = await asyncpg.connect(config.load().database_url, timeout=5)
    await migrate(connection)
    runs = await connection.fetchval("SELECT count(*) FROM scheduler_runs")
    pairs = await connection.fetch(OVERLAPS)
    await connection.close()
    for pair in pairs:
        print("run {first} on {first_host} and run {second} on {second_host} overlap".format(**dict(pair)))
    print(f"{runs} runs, {len(pairs)} overlaps")
    return 1 if pairs else 0


def main():
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    if sys.argv[1:] == ["--check"]:
        sys.exit(asyncio.run(check()))
    asyncio.run(run())


if __name__ == "__main__":
    main()
