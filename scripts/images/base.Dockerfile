# What the three stand-in images share: a debootstrapped Debian whose apt works as the host's does.
ARG BASE
FROM ${BASE}
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
COPY apt/ /etc/apt/
COPY certs/ /etc/ssl/certs/
