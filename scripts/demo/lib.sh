# Functions of ./demo. Sourced; `root` is the repository.
# shellcheck shell=bash disable=SC2154

DEMO_MIN_HEALTHY=2s
DEMO_BAKE=0s
DEMO_STATE=${MUSTER_DEMO_STATE:-$root/.demo}
DEMO_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/muster
DEMO_NETWORK=muster-demo-stores
DEMO_LABEL=io.muster.demo=1
HOSTS=(web-1 web-2 web-3)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
# release, or dev: the binaries that tests build anyway.
DEMO_PROFILE=${MUSTER_DEMO_PROFILE:-release}
DEMO_BINARIES=${MUSTER_DEMO_BINARIES:-$CARGO_TARGET_DIR/${DEMO_PROFILE/dev/debug}}
export PATH=$DEMO_BINARIES:$PATH

begun=$EPOCHREALTIME
built=$begun

since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }
title() { printf '\n== %s\n' "$1"; }
indent() { sed 's/^/    /'; }

# One line per step, with its time.
step() {
  local name=$1 from=$EPOCHREALTIME log
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    printf '%7s s  %s\n' "$(since "$from")" "$name"
    rm -f "$log"
  else
    printf '%7s s  %s: FAILED\n' "$(since "$from")" "$name"
    indent <"$log"
    rm -f "$log"
    return 1
  fi
}

# Runs a command with its output shown.
show() {
  local from=$EPOCHREALTIME
  printf '\n    $ %s\n' "$*"
  "$@" 2>&1 | indent
  printf '%7s s  %s\n' "$(since "$from")" "done: ${1} ${2:-}"
}

# Runs a command that must exit with a given code.
expect() {
  local code=$1 from=$EPOCHREALTIME got=0
  shift
  printf '\n    $ %s\n' "$*"
  { "$@" 2>&1 || got=$?; echo "$got" >"$DEMO_STATE/exit"; } | indent
  got=$(<"$DEMO_STATE/exit")
  if [ "$got" != "$code" ]; then
    echo "exit code $got where $code was expected"
    return 1
  fi
  printf '%7s s  %s\n' "$(since "$from")" "exit code $code, as it should be"
}

demo_failed() {
  echo "the demo failed at line $1; logs are in $DEMO_STATE; ./demo down removes everything" >&2
  traffic_kill
}

demo_interrupted() {
  trap - INT TERM ERR
  traffic_kill
  echo "interrupted; ./demo starts afresh, ./demo down removes everything" >&2
  exit 130
}

# ---------------------------------------------------------------------------------------------------- set-up

demo_tools() {
  scripts/packages.sh curl=curl git=git python3=python3 psql=postgresql-client ip=iproute2 iptables=iptables
}

demo_engine() {
  mkdir -p "$DEMO_STATE"
  if ! docker info >/dev/null 2>&1; then touch "$DEMO_STATE/engine-is-ours"; fi
  scripts/engine.sh up
}

demo_releases() { examples/bot/releases.sh "$DEMO_CACHE/releases" >"$DEMO_STATE/releases"; }
commit() { awk -v v="$1" '$1 == v { print $2 }' "$DEMO_STATE/releases"; }

demo_build() { [ -n "${MUSTER_DEMO_BINARIES:-}" ] || cargo build --profile "$DEMO_PROFILE" --locked -p coordinator -p agent; }

demo_begin() { built=$EPOCHREALTIME; }

demo_stores() {
  docker network create --internal --label "$DEMO_LABEL" "$DEMO_NETWORK" >/dev/null
  docker run -d --name muster-demo-postgres --label "$DEMO_LABEL" --network "$DEMO_NETWORK" --network-alias history \
    -e POSTGRES_USER=bot -e POSTGRES_PASSWORD=demo -e POSTGRES_DB=bot postgres:15 >/dev/null
  docker run -d --name muster-demo-redis --label "$DEMO_LABEL" --network "$DEMO_NETWORK" --network-alias sessions redis:7 >/dev/null
  wait_until 20 docker exec muster-demo-postgres pg_isready -q -h 127.0.0.1 -U bot
}

# wait_until SECONDS COMMAND...: until the command succeeds.
wait_until() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || { echo "still not true: $*" >&2; return 1; }
    sleep 0.05
  done
}

