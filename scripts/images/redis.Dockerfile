# Stand-in for the official redis:7, from Debian's package.
ARG BASE
FROM ${BASE}
COPY redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN groupadd -r -g 999 redis && useradd -r -g 999 -u 999 -d /data redis \
 && apt-get update -q && apt-get install -qy --no-install-recommends redis-server redis-tools \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /var/lib/redis /etc/redis \
 && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
CMD ["redis-server"]
