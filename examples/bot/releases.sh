#!/usr/bin/env bash
# Makes what a demo needs of an app with a past: a git repository with the tagged commits v1, v2 (another
# reply; main is here) and v3 (asks for a table that nobody made; a branch), and an image of each.
#
#   examples/bot/releases.sh OUTDIR [v1 v2 v3]     the repository is OUTDIR/bot
#
# Prints a line per version: NAME COMMIT IMAGE-ID. The images are tagged bot:v1, bot:v2 and bot:v3;
# bot:dev, which compose.yaml names, is the first of them unless somebody built their own.
# Commits depend on the example's files alone, so a second call finds everything made.
set -euo pipefail

[[ $# -ge 1 ]] || { echo "usage: $0 OUTDIR [v1 v2 v3]" >&2; exit 2; }
SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
REPO=$(cd "$1" && pwd)/bot
shift
VERSIONS=("$@")
((${#VERSIONS[@]})) || VERSIONS=(v1 v2 v3)
LABEL=io.muster.demo-image

# Nothing of the caller's configuration: no hooks, no signing, no other identity.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
export GIT_AUTHOR_NAME=Asha GIT_AUTHOR_EMAIL=asha@example.com GIT_COMMITTER_NAME=Asha GIT_COMMITTER_EMAIL=asha@example.com
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

commit() { # TAG DATE MESSAGE
  git -C "$REPO" add -A
  GIT_AUTHOR_DATE=$2 GIT_COMMITTER_DATE=$2 git -C "$REPO" commit -q -m "$3"
  git -C "$REPO" tag "$1"
}

edit() { # FILE FROM TO: a change that does not apply must not go unnoticed
  grep -qF -- "$2" "$REPO/$1" || { echo "releases: $1 has no '$2' any more" >&2; exit 1; }
  sed -i "s/$2/$3/" "$REPO/$1"
}

# Made beside its place and moved there when complete, so that an interrupted call leaves nothing half.
make_repository() {
  local final=$REPO
  if [[ -e $final && ! -e $final/.git/example-hash ]]; then
    echo "releases: $final exists and was not made here" >&2
    exit 1
  fi
  rm -rf "$final.part" "$final.old"
  REPO=$final.part
  mkdir -p "$REPO"
  tar -C "$SOURCE" --exclude=./releases.sh --exclude=./reports --exclude=__pycache__ --exclude=.pytest_cache -cf - . |
    tar -C "$REPO" -xf -
  git -C "$REPO" init -q -b main
  commit v1 2026-01-05T09:00:00Z "Answer messages and remember them"
  edit src/bot/__init__.py 'VERSION = "1"' 'VERSION = "2"'
  edit src/bot/replies.py 'you said: ' 'I heard: '
  commit v2 2026-01-06T09:00:00Z "Sound more attentive"
  git -C "$REPO" checkout -q -b session-table
  edit src/bot/__init__.py 'VERSION = "2"' 'VERSION = "3"'
  edit src/bot/store.py 'SESSIONS = "messages"' 'SESSIONS = "session_v2"'
  commit v3 2026-01-07T09:00:00Z "Keep sessions in a table of their own"
  git -C "$REPO" checkout -q main
  files_hash >"$REPO/.git/example-hash"
  if [[ -e $final ]]; then mv "$final" "$final.old"; fi
  mv "$REPO" "$final"
  rm -rf "$final.old"
  REPO=$final
}

files_hash() {
  tar -C "$SOURCE" --exclude=./reports --exclude=__pycache__ --exclude=.pytest_cache --sort=name --mtime=@0 \
    --owner=0 --group=0 --numeric-owner --mode=go= -cf - . | sha256sum
}

if [[ $(cat "$REPO/.git/example-hash" 2>/dev/null) != "$(files_hash)" ]]; then make_repository; fi

changed=0
for version in "${VERSIONS[@]}"; do
  sha=$(git -C "$REPO" rev-parse --verify -q "$version^{commit}") || { echo "releases: there is no version '$version'" >&2; exit 2; }
  built=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' "bot:$version" 2>/dev/null || true)
  if [[ $built != "$sha" ]]; then
    git -C "$REPO" archive "$version" |
      docker build -q -t "bot:$version" --build-arg "COMMIT=$sha" --label "$LABEL=bot" \
        --label "org.opencontainers.image.revision=$sha" - >"$REPO/.git/build.log" 2>&1 ||
      { tail -n 15 "$REPO/.git/build.log" >&2; exit 1; }
    changed=1
  fi
  echo "$version $sha $(docker image inspect --format '{{.Id}}' "bot:$version")"
done

dev=$(docker image inspect --format "{{index .Config.Labels \"$LABEL\"}}" bot:dev 2>/dev/null) || dev=bot
if [[ $dev == bot ]]; then docker tag "bot:${VERSIONS[0]}" bot:dev; fi
# What an older example was built into.
if ((changed)); then docker image prune -f --filter "label=$LABEL=bot" >/dev/null; fi