# start NAME COMMAND...: in the background, with a pid file and a log.
start() {
  local name=$1
  shift
  setsid nohup "$@" >>"$DEMO_STATE/$name.log" 2>&1 </dev/null &
  echo $! >"$DEMO_STATE/$name.pid"
}

demo_coordinator_start() { start coordinator muster serve --config "$DEMO_STATE/coordinator.toml"; }

demo_coordinator() {
  cat >"$DEMO_STATE/coordinator.toml" <<EOF
state_dir = "$DEMO_STATE/coordinator"
listen = "127.0.0.1:7443"
http_listen = "127.0.0.1:7480"
EOF
  demo_coordinator_start
  wait_until 20 curl -fsS http://127.0.0.1:7480/healthz
  wait_until 5 test -s "$DEMO_STATE/coordinator/admin.token"
  login admin "$DEMO_STATE/coordinator/admin.token"
  as admin
  for who in asha:developer jenkins:deployer; do
    (umask 077 && muster api-token create "${who%:*}" --role "${who#*:}" --quiet >"$DEMO_STATE/${who%:*}.token")
    login "${who%:*}" "$DEMO_STATE/${who%:*}.token"
  done
  as admin
}

login() {
  MUSTER_CONTEXT=$DEMO_STATE/$1.json muster login --server 127.0.0.1:7443 --ca "$DEMO_STATE/coordinator/ca.pem" --token-file "$2"
}

as() { export MUSTER_CONTEXT=$DEMO_STATE/$1.json; }

demo_coordinator_restart() {
  kill -KILL "$(<"$DEMO_STATE/coordinator.pid")"
  wait_until 5 gone "$(<"$DEMO_STATE/coordinator.pid")"
  demo_coordinator_start
  wait_until 20 curl -fsS http://127.0.0.1:7480/healthz
}

# A killed process may stay a zombie for seconds where PID 1 reaps slowly.
gone() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

demo_agents() {
  local n=0 host dir labels
  for host in "${HOSTS[@]}"; do
    n=$((n + 1))
    dir=$DEMO_STATE/$host
    mkdir -p "$dir"
    labels=(--label app=bot --label env=production)
    if [ $n = 1 ]; then labels+=(--label scheduler=yes --label owner=asha); fi
    if [ $n = 2 ]; then labels+=(--label role=test); fi
    (umask 077 && muster join-token create "$host" "${labels[@]}" --quiet >"$dir/join-token")
    cat >"$dir/policy.toml" <<EOF
mounts = ["$DEMO_STATE"]
repositories = ["https://", "ssh://", "$DEMO_CACHE/releases"]
EOF
    cat >"$dir/agent.toml" <<EOF
coordinator = "127.0.0.1:7443"
state_dir = "$dir/state"
join_token_file = "$dir/join-token"
listen_address = "127.0.0.1$n"
ports = "$((20000 + n * 1000))-$((20999 + n * 1000))"
subnets = "198.18.$((n * 32)).0/19"
socket = "$dir/agent.sock"
policy = "$dir/policy.toml"
release_networks = ["$DEMO_NETWORK"]
EOF
    start "$host" muster-agent run --config "$dir/agent.toml"
  done
  for host in "${HOSTS[@]}"; do
    wait_until 20 host_is_ready "$host"
  done
}

host_is_ready() { muster host show "$1" | grep -q 'state  *ready'; }

# ----------------------------------------------------------------------------------------------- environment

# A copy of the example's repository for the developer to work in.
in_repository() {
  local copy=$DEMO_STATE/src/bot
  if ! [ -d "$copy" ]; then
    mkdir -p "$DEMO_STATE/src"
    git clone -q "$DEMO_CACHE/releases/bot" "$copy"
  fi
  git -C "$copy" checkout -q --force "$1"
  export MUSTER_AGENT_SOCKET=$DEMO_STATE/web-1/agent.sock
  cd "$copy"
}

psql_row() { psql "$POSTGRES_URL" -Atc "select 'user ' || current_user || ' in ' || current_database()"; }

