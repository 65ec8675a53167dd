"""Runs `docker-compose config` over many stacks in one process, and prints what it says in the form of the test.

Standard input: a JSON list of {folder, files, variables}. Standard output: a JSON list of {error} or {services}.
"""
import contextlib
import io
import json
import os
import shlex
import sys

import compose.cli.main as command
import compose.config.config as config
import yaml

# Folders of builds are no part of the stacks.
config.validate_paths = lambda service: None

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def run(case):
    os.chdir(case["folder"])
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **case["variables"]})
    names = [part for name in case["files"] for part in ("-f", name)]
    sys.argv = ["docker-compose", *names, "config"]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command.main()
    except SystemExit as end:
        if end.code:
            return {"error": err.getvalue()[-500:] or "exit status %s" % end.code}
    return {"services": services(yaml.safe_load(out.getvalue()), case["folder"])}


def services(stack, folder):
    return {name: service(one, folder) for name, one in stack.get("services", {}).items()}


def plain(value):
    """`config` doubles dollar signs, so that its output can be read again."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


def service(raw, folder):
    one = plain(raw)
    return {
        "image": one.get("image"),
        "command": words(one.get("command")),
        "entrypoint": words(one.get("entrypoint")),
        "environment": {key: text(value) for key, value in (one.get("environment") or {}).items() if value is not None},
        "ports": sorted({port for given in one.get("ports", []) for port in tcp(given)}),
        "expose": sorted({int(str(port).split("/")[0]) for port in one.get("expose", [])}),
        "mounts": mounts(one, folder),
        "depends_on": depends(one),
        "healthcheck": health(one.get("healthcheck")),
        "working_dir": one.get("working_dir"),
        "user": one.get("user"),
        "restarts": one.get("restart", "no") != "no",
        "stop_signal": one.get("stop_signal"),
        "stop_grace_period": duration(one.get("stop_grace_period")),
        "memory": size(one.get("mem_limit") or limit(one, "memory")),
        "milli_cpus": milli(one.get("cpus") or limit(one, "cpus")),
        "pids": one.get("pids_limit"),
        "shm": size(one.get("shm_size")),
        "init": bool(one.get("init")),
        "read_only": bool(one.get("read_only")),
        "build": build(one.get("build"), folder),
        "files": sorted(files(one)),
        "aliases": sorted({name for given in networks(one) for name in (given or {}).get("aliases") or []}),
        "cap_add": sorted(one.get("cap_add", [])),
        "cap_drop": sorted(one.get("cap_drop", [])),
        "ulimits": {name: sides(given) for name, given in one.get("ulimits", {}).items()},
        "extra_hosts": sorted(hosts(one.get("extra_hosts") or {})),
        "group_add": [str(group) for group in one.get("group_add", [])],
        "no_new_privileges": any("no-new-privileges" in str(given) for given in one.get("security_opt", [])),
        "sysctls": {name: str(value) for name, value in (one.get("sysctls") or {}).items()},
        "profiles": sorted(one.get("profiles", [])),
    }


def words(given):
    return shlex.split(given) if isinstance(given, str) else given


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def tcp(given):
    if isinstance(given, dict):
        if given.get("protocol", "tcp") != "tcp":
            return []
        given = str(given["target"])
    given = str(given)
    if given.endswith("/udp"):
        return []
    first, _, last = given.split("/")[0].rsplit(":", 1)[-1].partition("-")
    return range(int(first), int(last or first) + 1)


def mounts(one, folder):
    found = []
    for given in one.get("volumes", []):
        if isinstance(given, dict):
            kind, source = given["type"], given.get("source")
            found.append(mount(kind, source, given["target"], bool(given.get("read_only")), folder))
            continue
        parts = given.split(":")
        source = parts[0] if len(parts) > 1 else None
        target = parts[1] if len(parts) > 1 else parts[0]
        mode = parts[2].split(",") if len(parts) > 2 else []
        kind = "bind" if source and source.startswith(("/", ".", "~")) else "volume"
        found.append(mount(kind, source, target, "ro" in mode, folder))
    tmpfs = one.get("tmpfs", [])
    for target in [tmpfs] if isinstance(tmpfs, str) else tmpfs:
        found.append(mount("tmpfs", None, target.split(":")[0], False, folder))
    return sorted(found)


def mount(kind, source, target, read_only, folder):
    if kind == "bind":
        source = inside(source, folder)
    return [kind if source or kind == "tmpfs" else "anonymous", source or "", target.rstrip("/"), read_only]


def inside(path, folder):
    return os.path.relpath(os.path.normpath(os.path.join(folder, path)), folder)


def depends(one):
    given = one.get("depends_on", {})
    pairs = given.items() if isinstance(given, dict) else ((name, {}) for name in given)
    found = {name: (given or {}).get("condition", "service_started") for name, given in pairs}
    for link in one.get("links", []):
        found.setdefault(link.split(":")[0], "service_started")
    return found


def health(given):
    if not given or given.get("disable") or given.get("test") == ["NONE"]:
        return None
    test = given["test"]
    if isinstance(test, str):
        test = ["CMD-SHELL", test]
    argv = ["/bin/sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:]
    times = {key: duration(given[key]) for key in ("interval", "timeout", "start_period") if key in given}
    return {"test": argv, **times, **({"retries": given["retries"]} if "retries" in given else {})}


def duration(given):
    if given is None:
        return None
    total, number, unit = 0.0, "", ""
    for char in str(given) + "0":
        if char.isdigit() or char == ".":
            if unit:
                total, number, unit = total + float(number) * UNITS[unit], "", ""
            number += char
        else:
            unit += char
    return int(total)


def size(given):
    if given is None:
        return None
    given = str(given).lower().rstrip("b") or "0"
    factor = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}.get(given[-1], 1)
    return int(float(given.rstrip("kmgt")) * factor)


def milli(given):
    return None if given is None else int(float(given) * 1000)


def limit(one, key):
    return ((one.get("deploy") or {}).get("resources") or {}).get("limits", {}).get(key)


def build(given, folder):
    if given is None:
        return None
    given = given if isinstance(given, dict) else {"context": given}
    args = given.get("args") or {}
    if isinstance(args, list):
        args = dict(arg.split("=", 1) for arg in args)
    return {
        "context": inside(given["context"], folder),
        "dockerfile": given.get("dockerfile"),
        "target": given.get("target"),
        "args": {key: text(value) for key, value in args.items() if value is not None},
    }


def files(one):
    for key, folder in (("secrets", "/run/secrets/"), ("configs", "/")):
        for given in one.get(key, []):
            given = given if isinstance(given, dict) else {"source": given}
            target = given.get("target") or given["source"]
            mode = given.get("mode", 0o444)
            yield [target if target.startswith("/") else folder + target, given["source"], int(mode)]


def networks(one):
    given = one.get("networks") or {}
    return given.values() if isinstance(given, dict) else []


def sides(given):
    return [given["soft"], given["hard"]] if isinstance(given, dict) else [given, given]


def hosts(given):
    pairs = given.items() if isinstance(given, dict) else (one.split(":", 1) for one in given)
    return ([name, address] for name, address in pairs)


json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)
