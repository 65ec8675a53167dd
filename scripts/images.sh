#!/usr/bin/env bash
# Provides the images that the example's stack names, and those of other stores that tests use: pulled where a registry answers, otherwise
# built from Debian packages under the same names; Elasticsearch from its distribution at Maven Central. The host with systemd on which
# tests install Muster is always built.
#
#   scripts/images.sh           make sure the example's are there; silent and quick when they are
#   scripts/images.sh all       the same for all stores, and the host with systemd
#   scripts/images.sh remove    remove those built here and by examples/bot/releases.sh (pulled ones
#                               stay), and the cached base
#
# MUSTER_IMAGES        auto (default), pull or build
# MUSTER_IMAGES_CACHE  where the base system is kept (default ~/.cache/muster/images)
#
# What is built here carries the label io.muster.demo-image=<hash of its recipe>: a changed recipe is
# rebuilt, an image of somebody else's is never touched.
set -euo pipefail

IMAGES=(postgres:15 redis:7 python:3.11-slim)
STORES=(mariadb:10.11 elasticsearch:6.8.23)
HOSTS=(muster-host:bookworm)
# SHA-256 of what Maven Central has of that Elasticsearch.
ELASTICSEARCH_ZIP=490e9b9fbab9ffb3499938c45850318bd6554d439497842450b60ef22c114fb6
LABEL=io.muster.demo-image
BASE=muster-demo-base:bookworm
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RECIPES=$HERE/images
CACHE=${MUSTER_IMAGES_CACHE:-$HOME/.cache/muster/images}

say() { echo "images: $*" >&2; }

# RECIPE: the hash of what that image is made from.
recipe_hash() { cat "$RECIPES/base.Dockerfile" "$RECIPES/$1"[.-]* | sha256sum | cut -c1-16; }

# Prints those of IMAGES that are missing or were built here from another recipe.
wanted() {
  local have
  have=$(docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}}')
  local image old
  for image in "${IMAGES[@]}"; do
    if ! grep -qxF "$image" <<<"$have"; then echo "$image"; continue; fi
    old=$(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$image" 2>/dev/null || true)
    if [[ -n $old && $old != "<no value>" && $old != "$(recipe_hash "${image%%:*}")" ]]; then echo "$image"; fi
  done
}

registry_answers() { timeout 10 docker manifest inspect docker.io/library/postgres:15 >/dev/null 2>&1; }

# Where this machine gets Debian from.
mirror() {
  local uri
  # shellcheck disable=SC2016 # apt-get fills that in
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -v security | head -n1) || true
  if [[ -z $uri ]]; then
    uri=$(sed -nE 's/^(URIs: *|deb +(\[[^]]*\] +)?)(https?:[^ ]*debian\/?)( .*)?$/\3/p' \
      /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null | grep -v security | head -n1) || true
  fi
  uri=${uri:-http://deb.debian.org/debian}
  echo "${uri%/}"
}

security_mirror() {
  local uri
  uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
    grep -v '^ *#' | grep -oE 'https?://[^ ]*debian-security' | head -n1) || true
  echo "${uri:-http://security.debian.org/debian-security}"
}