web_address() { muster env show --output json | python3 -c '
import json, sys
services = {s["name"]: s for s in json.load(sys.stdin)["services"]}
print("http://" + services["web"]["addresses"]["8000"])'; }

edit_source() { sed -i 's/f"you said: /f"edited by the demo: /' src/bot/replies.py; }

ask() { curl -fsS -H 'content-type: application/json' -d '{"user": "asha", "text": "it works"}' "$(web_address)/messages"; }
answers_with() { ask | grep -qF "$1"; }

# Of a run its small record stays until the next one; its checkout, containers, networks and data go right after the verdict.
demo_nothing_left_of_runs() {
  local left
  left=$(find "$DEMO_STATE"/web-2/state/runs/*/* "$DEMO_STATE"/web-2/state/pool/*/* -maxdepth 0 ! -name run.json 2>/dev/null || true
    docker ps -aq --filter "label=io.muster.host=$(host_id "$DEMO_STATE/web-2")"
    docker network ls -q --filter "label=io.muster.host=$(host_id "$DEMO_STATE/web-2")")
  [ -z "$left" ] || { echo "$left"; return 1; }
}

# The id under which an agent's objects are labelled.
host_id() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["host_id"])' "$1/state/identity.json"; }

# -------------------------------------------------------------------------------------------------- releases

demo_app() {
  as jenkins
  cd "$DEMO_CACHE/releases/bot"
  muster app apply --repository "$DEMO_CACHE/releases/bot"
  muster config set bot/production DATABASE_URL=postgresql://bot:demo@history:5432/bot REDIS_URL=redis://sessions:6379/0
}

demo_register() {
  local version
  for version in v1 v2 v3; do
    docker save "bot:$version" | muster build register bot "$(commit $version)" --muster-yaml muster.yaml --archive -
  done
}

rollout_start() {
  local version=$1
  shift
  muster rollout start bot/production "$(commit "$version")" --set "min_healthy_time=$DEMO_MIN_HEALTHY" \
    --set "bake_time=$DEMO_BAKE" --set "final_bake_time=$DEMO_BAKE" "$@"
}

traffic_start() {
  local urls=() n=0 host
  for host in "${HOSTS[@]}"; do
    n=$((n + 1))
    urls+=("$host=http://127.0.0.1$n:8080")
  done
  python3 "$root/scripts/traffic.py" --report "$DEMO_STATE/traffic.json" --releases 1,2 --min 100 "${urls[@]}" \
    >"$DEMO_STATE/traffic.out" 2>"$DEMO_STATE/traffic.err" &
  echo $! >"$DEMO_STATE/traffic.pid"
  for host in "${HOSTS[@]}"; do wait_until 30 traffic_at_least "$host" "$(current_release)" 100; done
  printf '           a client works all the time: keep-alive, slow POSTs, one WebSocket per host; it never retries\n'
}

current_release() { muster app show bot --output json | python3 -c 'import json,sys; print([t for t in json.load(sys.stdin)["targets"] if t["name"]=="production"][0]["release"])'; }

traffic_at_least() {
  python3 - "$DEMO_STATE/traffic.json" "$@" <<'P'
import json, sys
report, host, release, least = json.load(open(sys.argv[1])), *sys.argv[2:]
sys.exit(report["hosts"][host]["releases"].get(release, {}).get("requests", 0) < int(least))
P
}

traffic_stop() {
  local from=$1 to=$2 host
  for host in "${HOSTS[@]}"; do wait_until 30 traffic_at_least "$host" "$to" 100; done
  kill -TERM "$(<"$DEMO_STATE/traffic.pid")"
  if ! wait "$(<"$DEMO_STATE/traffic.pid")"; then
    indent <"$DEMO_STATE/traffic.err"
    echo "the client saw failures" >&2
    return 1
  fi
  rm -f "$DEMO_STATE/traffic.pid"
  python3 - "$DEMO_STATE/traffic.out" "$from" "$to" <<'P' | indent
import json, sys
report = json.load(open(sys.argv[1]))
for host, seen in sorted(report["hosts"].items()):
    counts = ", ".join(f"release {r}: {seen['releases'][r]['requests']} requests" for r in sys.argv[2:])
    print(f"{host}: {counts}, {seen.get('failures', 0) if isinstance(seen.get('failures', 0), int) else len(seen['failures'])} failed")
P
}

traffic_kill() {
  [ -s "$DEMO_STATE/traffic.pid" ] && kill "$(<"$DEMO_STATE/traffic.pid")" 2>/dev/null
  rm -f "$DEMO_STATE/traffic.pid"
  return 0
}

