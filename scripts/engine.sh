#!/usr/bin/env bash
# Makes sure that a Docker Engine answers, and ends only the one it started itself.
#
#   scripts/engine.sh up        install docker.io if there is no dockerd, start one if none answers
#   scripts/engine.sh down      stop the engine that `up` started; leave any other alone
#   scripts/engine.sh status    one line; exit 0 when an engine answers
#
# Sourced, it gives engine_up, engine_down, engine_status and engine_answers.
# MUSTER_STATE  where data, log and pid file of our engine lie (default ~/.cache/muster/engine).
#               Its data stays after `down`, so that images remain cached.
# DOCKER_HOST   if set, the socket to look at and to start an engine on.

ENGINE_STATE=${MUSTER_STATE:-$HOME/.cache/muster/engine}
ENGINE_PIDFILE=$ENGINE_STATE/dockerd.pid
ENGINE_LOG=$ENGINE_STATE/dockerd.log

engine_answers() { timeout 10 docker info >/dev/null 2>&1; }

# Prints the pid of the engine we started, if it still runs. A pid alone proves nothing after a
# reboot, so the command line must name our pid file too.
engine_own_pid() {
  local pid
  pid=$(cat "$ENGINE_PIDFILE" 2>/dev/null) || return 1
  [[ $pid =~ ^[0-9]+$ ]] || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$ENGINE_PIDFILE" || return 1
  echo "$pid"
}

# Prints an extra dockerd flag when the way out has a smaller MTU than a bridge would assume.
engine_mtu_flag() {
  local dev mtu
  dev=$(ip -4 route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n1)
  mtu=$(cat "/sys/class/net/${dev:-none}/mtu" 2>/dev/null) || return 0
  if ((mtu < 1500)); then echo "--mtu=$mtu"; fi
}

