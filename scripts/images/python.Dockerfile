# Stand-in for the official python:3.11-slim. It already has what the example's requirements.txt asks
# for, as Debian packages, so that `pip install -r` succeeds where no package index answers.
ARG BASE
FROM ${BASE}
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates python3 python-is-python3 python3-pip \
      python3-aiohttp python3-asyncpg python3-redis python3-pytest \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/lib/python3.*/EXTERNALLY-MANAGED
CMD ["python3"]
