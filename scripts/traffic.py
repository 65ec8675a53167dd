#!/usr/bin/env python3
"""The demo's client: works all the time against every host of the bot and never retries.

    scripts/traffic.py [options] NAME=http://ADDRESS:PORT ...

For each host: keep-alive connections that post messages and read the history back, slow POSTs whose
bodies take 1.5 s (so that they span a switch), and one WebSocket. Bodies and their order are checked.
Everything is counted per host and per X-Release. A failure is printed at once with host and reason.

Not failures: a connection closed after a response that said so, or while nothing was asked on it; a
WebSocket that the server ends with close frame 1000 or 1001 (it is opened again, and counted).

Ends after --seconds or on SIGTERM or SIGINT with a JSON summary on standard output. Exit codes: 0 all
well; 1 a failure, or fewer than --min requests of one of --releases on one of the hosts; 2 usage.
"""

import argparse
import asyncio
import base64
import collections
import hashlib
import json
import os
import signal
import struct
import sys
import time
import urllib.parse
import uuid

CONNECT_SECONDS = 5
ANSWER_SECONDS = 20
SLOW_PIECES = 6
MAX_BODY = 1 << 20
KEPT_FAILURES = 100
WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Failure(Exception):
    """What the client would have shown to its user."""


class Host:
    """One base URL and what was counted there."""

    def __init__(self, name, url):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is not an http:// address")
        self.name, self.address, self.port = name, parts.hostname, parts.port or 80
        self.requests = 0
        self.failures = 0
        self.releases = collections.defaultdict(collections.Counter)
        self.closes = collections.Counter()
        self.slowest = 0.0

    def summary(self):
        return {
            "requests": self.requests,
            "failures": self.failures,
            "releases": {name: dict(counts) for name, counts in sorted(self.releases.items())},
            "closes": dict(self.closes),
            "slowest_ms": round(self.slowest * 1000),
        }


