"""For developers: start again when a source file changes (BOT_RELOAD=1)."""

import os
import sys
import threading
import time
from pathlib import Path

EVERY_SECONDS = 0.3


def fingerprint(folder):
    """Size and time of each source file."""
    found = {}
    for path in sorted(Path(folder).rglob("*.py")):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        found[path] = (stat.st_mtime_ns, stat.st_size)
    return found


def compiles(paths):
    """Whether all parse: a half-typed line must not end what still serves."""
    for path in paths:
        try:
            compile(path.read_bytes(), str(path), "exec")
        except (SyntaxError, ValueError, OSError) as error:
            print(f"bot.reload: keeping the running code: {error}", flush=True)
            return False
    return True


def _loop(folder):
    seen = fingerprint(folder)
    while True:
        time.sleep(EVERY_SECONDS)
        now = fingerprint(folder)
        if now == seen:
            continue
        seen = now
        if compiles(now):
            print("bot.reload: sources changed, starting again", flush=True)
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def watch():
    folder = Path(__file__).resolve().parent.parent
    threading.Thread(target=_loop, args=(folder,), daemon=True).start()
