# A host with systemd and sshd, as Ansible finds one; for tests of the installation.
ARG BASE
FROM ${BASE}
RUN apt-get update -q && apt-get install -qy --no-install-recommends \
      systemd systemd-sysv dbus openssh-server python3 python3-apt git iptables xfsprogs curl \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/* /etc/ssh/ssh_host_* \
 && systemctl mask systemd-udevd.service systemd-logind.service getty.target console-getty.service
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
