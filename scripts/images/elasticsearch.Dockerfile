# Stand-in for the official elasticsearch:6.8.23: the distribution of Maven Central (in the context) and Debian's Java.
ARG BASE
FROM ${BASE}
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update -q && apt-get install -qy --no-install-recommends openjdk-17-jre-headless curl \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/man1 \
 && groupadd -g 1000 elasticsearch && useradd -u 1000 -g 1000 -G 0 -d /usr/share/elasticsearch elasticsearch
COPY --chown=1000:0 elasticsearch /usr/share/elasticsearch
COPY elasticsearch-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
WORKDIR /usr/share/elasticsearch
ENV PATH=/usr/share/elasticsearch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /usr/share/elasticsearch/data
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 9200 9300
CMD ["eswrapper"]
