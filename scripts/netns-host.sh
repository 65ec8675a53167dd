#!/usr/bin/env bash
# A host of its own: a network namespace with its own address, bridges, iptables and Docker Engine.
#
#   scripts/netns-host.sh up NAME INDEX [live-restore] [IMAGE…]
#                                            make it (live-restore: its containers outlive its engine), with these images of this machine's
#                                            engine; prints ADDRESS, GATEWAY, DOCKER_HOST and NETNS, ready for `eval`
#   scripts/netns-host.sh show NAME          print the same again
#   scripts/netns-host.sh exec NAME CMD…     run a command in it (an agent, say), with its DOCKER_HOST
#   scripts/netns-host.sh cut NAME [in|out]  drop everything between it and the machine, silently: both ways, or
#                                            only what comes in or goes out
#   scripts/netns-host.sh heal NAME          let it through again
#   scripts/netns-host.sh engine NAME kill|stop|start
#                                            end its engine at once (SIGKILL) or in order (SIGTERM), or start it again
#   scripts/netns-host.sh down NAME          remove all of it
#
# INDEX (0–255) picks the addresses: the machine is 10.231.INDEX.1, the host is 10.231.INDEX.2. It reaches
# the machine by that address and nothing beyond. NAME: up to 24 of a–z, 0–9 and -.
# MUSTER_NETNS_STATE  where the engines' data lies (default ~/.cache/muster/netns), and unpacked images (.images-*).
set -euo pipefail

