"""Makes or completes the tables: `python -m bot.migrate`. Doing it twice changes nothing."""

import asyncio

import asyncpg

from bot import config, store


async def main():
    connection = await asyncpg.connect(config.load().database_url, timeout=10)
    try:
        await store.migrate(connection)
    finally:
        await connection.close()
    print("bot.migrate: done")


if __name__ == "__main__":
    asyncio.run(main())
