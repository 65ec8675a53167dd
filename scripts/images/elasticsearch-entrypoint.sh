#!/bin/bash
# The part of the official elasticsearch image's contract that compose files lean on: settings as variables with a dot
# in their name, ES_JAVA_OPTS, ELASTIC_PASSWORD and its _FILE form. The node itself ends up as PID 1.
set -euo pipefail

if [[ ${1:-} != eswrapper && ${1:-} != -* && ${1:-} != elasticsearch ]]; then exec "$@"; fi
if [[ ${1:-} == eswrapper || ${1:-} == elasticsearch ]]; then shift; fi
cd /usr/share/elasticsearch

as_node=()
if [[ $(id -u) == 0 ]]; then
  if [[ -n ${TAKE_FILE_OWNERSHIP:-} ]]; then chown -R 1000:0 data logs; fi
  as_node=(setpriv --reuid=1000 --regid=0 --clear-groups)
fi

settings=()
while IFS= read -r -d '' pair; do
  if [[ ${pair%%=*} =~ ^[a-z0-9_]+\.[a-z0-9_.]+$ && -n ${pair#*=} ]]; then settings+=("-E$pair"); fi
done </proc/self/environ

if [[ -n ${ELASTIC_PASSWORD_FILE:-} ]]; then ELASTIC_PASSWORD=$(<"$ELASTIC_PASSWORD_FILE"); fi
if [[ -n ${ELASTIC_PASSWORD:-} ]]; then
  [[ -f config/elasticsearch.keystore ]] || "${as_node[@]}" bin/elasticsearch-keystore create >/dev/null
  "${as_node[@]}" bin/elasticsearch-keystore add -f -x bootstrap.password <<<"$ELASTIC_PASSWORD"
fi
exec "${as_node[@]}" bin/elasticsearch "${settings[@]}" "$@"