# A killed engine's containerd may stay a zombie for long, which the next dockerd takes for a running one.
engine_forget_dead_containerd() {
  local file=$ENGINE_STATE/exec/containerd/containerd.pid
  if [[ -e $file && $(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$(<"$file")/status" 2>/dev/null) == Z ]]; then rm -f "$file"; fi
}

engine_install() {
  if command -v dockerd >/dev/null && command -v iptables >/dev/null && command -v docker >/dev/null; then return; fi
  [[ $(id -u) == 0 ]] || { echo "engine: dockerd is not installed and only root can install it" >&2; return 1; }
  echo "engine: installing docker.io and iptables" >&2
  export DEBIAN_FRONTEND=noninteractive
  {
    # The package would start a service by itself where an init system runs; we start our own.
    apt-get install -y --no-install-recommends docker.io iptables ||
      { apt-get update && apt-get install -y --no-install-recommends docker.io iptables; }
  } >"$ENGINE_STATE/apt.log" 2>&1 || { tail -n 5 "$ENGINE_STATE/apt.log" >&2; return 1; }
}

engine_up() {
  if command -v docker >/dev/null && engine_answers; then return 0; fi
  mkdir -p "$ENGINE_STATE"
  exec 8>"$ENGINE_STATE/lock"
  flock 8 # one starts it, the others wait
  engine_start
  local status=$?
  exec 8>&-
  return "$status"
}

engine_start() {
  engine_install || return 1
  if engine_answers; then return 0; fi # the package's own service came up
  [[ $(id -u) == 0 ]] || { echo "engine: no Docker Engine answers and only root can start one" >&2; return 1; }
  local pid mtu
  if ! pid=$(engine_own_pid); then
    rm -f "$ENGINE_PIDFILE"
    engine_forget_dead_containerd
    mtu=$(engine_mtu_flag)
    engine_note_network
    # shellcheck disable=SC2086 # the flag is empty or one word
    # GOGC: it starts itself for each container, for 40 ms of which a third went into collecting garbage that fits in memory.
    GOGC=400 setsid nohup dockerd --data-root "$ENGINE_STATE/data" --exec-root "$ENGINE_STATE/exec" \
      --host "${DOCKER_HOST:-unix:///var/run/docker.sock}" --pidfile "$ENGINE_PIDFILE" --shutdown-timeout 5 $mtu >>"$ENGINE_LOG" 2>&1 </dev/null 8>&- &
    pid=$!
  fi
  local end=$((SECONDS + 60))
  until engine_answers; do
    if [[ ! -d /proc/$pid ]] || ((SECONDS >= end)); then
      echo "engine: dockerd did not come up; the end of $ENGINE_LOG:" >&2
      tail -n 5 "$ENGINE_LOG" >&2
      return 1
    fi
    sleep 0.1
  done
}

# dockerd leaves its bridges, chains and forwarding behind when it stops. What was there before it came
# is written down, so that `engine_down` can put it back.
engine_note_network() {
  {
    echo "forward_policy=$(iptables -w -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p')"
    echo "ip_forward=$(cat /proc/sys/net/ipv4/ip_forward)"
    if ip link show docker0 &>/dev/null; then echo docker0=there; fi
  } >"$ENGINE_STATE/network-before"
}

engine_restore_network() { # BRIDGE…
  local before=$ENGINE_STATE/network-before table rule chain bridge
  [[ -e $before ]] || return 0
  if ! grep -q docker0=there "$before"; then
    for bridge in docker0 "$@"; do ip link del "$bridge" 2>/dev/null || true; done
    for table in filter nat; do
      # Rules first (those that name a Docker chain, or one of the bridges), then the emptied chains.
      while read -r rule; do
        # shellcheck disable=SC2086 # iptables prints its rules as arguments
        iptables -w -t "$table" -D ${rule#-A } 2>/dev/null || true
      done < <(iptables -w -t "$table" -S | grep -E "^-A .*(DOCKER|docker0$(if (($#)); then printf '|%s' "$@"; fi))" | grep -v '"')
      for chain in $(iptables -w -t "$table" -S | sed -n 's/^-N \(DOCKER[^ ]*\)$/\1/p'); do iptables -w -t "$table" -F "$chain"; done
      for chain in $(iptables -w -t "$table" -S | sed -n 's/^-N \(DOCKER[^ ]*\)$/\1/p'); do iptables -w -t "$table" -X "$chain"; done
    done
    if grep -q forward_policy=ACCEPT "$before"; then iptables -w -P FORWARD ACCEPT; fi
    if grep -q ip_forward=0 "$before"; then echo 0 >/proc/sys/net/ipv4/ip_forward; fi
  fi
  rm -f "$before"
}

engine_down() {
  local pid bridges
  pid=$(engine_own_pid) || { rm -f "$ENGINE_PIDFILE"; return 0; }
  mapfile -t bridges < <(timeout 10 docker network ls --filter driver=bridge --format '{{.ID}} {{.Name}}' 2>/dev/null |
    sed -n '/ bridge$/!s/^\([^ ]*\) .*/br-\1/p')
  kill "$pid"
  local end=$((SECONDS + 30))
  # A zombie counts as gone: some init processes reap late.
  while [[ -d /proc/$pid && $(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null) != Z ]]; do
    if ((SECONDS >= end)); then echo "engine: dockerd $pid did not stop within 30 s" >&2; return 1; fi
    sleep 0.1
  done
  # dockerd leaves some of its mounts; they would keep its files from being removed.
  awk -v dir="$ENGINE_STATE/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do umount -l "$mount" || true; done
  rm -rf --one-file-system "$ENGINE_PIDFILE" "$ENGINE_STATE/exec"
  engine_restore_network "${bridges[@]}"
}

engine_status() {
  local pid version
  version=$(timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null) || { echo "no engine answers"; return 1; }
  if pid=$(engine_own_pid); then echo "engine $version, started by us, pid $pid"; else echo "engine $version, not ours"; fi
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  case ${1:-} in
    up | down | status) "engine_$1" ;;
    *) echo "usage: $0 up|down|status" >&2; exit 2 ;;
  esac
fi
