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
# Java takes its classes from an archive that a first start leaves: every later one takes a quarter less.
USER 1000:0
RUN (until curl -sf --max-time 2 127.0.0.1:9299; do sleep 0.2; done; kill $(cat /tmp/pid)) & \
    ES_JAVA_OPTS="-Xms256m -Xmx256m -XX:ArchiveClassesAtExit=/usr/share/elasticsearch/data/classes.jsa" timeout 120 bin/elasticsearch -p /tmp/pid \
      -Enetwork.host=127.0.0.1 -Ehttp.port=9299 -Etransport.port=9399 -Ediscovery.type=single-node; \
    mv data/classes.jsa config && rm -rf data/* logs/* \
 && echo -XX:SharedArchiveFile=/usr/share/elasticsearch/config/classes.jsa >>config/jvm.options
USER root
ENV PATH=/usr/share/elasticsearch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /usr/share/elasticsearch/data
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 9200 9300
CMD ["eswrapper"]
