import asyncio

from aiohttp import WSCloseCode, WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from conftest import needs_database, needs_redis

from bot import web


def with_client(scenario, connect=False, **env):
    """Runs the scenario against a server in this process."""
    import os

    async def run():
        bot = web.Bot({**os.environ, **env})
        if connect:
            await bot.connect()
        async with TestClient(TestServer(bot.application())) as client:
            try:
                return await scenario(client, bot)
            finally:
                if bot.store:
                    await bot.store.close()

    return asyncio.run(run())


def test_a_bad_setting_fails_health_and_says_which():
    async def scenario(client, _bot):
        answer = await client.get("/health")
        return answer.status, (await answer.json())["error"]

    status, error = with_client(scenario, HISTORY_LIMIT="many")
    assert status == 500
    assert error == 'HISTORY_LIMIT must be an integer, not "many"'


def test_every_response_names_its_release():
    async def scenario(client, _bot):
        return [(await client.get(path)).headers["X-Release"] for path in ("/health", "/nowhere", "/history/x")]

    assert with_client(scenario, MUSTER_RELEASE="42") == ["42", "42", "42"]


def test_the_socket_echoes_and_ends_with_a_close_frame():
    async def scenario(client, bot):
        socket = await client.ws_connect("/ws")
        await socket.send_str("ping")
        echo = await socket.receive_str()
        draining = asyncio.create_task(bot.drain())
        last = await socket.receive()
        await draining
        return echo, last.type, last.data

    assert with_client(scenario) == ("ping", WSMsgType.CLOSE, WSCloseCode.GOING_AWAY)


def test_a_request_under_way_is_finished_while_stopping():
    async def scenario(client, bot):
        request = asyncio.create_task(client.post("/slow?seconds=0.2", data=b"x" * 10))
        while not bot.in_flight:
            await asyncio.sleep(0.005)
        await bot.drain()
        answer = await request
        return bot.in_flight, answer.status, answer.headers.get("Connection"), await answer.json()

    assert with_client(scenario) == (0, 200, "close", {"size": 10, "seconds": 0.2})


@needs_redis
@needs_database
def test_messages_are_answered_and_remembered(user):
    async def scenario(client, _bot):
        for text in ("one", "two", "three"):
            answer = await client.post("/messages", json={"user": user, "text": text})
            assert answer.status == 200 and text in (await answer.json())["reply"]
        history = await (await client.get(f"/history/{user}?limit=2")).json()
        return (await client.get("/health")).status, [m["text"] for m in history["messages"]]

    assert with_client(scenario, connect=True) == (200, ["two", "three"])


@needs_redis
@needs_database
def test_nonsense_is_refused(user):
    async def scenario(client, _bot):
        bodies = ("{", "[]", '{"user": "u"}', '{"user": 1, "text": "t"}', '{"user": "", "text": "t"}')
        return [(await client.post("/messages", data=body)).status for body in bodies]

    assert with_client(scenario, connect=True) == [400] * 5