demo_why() { muster rollout status --why bot/production | grep -F "$1"; }

demo_no_overlap() {
  docker run --rm --network "$DEMO_NETWORK" --label "$DEMO_LABEL" -e DATABASE_URL=postgresql://bot:demo@history:5432/bot \
    bot:v2 python -m bot.scheduler --check
}

# ------------------------------------------------------------------------------------------------- the end

demo_end() {
  printf '\nall of it in %s s (after the build). It goes on running; try\n' "$(since "$built")"
  cat <<EOF | indent
export PATH=$DEMO_BINARIES:\$PATH MUSTER_CONTEXT=$DEMO_STATE/admin.json
muster host list
muster rollout list bot/production
muster events --since 10m
muster env list --all
curl http://127.0.0.11:8080/health
./demo down
EOF
}

stop_pid() {
  local pid
  pid=$(cat "$1" 2>/dev/null) || return 0
  # The pid may be somebody else's by now: only a process that names our folder is ours.
  if [ -d "/proc/$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$DEMO_STATE"; then
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    wait_until 10 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
  fi
}

# Everything that an earlier demo made, whether it ended well or was killed.
demo_clean() {
  local host id pid
  traffic_kill
  for host in "${HOSTS[@]}"; do stop_pid "$DEMO_STATE/$host.pid"; done
  stop_pid "$DEMO_STATE/coordinator.pid"
  # Relays and jobs outlive their agents on purpose.
  for pid in $(pgrep -f "^[^ ]*muster-agent (relay|job) .*$DEMO_STATE/" || true); do kill "$pid" 2>/dev/null || true; done
  for pid in $(pgrep -f "^[^ ]*muster-agent (relay|job) .*$DEMO_STATE/" || true); do wait_until 10 gone "$pid" || kill -KILL "$pid" || true; done
  for host in "${HOSTS[@]}"; do
    if id=$(host_id "$DEMO_STATE/$host" 2>/dev/null); then
      remove_docker_objects "io.muster.host=$id"
      muster-agent unwall "$id" || true
    fi
  done
  remove_docker_objects "$DEMO_LABEL"
  # An agent's pool may be a file system of its own; it outlives the agent too.
  for host in "${HOSTS[@]}"; do
    if mountpoint -q "$DEMO_STATE/$host/state/pool"; then umount "$DEMO_STATE/$host/state/pool"; fi
  done
  find "$DEMO_STATE" -mindepth 1 -maxdepth 1 ! -name engine-is-ours ! -name releases -exec rm -rf {} + 2>/dev/null || true
}

remove_docker_objects() {
  local ids
  ids=$(docker ps -aq --filter "label=$1")
  [ -z "$ids" ] || docker rm -fv $ids
  ids=$(docker network ls -q --filter "label=$1")
  [ -z "$ids" ] || docker network rm $ids
  ids=$(docker volume ls -q --filter "label=$1")
  [ -z "$ids" ] || docker volume rm -f $ids
}

demo_down() {
  if [ ! -d "$DEMO_STATE" ]; then
    echo "nothing of a demo is here"
    if [ "${1:-}" = --caches ]; then demo_forget_caches; fi
    return
  fi
  local ours=
  if [ -e "$DEMO_STATE/engine-is-ours" ]; then ours=yes; fi
  if docker info >/dev/null 2>&1; then step "processes, containers, networks, volumes" demo_clean; fi
  if [ "${1:-}" = --caches ]; then step "images" scripts/images.sh remove; fi
  if [ -n "$ours" ]; then step "the engine that the demo started" scripts/engine.sh down; fi
  rm -rf "$DEMO_STATE"
  if [ "${1:-}" = --caches ]; then
    demo_forget_caches
  else
    echo "images and builds stay cached in $DEMO_CACHE; ./demo down --caches removes them too"
  fi
}

# An engine that runs keeps its data, whoever started it.
demo_forget_caches() {
  rm -rf "$DEMO_CACHE/releases"
  if docker info >/dev/null 2>&1; then
    echo "a Docker Engine runs that the demo did not start: it keeps its data"
  else
    rm -rf "$DEMO_CACHE/engine"
  fi
}