usage() { sed -n '4,15s/^# *//p' "$0" >&2; exit 2; }
[[ $# -ge 2 ]] || usage
VERB=$1 NAME=$2
shift 2
[[ $NAME =~ ^[a-z0-9][a-z0-9-]{0,23}$ ]] || { echo "netns-host: bad name '$NAME'" >&2; exit 2; }
DIR=${MUSTER_NETNS_STATE:-$HOME/.cache/muster/netns}/$NAME
NETNS=/run/netns/$NAME
PIDFILE=$DIR/dockerd.pid
SOCKET=unix://$DIR/docker.sock
INSIDE=muster0

inside() { nsenter --net="$NETNS" -- "$@"; }
index() { cat "$DIR/index" 2>/dev/null || { echo "netns-host: there is no host '$NAME'" >&2; return 1; }; }
outer() { echo "mstr$(index)"; }

own_pid() {
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$PIDFILE" || return 1
  echo "$pid"
}

show() {
  local index
  index=$(index)
  printf 'ADDRESS=10.231.%s.2\nGATEWAY=10.231.%s.1\nDOCKER_HOST=%s\nNETNS=%s\n' "$index" "$index" "$SOCKET" "$NETNS"
}

up() {
  if [[ ! ${1:-} =~ ^(0|[1-9][0-9]{0,2})$ ]] || (($1 > 255)); then usage; fi
  local restore='' images=("${@:2}")
  if [[ ${images[0]:-} == live-restore ]]; then restore=live-restore images=("${images[@]:1}"); fi
  if [[ -e $DIR/index && $(<"$DIR/index") != "$1" ]]; then
    echo "netns-host: '$NAME' exists with index $(<"$DIR/index")" >&2
    exit 1
  fi
  if [[ ! -e $DIR/index ]]; then
    # What we did not make we would not dare to remove.
    [[ ! -e $NETNS ]] || { echo "netns-host: a namespace '$NAME' exists already and is not ours" >&2; exit 1; }
    [[ ! -e /sys/class/net/mstr$1 ]] || { echo "netns-host: index $1 is in use" >&2; exit 1; }
    mkdir -p "$DIR"
    echo "$1" >"$DIR/index"
    echo "$restore" >"$DIR/restore"
  fi
  local outer
  outer=$(outer)
  [[ -e $NETNS ]] || ip netns add "$NAME"
  if [[ ! -e /sys/class/net/$outer ]]; then
    ip link add "$outer" type veth peer name "$INSIDE" netns "$NAME"
    ip addr add "10.231.$1.1/30" dev "$outer"
    inside ip addr add "10.231.$1.2/30" dev "$INSIDE"
  fi
  ip link set "$outer" up
  inside ip link set lo up
  inside ip link set "$INSIDE" up
  inside ip route replace default via "10.231.$1.1"
  if ((${#images[@]})); then start_with "${images[@]}"; else start_engine; fi
  show
}

# Starts its engine with images. To unpack them takes seconds of processor time: done once, links are enough from then on.
# Nothing writes into a file of a layer, and what knows of layers is copied.
start_with() {
  local key store
  key=$(docker image inspect --format '{{.Id}}' "$@" | sha256sum)
  store=$(dirname "$DIR")/.images-${key:0:16}
  exec 9>"$store.lock"
  # Whoever unpacks them does it alone; the others have waited for it.
  if [[ ! -e $store/overlay2 ]]; then flock 9; fi
  if [[ -e $store/overlay2 ]]; then flock -u 9; fi
  if [[ -e $store/overlay2 && ! -e $DIR/data ]]; then
    mkdir "$DIR/data"
    cp -a "$store/image" "$DIR/data/"
    cp -al "$store/overlay2" "$DIR/data/"
  fi
  start_engine
  # Another storage driver or image store keeps them elsewhere.
  if ! docker --host "$SOCKET" image inspect "$@" >/dev/null 2>&1; then
    docker save "$@" | docker --host "$SOCKET" load -q >&2
    if [[ ! -e $store/overlay2 && -d $DIR/data/overlay2 ]]; then
      rm -rf "$store"
      mkdir "$store"
      cp -a "$DIR/data/image" "$store/"
      # The engine mounts its folder onto itself, and no link leads out of a mount.
      # shellcheck disable=SC2016 # expanded in there
      unshare --mount sh -c 'umount "$1" && cp -al "$1/overlay2" "$2"' sh "$DIR/data" "$store/unfinished"
      mv "$store/unfinished" "$store/overlay2"
    fi
  fi
  exec 9>&-
}

# Removes pid files of processes that are gone. A killed engine's zombie would pass for a running one.
forget_dead() {
  local file
  for file in "$@"; do
    if [[ -e $file && $(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$(<"$file")/status" 2>/dev/null) == Z ]]; then rm -f "$file"; fi
  done
}

# Starts its engine and waits until it answers. Like a service manager it starts one again that gives up: the containerd
# of a killed engine is on its way out for a moment, and an engine that takes it for its own does not come up.
start_engine() {
  local attempt
  for attempt in 1 2 3; do
    if begin_engine; then return; fi
  done
  echo "netns-host: the engine of '$NAME' did not come up:" >&2
  # What a Go program says before its stacks, which are long.
  grep -aE '^(panic|fatal error|failed to start)' "$DIR/dockerd.log" | tail -n 3 >&2 || true
  tail -n 5 "$DIR/dockerd.log" >&2
  return 1
}

begin_engine() {
  local pid end more=()
  if ! pid=$(own_pid); then
    if [[ $(cat "$DIR/restore" 2>/dev/null) == live-restore ]]; then more=(--live-restore); fi
    forget_dead "$PIDFILE" "$DIR/exec/containerd/containerd.pid"
    # GOGC: it starts itself for each container, see engine.sh.
    # Its own containerd namespaces: where a system-wide containerd runs, dockerd would share it.
    # nsenter and not `ip netns exec`, which hides the cgroups.
    GOGC=400 setsid nohup nsenter --net="$NETNS" -- dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" --host "$SOCKET" \
      --pidfile "$PIDFILE" --shutdown-timeout 3 \
      --containerd-namespace "moby-$NAME" --containerd-plugins-namespace "plugins-$NAME" "${more[@]}" \
      >>"$DIR/dockerd.log" 2>&1 </dev/null 9>&- &
    pid=$!
  fi
  end=$((SECONDS + 60))
  until curl -fs --max-time 10 --unix-socket "$DIR/docker.sock" http://engine/_ping >/dev/null; do
    if [[ ! -d /proc/$pid ]] || ((SECONDS >= end)); then return 1; fi
    sleep 0.1
  done
}

stop_engine() {
  local pid end containers
  # An engine that was killed left its containers running: a new one takes them over and can end them.
  if ! own_pid >/dev/null && [[ -d $DIR/data/containers ]]; then start_engine || true; fi
  pid=$(own_pid) || return 0
  mapfile -t containers < <(timeout 10 docker --host "$SOCKET" ps -aq 2>/dev/null)
  if ((${#containers[@]})); then timeout 60 docker --host "$SOCKET" rm -f -v "${containers[@]}" >/dev/null 2>&1 || true; fi
  end_engine "$pid" TERM
}

# Sends it a signal and waits for its end; after 30 s by SIGKILL.
end_engine() {
  local pid=$1 end=$((SECONDS + 30))
  kill "-$2" "$pid"
  while [[ -d /proc/$pid && $(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null) != Z ]]; do
    if ((SECONDS >= end)); then kill -KILL "$pid" 2>/dev/null || true; break; fi
    sleep 0.05
  done
}

engine() {
  local pid
  case ${1:-} in
    start) start_engine ;;
    kill) if pid=$(own_pid); then end_engine "$pid" KILL; fi ;;
    stop) if pid=$(own_pid); then end_engine "$pid" TERM; fi ;;
    *) usage ;;
  esac
}

# Ends what no engine could: shims and the containers below them, known by our exec root.
end_leftovers() {
  local pid child
  for pid in $(pgrep -f -- "$DIR/exec/" || true); do
    for child in $(pgrep -P "$pid" || true); do kill -KILL "$child" 2>/dev/null || true; done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

# The two rules of a cut. Each drops what arrives, so that no sender is told. $1: -C, -I or -D
rule_out() { iptables -w -t raw "$1" PREROUTING -i "$(outer)" -j DROP; }
rule_in() { inside iptables -w -t raw "$1" PREROUTING -i "$INSIDE" -j DROP; }
cut() {
  case ${1:-both} in
    both) cut out; cut in ;;
    out | in) "rule_$1" -C 2>/dev/null || "rule_$1" -I ;;
    *) usage ;;
  esac
}
heal() {
  local way
  for way in out in; do if "rule_$way" -C 2>/dev/null; then "rule_$way" -D; fi; done
}

down() {
  if [[ -e $DIR/index ]]; then
    heal || true
    stop_engine
    end_leftovers
    ip link del "$(outer)" 2>/dev/null || true
    if [[ -e $NETNS ]]; then ip netns del "$NAME"; fi
    # What a killed engine left mounted would keep its files from being removed.
    awk -v dir="$DIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do umount -l "$mount"; done
    rm -rf --one-file-system "$DIR"
  fi
}

case $VERB in
  up) up "$@" ;;
  show) show ;;
  exec)
    index >/dev/null
    export DOCKER_HOST=$SOCKET
    exec nsenter --net="$NETNS" -- "$@"
    ;;
  cut) cut "$@" ;;
  engine) index >/dev/null; engine "$@" ;;
  heal) heal ;;
  down) down ;;
  *) usage ;;
esac
