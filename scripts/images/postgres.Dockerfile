# Stand-in for the official postgres:15, from Debian's package.
ARG BASE
FROM ${BASE}
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PGDATA=/var/lib/postgresql/data PG_MAJOR=15 POSTGRES_INITDB_ARGS=--no-sync
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
# libLLVM serves the JIT compiler only and is half of the image; without the compiler PostgreSQL does without it.
RUN groupadd -r -g 999 postgres && useradd -r -g 999 -u 999 -d /var/lib/postgresql -s /bin/bash postgres \
 && mkdir -p /etc/postgresql-common /docker-entrypoint-initdb.d \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get update -q && apt-get install -qy --no-install-recommends postgresql-15 \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/lib/*/libLLVM-14* /usr/lib/llvm-14 /usr/lib/postgresql/*/lib/llvmjit* \
 && sed -ri "s!^#?listen_addresses\b.*!listen_addresses = '*'!" /usr/share/postgresql/15/postgresql.conf.sample \
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
 && install -d -o postgres -g postgres -m 700 "$PGDATA" \
 && install -d -o postgres -g postgres -m 700 /usr/share/postgresql/made \
 && setpriv --reuid=postgres --regid=postgres --clear-groups initdb --no-sync --username=postgres --auth-local=trust \
      --auth-host=scram-sha-256 -D /usr/share/postgresql/made >/dev/null
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
