#!/bin/bash
# The part of the official postgres image's contract that compose files lean on:
# POSTGRES_USER, _PASSWORD, _DB, their _FILE forms, POSTGRES_INITDB_ARGS, PGDATA and
# /docker-entrypoint-initdb.d. PostgreSQL itself ends up as PID 1.
set -euo pipefail

if [[ ${1:-} == -* ]]; then set -- postgres "$@"; fi
if [[ ${1:-} != postgres ]]; then exec "$@"; fi

from_file() { # NAME: takes NAME from the file that NAME_FILE names
  local file_var=${1}_FILE
  if [[ -n ${!file_var:-} ]]; then export "$1"="$(<"${!file_var}")"; unset "$file_var"; fi
}
from_file POSTGRES_USER; from_file POSTGRES_PASSWORD; from_file POSTGRES_DB

if [[ $(id -u) == 0 ]]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  find "$PGDATA" /var/run/postgresql \! -user postgres -exec chown postgres:postgres {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

init_scripts() {
  local f
  for f in /docker-entrypoint-initdb.d/*; do
    # shellcheck disable=SC1090 # the user's own
    case $f in
      *.sh) if [[ -x $f ]]; then "$f"; else . "$f"; fi ;;
      *.sql) psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$user" -d "$db" -f "$f" ;;
      *.sql.gz) gunzip -c "$f" | psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$user" -d "$db" ;;
    esac
  done
}

make() {
  local arguments
  read -ra arguments <<<"${POSTGRES_INITDB_ARGS:-}"
  initdb --username="$user" --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:-}") "${arguments[@]}" \
    --auth-local=trust --auth-host="$method" -D "$PGDATA"
}

# What initdb made once, with this superuser and password: a quarter of the work. For tests that begin with an empty
# database; unknown to the official image, which then does it all.
copy() {
  cp -a /usr/share/postgresql/made/. "$PGDATA/" &&
    printf "UPDATE pg_authid SET rolname = '%s' WHERE oid = 10\nALTER ROLE \"%s\" PASSWORD '%s'\n" \
      "${user//\'/\'\'}" "${user//\"/\"\"}" "${POSTGRES_PASSWORD//\'/\'\'}" | postgres --single -D "$PGDATA" postgres
}

if [[ ! -s $PGDATA/PG_VERSION ]]; then
  user=${POSTGRES_USER:-postgres}
  db=${POSTGRES_DB:-$user}
  method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
  if [[ -z ${POSTGRES_PASSWORD:-} && $method != trust ]]; then
    echo "Error: Database is uninitialized and superuser password is not specified." >&2
    echo "       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser." >&2
    exit 1
  fi
  how=make
  if [[ -n ${STAND_IN_COPIES:-} && $method == scram-sha-256 ]]; then how=copy; fi
  "$how" >/tmp/initdb.log 2>&1 || { cat /tmp/initdb.log >&2; exit 1; }
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  if [[ $db != postgres ]]; then
    # A single-user backend: no server answers before the data is complete.
    printf 'CREATE DATABASE "%s"\n' "${db//\"/\"\"}" | postgres --single -D "$PGDATA" postgres >/dev/null
  fi
  if compgen -G '/docker-entrypoint-initdb.d/*' >/dev/null; then
    # Only the Unix socket, so that nobody on the network meets a half-made database.
    PGUSER=$user pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    PGDATABASE=$db PGUSER=$user init_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
  fi
  unset PGPASSWORD
  echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
