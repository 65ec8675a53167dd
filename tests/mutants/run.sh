#!/usr/bin/env bash
# Plants one bug after the other into a copy of the workspace and runs the simulator: each must break its own invariant.
# `tests/mutants/run.sh [NAME...]`; about a minute each. Dependencies come from the shared target directory.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
export CARGO_TERM_PROGRESS_WHEN=never

# What each bug is, and the invariant that must name it (research: reliability-and-security.md, 4.4).
declare -A breaks=(
  [m1]=S2   # the agent does not check the epoch
  [m3]=S5   # orders are sent before they are stored
  [m4]=S8   # unknown counts as available
  [m5]=S10  # health samples from before the switch count
  [m6]=S4   # a revert keeps the generation it undoes
  [m18]=S14 # the previous release is read when reverting
)
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(m1 m3 m4 m5 m6 m18)

copy=$(mktemp -d)
patched() { sed -n 's#^+++ b/##p' "$root"/tests/mutants/*.patch | sort -u; }
# Cargo takes the copy's crates for the workspace's, and goes by times: what a bug changed must look newer than its build
# here, or the next build of the workspace would have the bug in it.
clean_up() {
  rm -rf "$copy"
  rm -f "$CARGO_TARGET_DIR/debug/simulate"
  (cd "$root" && patched | xargs touch)
}
trap clean_up EXIT
# One path for all copies: what a patch does not touch is built once.
tree=$copy/tree
missed=0
for name in "${names[@]}"; do
  rm -rf "$tree"
  mkdir "$tree"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$tree")
  # Cargo goes by times: what the last bug changed must not look older than its build.
  patched | (cd "$tree" && xargs touch)
  patch -d "$tree" -p1 --silent --fuzz=0 <"$root/tests/mutants/$name.patch"
  # A planted bug leaves things unused; what the compiler says counts only when it fails.
  (cd "$tree" && cargo build --quiet --locked -p tests --bin simulate >"$copy/said" 2>&1) || { cat "$copy/said"; exit 1; }
  said=$("$CARGO_TARGET_DIR/debug/simulate" --count 3000 2>&1 | grep '^BROKEN' || true)
  wanted=${breaks[$name]}
  if [[ $said == "BROKEN $wanted "* ]]; then
    echo "$name caught: $said"
  else
    echo "$name NOT caught by $wanted: ${said:-nothing broke}"
    missed=1
  fi
done
exit "$missed"
