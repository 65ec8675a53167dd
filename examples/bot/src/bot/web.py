"""The HTTP and WebSocket side of the bot: `python -m bot.web`."""

import asyncio
import logging
import os
import signal
import sys

from aiohttp import WSCloseCode, WSMsgType, web

from bot import VERSION, config, reload, replies
from bot.store import Store

log = logging.getLogger("bot.web")
DRAIN_SECONDS = 30
MAX_TEXT = 4096
MAX_USER = 128


class Bot:
    """What the handlers share: settings, stores, and what is still in flight."""

    def __init__(self, env=os.environ):
        self.release = env.get("MUSTER_RELEASE", "dev")
        self.host = env.get("MUSTER_HOST", "local")
        self.store = None
        self.problem = "still connecting to the stores"
        self.config = None
        self.in_flight = 0
        self.stopping = False
        self.sockets = set()
        try:
            self.config = config.load(env)
        except config.ConfigError as error:
            self.problem = str(error)
            log.error("%s: %s", type(error).__name__, error)

    async def connect(self):
        """Opens the stores, however long they take to come."""
        while self.config and not self.store:
            try:
                self.store = await Store.open(self.config)
            except Exception as error:
                self.problem = f"{type(error).__name__}: {error}"
                log.warning("cannot open the stores: %s", self.problem)
                await asyncio.sleep(0.3)

    def ready(self):
        if not self.store:
            raise web.HTTPServiceUnavailable(text=self.problem)
        return self.store

    async def health(self, _request):
        about = {"version": VERSION, "release": self.release, "host": self.host}
        if not self.store:
            log.error("not healthy: %s", self.problem)
            return web.json_response({"error": self.problem, **about}, status=500)
        try:
            await asyncio.wait_for(self.store.check(), 3)
        except Exception as error:
            log.error("%s: %s", type(error).__name__, error)
            return web.json_response({"error": str(error) or type(error).__name__}, status=500)
        return web.json_response({"status": "ok", **about, "commit": self.config.commit})

    async def post_message(self, request):
        store = self.ready()
        try:
            body = await request.json()
            user, text = body["user"], body["text"]
        except (ValueError, KeyError, TypeError):
            raise web.HTTPBadRequest(text='the body must be {"user": ..., "text": ...}') from None
        if not (isinstance(user, str) and isinstance(text, str) and 0 < len(user) <= MAX_USER and len(text) <= MAX_TEXT):
            raise web.HTTPBadRequest(text=f"user: 1 to {MAX_USER} characters, text: at most {MAX_TEXT}")
        count = await store.count_session(user)
        answer = replies.reply(text, count)
        number = await store.add(user, text, answer, self.release)
        return web.json_response({"id": number, "user": user, "text": text, "reply": answer, "count": count})

    async def get_history(self, request):
        store = self.ready()
        try:
            limit = int(request.query.get("limit", self.config.history_limit))
        except ValueError:
            raise web.HTTPBadRequest(text="limit must be an integer") from None
        limit = max(1, min(limit, self.config.history_limit))
        user = request.match_info["user"]
        return web.json_response({"user": user, "messages": await store.history(user, limit)})

    async def slow(self, request):
        """Answers after ?seconds=, with the size of the body: work that outlives a switch."""
        size = len(await request.read())
        try:
            seconds = float(request.query.get("seconds", "1"))
        except ValueError:
            raise web.HTTPBadRequest(text="seconds must be a number") from None
        await asyncio.sleep(min(max(seconds, 0), DRAIN_SECONDS))
        return web.json_response({"size": size, "seconds": seconds})

    async def chat(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    await socket.send_str(message.data)
            if self.stopping:
                await socket.close(code=WSCloseCode.GOING_AWAY, message=b"stopping")
        except ConnectionResetError:
            pass
        finally:
            self.sockets.discard(socket)
        return socket

    @web.middleware
    async def count_in_flight(self, request, handler):
        self.in_flight += 1
        try:
            return await handler(request)
        finally:
            self.in_flight -= 1

    async def mark(self, _request, response):
        response.headers["X-Release"] = self.release
        response.headers["X-Host"] = self.host
        if self.stopping and not isinstance(response, web.WebSocketResponse):
            response.headers["Connection"] = "close"
            response.force_close()

    async def drain(self):
        """Ends WebSockets politely and waits for the requests that are under way."""
        self.stopping = True
        closing = [s.close(code=WSCloseCode.GOING_AWAY, message=b"stopping") for s in list(self.sockets)]
        await asyncio.wait_for(asyncio.gather(*closing, return_exceptions=True), 5)
        end = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while self.in_flight and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)

    def application(self):
        app = web.Application(middlewares=[self.count_in_flight])
        app.add_routes([
            web.get("/health", self.health),
            web.post("/messages", self.post_message),
            web.get("/history/{user}", self.get_history),
            web.post("/slow", self.slow),
            web.get("/ws", self.chat),
        ])
        app.on_response_prepare.append(self.mark)
        return app


async def serve():
    bot = Bot()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if os.environ.get("BOT_RELOAD") == "1":
        reload.watch()
    runner = web.AppRunner(bot.application(), access_log=None)
    await runner.setup()
    connecting = asyncio.create_task(bot.connect())
    port = bot.config.port if bot.config else int(os.environ.get("PORT", "8000"))
    server = await loop.create_server(runner.server, "0.0.0.0", port, backlog=512)
    log.info("version %s, release %s, listening on %s", VERSION, bot.release, port)
    await stop.wait()
    log.info("stopping: %s requests and %s sockets are open", bot.in_flight, len(bot.sockets))
    server.close()
    await bot.drain()
    connecting.cancel()
    await runner.cleanup()
    if bot.store:
        await bot.store.close()
    log.info("stopped")


def main():
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