# The base system as a tar in the cache, and as an image.
base_tar() {
  local tar=$CACHE/bookworm-minbase.tar dir
  if [[ -s $tar ]]; then echo "$tar"; return; fi
  [[ $(id -u) == 0 ]] || { say "only root can build the base system"; return 1; }
  if ! command -v debootstrap >/dev/null; then
    say "installing debootstrap"
    { apt-get install -qy --no-install-recommends debootstrap debian-archive-keyring ||
      { apt-get update -q && apt-get install -qy --no-install-recommends debootstrap debian-archive-keyring; }
    } >"$CACHE/apt.log" 2>&1 || { tail -n 5 "$CACHE/apt.log" >&2; return 1; }
  fi
  say "debootstrap bookworm from $(mirror)"
  dir=$(mktemp -d "$CACHE/rootfs.XXXXXX")
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg proxy
  proxy=$(apt-config dump --format '%v' Acquire::http::Proxy 2>/dev/null || true)
  if ! env ${proxy:+http_proxy="$proxy"} debootstrap --variant=minbase ${keyring:+--keyring="$keyring"} \
    bookworm "$dir" "$(mirror)" >"$CACHE/debootstrap.log" 2>&1; then
    tail -n 5 "$CACHE/debootstrap.log" >&2
    rm -rf --one-file-system "$dir"
    return 1
  fi
  rm -rf "$dir"/var/cache/apt/* "$dir"/var/lib/apt/lists/* "$dir"/usr/share/{doc,man,info,locale}/* "$dir"/var/log/*
  # What a container needs: no services started by packages, no waiting for the disk at each file.
  printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d" && chmod 755 "$dir/usr/sbin/policy-rc.d"
  echo force-unsafe-io >"$dir/etc/dpkg/dpkg.cfg.d/unsafe-io"
  printf 'path-exclude=/usr/share/%s/*\n' doc man info locale >"$dir/etc/dpkg/dpkg.cfg.d/no-docs"
  tar -C "$dir" --exclude=./dev --exclude=./proc --exclude=./sys -cf "$tar.part" .
  mv "$tar.part" "$tar"
  rm -rf --one-file-system "$dir"
  echo "$tar"
}

# Writes into $1 the build context of the base: apt set up as on this machine.
base_context() {
  local context=$1
  mkdir -p "$context/apt/apt.conf.d" "$context/certs"
  printf 'deb %s bookworm main\ndeb %s bookworm-updates main\ndeb %s bookworm-security main\n' \
    "$(mirror)" "$(mirror)" "$(security_mirror)" >"$context/apt/sources.list"
  { apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::(Proxy|Verify|CaInfo)|Check-|Retries|Force)' || true
    echo 'APT::Install-Recommends "false";'; } >"$context/apt/apt.conf.d/99host"
  if grep -q https: "$context/apt/sources.list" && [[ -r /etc/ssl/certs/ca-certificates.crt ]]; then
    cp /etc/ssl/certs/ca-certificates.crt "$context/certs/"
  fi
}

build() { # TAG DOCKERFILE CONTEXT [ARG…]
  local tag=$1 file=$2 context=$3 log
  shift 3
  log=$CACHE/build-${tag//[:\/]/-}.log
  docker build --network=host -q -t "$tag" -f "$file" "$@" "$context" >"$log" 2>&1 ||
    { say "building $tag failed, see $log:"; tail -n 15 "$log" >&2; return 1; }
}

base_image() {
  local hash tar context
  hash=$(recipe_hash base)
  if [[ $(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$BASE" 2>/dev/null) == "$hash" ]]; then return; fi
  tar=$(base_tar)
  context=$(mktemp -d "$CACHE/context.XXXXXX")
  base_context "$context"
  docker import "$tar" "$BASE-raw" >/dev/null
  build "$BASE" "$RECIPES/base.Dockerfile" "$context" --build-arg "BASE=$BASE-raw" --label "$LABEL=$hash"
  docker image rm "$BASE-raw" >/dev/null 2>&1 || true
  rm -rf "$context"
}

# The distribution as a zip in the cache.
elasticsearch_zip() { # VERSION
  local zip=$CACHE/elasticsearch-$1.zip
  if [[ ! -s $zip ]]; then
    "$HERE/packages.sh" mvn=maven >&2
    say "fetching elasticsearch $1 from Maven Central"
    mvn -q -B dependency:copy -Dartifact="org.elasticsearch.distribution.zip:elasticsearch:$1:zip" \
      -DoutputDirectory="$CACHE/maven" -Dmdep.overWriteReleases=true >"$CACHE/maven.log" 2>&1 || { tail -n 5 "$CACHE/maven.log" >&2; return 1; }
    mv "$CACHE/maven/elasticsearch-$1.zip" "$zip"
  fi
  if ! sha256sum --check --quiet <<<"$ELASTICSEARCH_ZIP  $zip" >&2; then rm -f "$zip"; return 1; fi
  echo "$zip"
}

# Unpacks the distribution into the context $1, with settings as in the official image. Machine learning is native code
# for another system; of the collectors Java's newest defaults are unknown to this version, and the smallest starts quickest.
elasticsearch_context() { # CONTEXT VERSION
  local zip home=$1/elasticsearch
  zip=$(elasticsearch_zip "$2") || return 1 # nothing here ends by itself: the caller looks at the status
  python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$zip" "$1" || return 1
  mv "$1/elasticsearch-$2" "$home"
  rm -rf "$home/modules/x-pack-ml/platform"
  chmod -R u+rwX,go+rX "$home"
  find "$home/bin" -type f -exec chmod 755 {} +
  mkdir -p "$home/data" "$home/logs"
  chmod 775 "$home/data" "$home/logs" "$home/config"
  sed -ri '/^[0-9]+[-0-9]*:/d; /^-XX:\+AlwaysPreTouch/d' "$home/config/jvm.options"
  echo -XX:+UseSerialGC >>"$home/config/jvm.options"
  printf '%s\n' 'cluster.name: docker-cluster' 'network.host: 0.0.0.0' 'xpack.ml.enabled: false' >"$home/config/elasticsearch.yml"
}

# Prints the build context of an image.
context_of() { # IMAGE
  case $1 in
    elasticsearch:*)
      local context
      context=$(mktemp -d "$CACHE/context.XXXXXX")
      cp "$RECIPES"/elasticsearch-* "$context"
      elasticsearch_context "$context" "${1#*:}" || { rm -rf "$context"; return 1; }
      echo "$context" ;;
    *) echo "$RECIPES" ;;
  esac
}

build_one() { # IMAGE
  local image=$1 recipe=${1%%:*} context status=0
  say "building $image"
  context=$(context_of "$image") || return 1
  build "$image" "$RECIPES/$recipe.Dockerfile" "$context" --build-arg "BASE=$BASE" \
    --label "$LABEL=$(recipe_hash "$recipe")" || status=1
  if [[ $context != "$RECIPES" ]]; then rm -rf --one-file-system "$context"; fi
  return "$status"
}

build_all() { # IMAGE…
  local image failed=0
  base_image
  local pids=()
  for image in "$@"; do
    build_one "$image" &
    pids+=($!)
  done
  local pid
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  docker image prune -f --filter "label=$LABEL" >/dev/null # what an older recipe was built into
  return "$failed"
}

ensure() {
  local missing how=${MUSTER_IMAGES:-auto}
  mapfile -t missing < <(wanted)
  if ((${#missing[@]} == 0)); then return; fi
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock 9 # somebody else may be at it, and then has made them
  mapfile -t missing < <(wanted)
  if ((${#missing[@]} == 0)); then return; fi
  if [[ $how == auto ]]; then if registry_answers; then how=pull; else how=build; fi; fi
  if [[ $how == pull ]]; then
    local image
    for image in "${missing[@]}"; do say "pulling $image"; docker pull -q "$image" >/dev/null || { how=build; break; }; done
    if [[ $how == pull ]]; then return; fi
    if [[ ${MUSTER_IMAGES:-auto} == pull ]]; then say "pulling failed"; return 1; fi
    mapfile -t missing < <(wanted)
  fi
  build_all "${missing[@]}"
}

remove() {
  local ids before=-1 why
  why=$(mktemp)
  # One that others were built on goes after them; one in use stays.
  while mapfile -t ids < <(docker image ls -aq --filter "label=$LABEL" | sort -u) && ((${#ids[@]} && ${#ids[@]} != before)); do
    before=${#ids[@]}
    docker image rm -f "${ids[@]}" >/dev/null 2>"$why" || true
  done
  if ((${#ids[@]})); then cat "$why" >&2; fi
  rm -rf --one-file-system "$CACHE" "$why"
  return "$((${#ids[@]} > 0))"
}

case ${1:-} in
  '') ensure ;;
  all)
    IMAGES+=("${STORES[@]}")
    ensure
    IMAGES=("${HOSTS[@]}") MUSTER_IMAGES=build
    ensure ;;
  remove) remove ;;
  *) echo "usage: $0 [all|remove]" >&2; exit 2 ;;
esac
