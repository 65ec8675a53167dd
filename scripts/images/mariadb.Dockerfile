# Stand-in for the official mariadb:10.11, from Debian's package.
ARG BASE
FROM ${BASE}
COPY mariadb-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN groupadd -r -g 999 mysql && useradd -r -g 999 -u 999 -d /var/lib/mysql mysql \
 && mkdir -p /docker-entrypoint-initdb.d \
 && apt-get update -q && apt-get install -qy --no-install-recommends mariadb-server \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /var/lib/mysql /etc/mysql/mariadb.conf.d/50-server.cnf \
 && printf '[mysqld]\nbind-address = *\nskip-name-resolve\n' >/etc/mysql/mariadb.conf.d/50-container.cnf \
 && install -d -o mysql -g mysql -m 750 /var/lib/mysql && install -d -o mysql -g mysql -m 755 /run/mysqld
VOLUME /var/lib/mysql
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 3306
CMD ["mariadbd"]