class Connection:
    """One keep-alive HTTP/1.1 connection, opened when needed."""

    def __init__(self, host):
        self.host = host
        self.reader = self.writer = None

    async def open(self):
        if self.reader and (self.reader.at_eof() or self.writer.is_closing()):
            self.host.closes["idle"] += 1
            self.close()
        if self.reader:
            return
        try:
            self.reader, self.writer = await asyncio.wait_for(
                asyncio.open_connection(self.host.address, self.host.port), CONNECT_SECONDS
            )
        except asyncio.TimeoutError:
            raise Failure(f"no connection within {CONNECT_SECONDS} s") from None
        except OSError as error:
            raise Failure(f"cannot connect: {error}") from None

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    def head(self, method, path, headers):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host.address}:{self.host.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def read_head(self):
        """(status, headers) of a response; header names in lower case."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            what = "in the middle of a response" if error.partial else "before any byte of a response"
            raise Failure(f"connection closed {what}") from None
        lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Failure(f"not an HTTP response: {lines[0][:60]!r}")
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        return int(rest[:3]), headers

    async def read_body(self, headers):
        if headers.get("transfer-encoding", "").lower() != "chunked":
            size = int(headers.get("content-length", "0"))
            if size > MAX_BODY:
                raise Failure(f"a body of {size} bytes")
            return await self.reader.readexactly(size)
        body = b""
        while True:
            size = int((await self.reader.readline()).split(b";")[0], 16)
            if size == 0:
                while (await self.reader.readline()).strip():
                    pass
                return body
            if len(body) + size > MAX_BODY:
                raise Failure("a body without end")
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)

    async def request(self, method, path, body=b"", seconds=0.0):
        """(status, headers, body). With `seconds`, the body is sent in pieces over that time."""
        await self.open()
        headers = {"Content-Type": "application/json", "Content-Length": len(body)} if method == "POST" else {}
        try:
            self.writer.write(self.head(method, path, headers))
            if seconds:
                size = -(-len(body) // SLOW_PIECES)
                for start in range(0, len(body), size):
                    await asyncio.sleep(seconds / SLOW_PIECES)
                    self.writer.write(body[start : start + size])
                    await self.writer.drain()
            else:
                self.writer.write(body)
            await self.writer.drain()
            status, headers = await asyncio.wait_for(self.read_head(), ANSWER_SECONDS)
            answer = await asyncio.wait_for(self.read_body(headers), ANSWER_SECONDS)
        except BaseException as error:
            self.close()
            raise explained(error) from None
        if headers.get("connection", "").lower() == "close":
            self.host.closes["announced"] += 1
            self.close()
        return status, headers, answer


def explained(error):
    """The failure behind an exception of the network; anything else stays what it is."""
    if isinstance(error, asyncio.TimeoutError):
        return Failure(f"no answer within {ANSWER_SECONDS} s")
    if isinstance(error, asyncio.IncompleteReadError):
        return Failure("connection closed in the middle of a body")
    if isinstance(error, OSError):
        return Failure(f"connection broken: {error}")
    if isinstance(error, (ValueError, asyncio.LimitOverrunError)):
        return Failure(f"not an HTTP response: {error}")
    return error


class WebSocket(Connection):
    """Just enough of RFC 6455 for short text frames."""

    async def handshake(self):
        await self.open()
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": 13}
        try:
            self.writer.write(self.head("GET", "/ws", upgrade))
            status, headers = await asyncio.wait_for(self.read_head(), ANSWER_SECONDS)
        except BaseException as error:
            self.close()
            raise explained(error) from None
        accept = base64.b64encode(hashlib.sha1((key + WEBSOCKET_GUID).encode()).digest()).decode()
        if status != 101 or headers.get("sec-websocket-accept") != accept:
            self.close()
            raise Failure(f"WebSocket refused with HTTP {status}")
        return headers.get("x-release", "none")

    def send(self, opcode, payload):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.writer.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)  # payloads are below 126 bytes

    async def receive(self):
        """(opcode, payload) of the next text or close frame; pings are answered."""
        while True:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                raise Failure("WebSocket frame larger than anything sent")
            payload = await self.reader.readexactly(size)
            opcode = first & 0x0F
            if opcode == PING:
                self.send(PONG, payload)
            elif opcode in (TEXT, CLOSE):
                return opcode, payload


class Traffic:
    def __init__(self, options, hosts):
        self.options = options
        self.hosts = hosts
        self.stop = asyncio.Event()
        self.started = time.monotonic()
        self.tag = uuid.uuid4().hex[:8]
        self.kept = []

    # -- counting

    def done(self, host, kind, release, began):
        host.requests += 1
        host.releases[release][kind] += 1
        host.releases[release]["requests"] += 1
        if kind != "slow":
            host.slowest = max(host.slowest, time.monotonic() - began)

    def failed(self, host, kind, reason):
        host.failures += 1
        at = round(time.monotonic() - self.started, 3)
        if len(self.kept) < KEPT_FAILURES:
            self.kept.append({"at": at, "host": host.name, "kind": kind, "reason": reason})
            print(f"traffic: {at:.3f} s {host.name} {kind}: {reason}", file=sys.stderr, flush=True)

    def summary(self):
        too_few = []
        for host in self.hosts:
            for release in self.options.releases:
                count = host.releases[release]["requests"] if release in host.releases else 0
                if count < self.options.min:
                    too_few.append(f"{host.name} had {count} requests of release {release}, fewer than {self.options.min}")
        return {
            "seconds": round(time.monotonic() - self.started, 1),
            "requests": sum(h.requests for h in self.hosts),
            "failures": sum(h.failures for h in self.hosts),
            "hosts": {h.name: h.summary() for h in self.hosts},
            "first_failures": self.kept,
            "too_few": too_few,
        }

    # -- working

    async def pause(self, until):
        """Sleeps until that time or until told to stop."""
        wait = until - time.monotonic()
        if wait > 0:
            try:
                await asyncio.wait_for(self.stop.wait(), wait)
            except asyncio.TimeoutError:
                pass

    async def post(self, connection, user, text, kind, seconds=0.0):
        """Posts one message and checks the reply. Whether it succeeded."""
        host, began = connection.host, time.monotonic()
        try:
            body = json.dumps({"user": user, "text": text}).encode()
            status, headers, answer = await connection.request("POST", "/messages", body, seconds)
            release = headers.get("x-release", "none")
            if status != 200:
                raise Failure(f"HTTP {status} from release {release}: {answer[:120]!r}")
            reply = json.loads(answer)
            if reply.get("user") != user or reply.get("text") != text or text not in reply.get("reply", ""):
                raise Failure(f"wrong reply to {text!r} from release {release}: {answer[:120]!r}")
        except (Failure, ValueError) as error:
            self.failed(host, kind, str(error))
            return False
        self.done(host, kind, release, began)
        return True

    async def read_back(self, connection, user, expected):
        host, began = connection.host, time.monotonic()
        try:
            status, headers, answer = await connection.request("GET", f"/history/{user}?limit=5")
            release = headers.get("x-release", "none")
            if status != 200:
                raise Failure(f"HTTP {status} from release {release}: {answer[:120]!r}")
            texts = [message["text"] for message in json.loads(answer)["messages"]]
            if expected and texts[-len(expected) :] != expected:
                raise Failure(f"history is {texts}, not {expected}")
        except (Failure, ValueError, KeyError, TypeError) as error:
            self.failed(host, "history", str(error))
            return
        self.done(host, "history", release, began)

    async def chatter(self, host, number):
        """Messages in a steady rhythm on one connection, every fourth time the history."""
        connection = Connection(host)
        user = f"{self.tag}-{host.name}-{number}"
        sent = collections.deque(maxlen=5)
        interval = self.options.connections / self.options.rate
        due = time.monotonic() + interval * number / self.options.connections
        count = 0
        while not self.stop.is_set():
            await self.pause(due)
            if self.stop.is_set():
                break
            count += 1
            if count % 4 == 0:
                await self.read_back(connection, user, list(sent))
            else:
                text = f"message {count} of {user}"
                if await self.post(connection, user, text, "post"):
                    sent.append(text)
                else:
                    sent.clear()  # nobody knows whether it was stored
            due = max(due + interval, time.monotonic())
        connection.close()

    async def slow_poster(self, host, number):
        """One slow POST after the other, each on the connection of the one before."""
        connection = Connection(host)
        user = f"{self.tag}-{host.name}-slow-{number}"
        await self.pause(time.monotonic() + number * self.options.slow_seconds / max(1, self.options.slow))
        count = 0
        while not self.stop.is_set():
            count += 1
            if not await self.post(connection, user, f"slow message {count} of {user}", "slow", self.options.slow_seconds):
                await self.pause(time.monotonic() + 0.2)
        connection.close()

    async def socket(self, host):
        """One WebSocket, opened again when the server ended it politely, or after a failure."""
        while not self.stop.is_set():
            socket = WebSocket(host)
            try:
                release = await socket.handshake()
                await self.echo(socket, release)
            except (Failure, OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                reason = {asyncio.IncompleteReadError: "closed without a close frame", asyncio.TimeoutError: "no echo"}
                self.failed(host, "websocket", reason.get(type(error), str(error)))
                await self.pause(time.monotonic() + 0.2)
            finally:
                socket.close()

    async def echo(self, socket, release):
        counts = socket.host.releases[release]
        counts["websockets"] += 1
        number = 0
        due = time.monotonic()
        incoming = asyncio.ensure_future(socket.receive())
        try:
            while not self.stop.is_set():
                number += 1
                text = f"{release} {number}".encode()
                socket.send(TEXT, text)
                opcode, payload = await asyncio.wait_for(asyncio.shield(incoming), ANSWER_SECONDS)
                if opcode == CLOSE:
                    return self.ended(socket, payload)
                if payload != text:
                    raise Failure(f"echo of {text!r} was {payload[:60]!r}")
                counts["websocket_messages"] += 1
                due += 0.1
                incoming = asyncio.ensure_future(socket.receive())
                # A close frame that comes between two messages is noticed at once.
                stopped = asyncio.ensure_future(self.stop.wait())
                await asyncio.wait({incoming, stopped}, timeout=max(0, due - time.monotonic()), return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                if incoming.done():
                    opcode, payload = incoming.result()
                    if opcode == CLOSE:
                        return self.ended(socket, payload)
                    raise Failure(f"a message nobody sent: {payload[:60]!r}")
            socket.send(CLOSE, struct.pack("!H", 1000))
        finally:
            incoming.cancel()
            await asyncio.gather(incoming, return_exceptions=True)

    def ended(self, socket, payload):
        code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
        if code not in (1000, 1001):
            raise Failure(f"closed with code {code}")
        socket.send(CLOSE, struct.pack("!H", code))
        socket.host.closes["websocket_clean"] += 1

    async def report(self):
        """Rewrites --report twice a second, so that others can wait for a count."""
        while not self.stop.is_set():
            self.write_report()
            await self.pause(time.monotonic() + 0.5)

    def write_report(self):
        if self.options.report:
            part = f"{self.options.report}.part"
            with open(part, "w", encoding="utf-8") as file:
                json.dump(self.summary(), file)
            os.replace(part, self.options.report)

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        work = [self.report()]
        for host in self.hosts:
            work += [self.chatter(host, number) for number in range(self.options.connections)]
            work += [self.slow_poster(host, number) for number in range(self.options.slow)]
            if self.options.websocket:
                work.append(self.socket(host))
        if self.options.seconds:
            loop.call_later(self.options.seconds, self.stop.set)
        await asyncio.gather(*work)
        self.write_report()
        return self.summary()


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="+", metavar="NAME=URL")
    parser.add_argument("--seconds", type=float, default=0, help="end after so long (default: at a signal)")
    parser.add_argument("--rate", type=float, default=50, help="requests per second and host on the keep-alive connections (50)")
    parser.add_argument("--connections", type=int, default=3, help="keep-alive connections per host (3)")
    parser.add_argument("--slow", type=int, default=2, help="slow POSTs at a time per host (2)")
    parser.add_argument("--slow-seconds", type=float, default=1.5, help="how long each body takes (1.5)")
    parser.add_argument("--no-websocket", dest="websocket", action="store_false")
    parser.add_argument("--releases", type=lambda text: [r for r in text.split(",") if r], default=[], metavar="A,B")
    parser.add_argument("--min", type=int, default=0, help="requests that each host must have had of each of --releases")
    parser.add_argument("--report", metavar="FILE", help="keep the summary so far in this file")
    options = parser.parse_args(arguments)
    if options.rate <= 0 or options.connections < 1 or options.slow < 0:
        parser.error("--rate and --connections must be positive")
    hosts = []
    for text in options.hosts:
        name, equals, url = text.partition("=")
        try:
            hosts.append(Host(name, url) if equals else Host(urllib.parse.urlsplit(text).netloc, text))
        except ValueError as error:
            parser.error(str(error))
    return options, hosts


async def main():
    options, hosts = parse(sys.argv[1:])
    summary = await Traffic(options, hosts).run()
    print(json.dumps(summary, indent=1), flush=True)
    for line in summary["too_few"]:
        print(f"traffic: {line}", file=sys.stderr)
    return 1 if summary["failures"] or summary["too_few"] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
