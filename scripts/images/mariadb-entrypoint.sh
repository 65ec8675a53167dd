#!/bin/bash
# The part of the official mariadb image's contract that compose files lean on: MARIADB_ and MYSQL_
# ROOT_PASSWORD, DATABASE, USER, PASSWORD, their _FILE forms, and /docker-entrypoint-initdb.d.
# The server itself ends up as PID 1.
set -euo pipefail

if [[ ${1:-} == -* ]]; then set -- mariadbd "$@"; fi
case ${1:-} in mariadbd | mysqld) ;; *) exec "$@" ;; esac

if [[ $(id -u) == 0 ]]; then
  mkdir -p /var/lib/mysql /run/mysqld
  find /var/lib/mysql /run/mysqld \! -user mysql -exec chown mysql:mysql {} +
  exec setpriv --reuid=mysql --regid=mysql --clear-groups "$0" "$@"
fi

setting() { # NAME: MARIADB_NAME or MYSQL_NAME, or the file that its _FILE form names
  local name
  for name in "MARIADB_$1" "MYSQL_$1"; do
    if [[ -n ${!name:-} ]]; then printf '%s' "${!name}"; return; fi
    name=${name}_FILE
    if [[ -n ${!name:-} ]]; then printf '%s' "$(<"${!name}")"; return; fi
  done
}
quoted() { local text=${1//\\/\\\\}; printf "'%s'" "${text//\'/\'\'}"; }

if [[ ! -d /var/lib/mysql/mysql ]]; then
  root=$(setting ROOT_PASSWORD) database=$(setting DATABASE) user=$(setting USER) password=$(setting PASSWORD)
  if [[ -z $root && -z ${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-${MYSQL_ALLOW_EMPTY_PASSWORD:-}} ]]; then
    echo "Database is uninitialized and password option is not specified: MARIADB_ROOT_PASSWORD" >&2
    exit 1
  fi
  mariadb-install-db --skip-test-db --auth-root-authentication-method=normal --datadir=/var/lib/mysql >/tmp/install.log 2>&1 ||
    { cat /tmp/install.log >&2; exit 1; }
  {
    echo "ALTER USER root@localhost IDENTIFIED BY $(quoted "$root");"
    echo "CREATE USER root@'%' IDENTIFIED BY $(quoted "$root");"
    echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    if [[ -n $database ]]; then echo "CREATE DATABASE \`$database\`;"; fi
    if [[ -n $user ]]; then
      echo "CREATE USER $(quoted "$user")@'%' IDENTIFIED BY $(quoted "$password");"
      if [[ -n $database ]]; then echo "GRANT ALL ON \`$database\`.* TO $(quoted "$user")@'%';"; fi
    fi
  } >/tmp/init.sql
  # It is read before anybody is let in, one statement a line.
  set -- "$@" --init-file=/tmp/init.sql
  if compgen -G '/docker-entrypoint-initdb.d/*' >/dev/null; then
    mariadbd --skip-networking --init-file=/tmp/init.sql &
    pid=$!
    login=(-uroot --protocol=socket)
    until MYSQL_PWD=$root mariadb-admin "${login[@]}" ping >/dev/null 2>&1; do kill -0 "$pid"; sleep 0.1; done
    for file in /docker-entrypoint-initdb.d/*; do
      case $file in
        # shellcheck disable=SC1090 # the user's own
        *.sh) if [[ -x $file ]]; then "$file"; else . "$file"; fi ;;
        *.sql) MYSQL_PWD=$root mariadb "${login[@]}" "$database" <"$file" ;;
        *.sql.gz) gunzip -c "$file" | MYSQL_PWD=$root mariadb "${login[@]}" "$database" ;;
      esac
    done
    MYSQL_PWD=$root mariadb-admin "${login[@]}" shutdown
    wait "$pid"
    set -- "${@:1:$#-1}"
  fi
fi
exec "$@"
