# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of the systemd units: a template for each kind of node, and what is particular to one node as a drop-in."""

from __future__ import annotations

from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceSpec

HEADER = "# Written by openmined.pygrid; a deploy puts back what is changed here. Own settings: another drop-in.\n"

# Whoever listens for others gets its socket from systemd: while it restarts, clients wait instead of being refused.
LISTENING = ("network", "domain")

TITLES = {"network": "PyGrid Network", "domain": "PyGrid Domain", "worker": "PyGrid Worker"}

SERVICE = """\
[Unit]
Description={title} %i
Documentation=https://github.com/OpenMined/PySyft
# A database or a proxy on the same host is there first, if there is one.
After=network-online.target postgresql.service pygrid-firewall.service{after}
Wants=network-online.target
# They may be a volume of their own, which the node does not start without.
RequiresMountsFor=/etc/pygrid/nodes /var/lib/pygrid
StartLimitIntervalSec=0
{requires}
[Service]
Type=notify
NotifyAccess=main
ExecStart=/etc/pygrid/nodes/%i/current/env/bin/python -m pygrid_node run /etc/pygrid/nodes/%i/settings.json
WorkingDirectory=/var/lib/pygrid/%i
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
TimeoutStartSec=300
# A node that hangs is as dead as one that has ended.
WatchdogSec=60
Restart=always
RestartSec=2
# 78: its settings are refused, and will be so again.
RestartPreventExitStatus=78
# A Worker finishes its job after the signal; what is left of a job after the time-out must not live on.
KillMode=mixed
StateDirectory=pygrid/%i
StateDirectoryMode=0700
RuntimeDirectory=pygrid/%i
RuntimeDirectoryMode=0700
UMask=0077
LimitNOFILE=16384
# A core would hold secrets.
LimitCORE=0
SyslogIdentifier=pygrid-{kind}-%i

# User code runs here: nothing but its own data and its Domain.
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=true
PrivateDevices=true
PrivateUsers=true
PrivateIPC=true
PrivateMounts=true
# Its own, so that the shared memory of a killed job goes with it.
TemporaryFileSystem=/dev/shm:mode=1777,size=512M
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
ProtectProc=invisible
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX{families}
LockPersonality=true
MemoryDenyWriteExecute=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
# Not ~@resources: libzmq sets the priority of its threads and ends the process when it may not.
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
KeyringMode=private
RemoveIPC=true
DevicePolicy=closed
InaccessiblePaths=-/etc/pygrid/tls -/etc/pygrid/ingress -/etc/ssh -/root

[Install]
WantedBy=multi-user.target
"""

SOCKET = """\
[Unit]
Description={title} %i, its port
After=pygrid-firewall.service

[Socket]
Backlog=1024
NoDelay=true

[Install]
WantedBy=sockets.target
"""


def service_template(kind: str) -> str:
    """Text of ``pygrid-<kind>@.service``."""
    listening = kind in LISTENING
    return HEADER + SERVICE.format(
        title=TITLES[kind],
        kind=kind,
        after=f" pygrid-{kind}@%i.socket" if listening else "",
        # libzmq lists the interfaces of the host when it binds the Domain's queue.
        families=" AF_NETLINK" if kind == "domain" else "",
        requires=f"Requires=pygrid-{kind}@%i.socket\n" if listening else "",
    )


def socket_template(kind: str) -> str:
    """Text of ``pygrid-<kind>@.socket``."""
    return HEADER + SOCKET.format(title=TITLES[kind])


def service_drop_in(spec: ServiceSpec) -> str:
    """What is particular to one node: its account, secrets, limits and addresses."""
    lines = ["[Service]", f"User={spec.account}", f"Group={spec.account}"]
    lines += [f"LoadCredential={name}:{path}" for name, path in sorted(spec.credentials.items())]
    if spec.hold_file:
        lines.append(f"ExecStartPre=+/usr/bin/flock --shared {spec.hold_file} /usr/bin/true")
    lines.append(f"TimeoutStopSec={spec.stop_seconds}")
    limits = spec.limits
    if limits.cpu_percent:
        lines.append(f"CPUQuota={limits.cpu_percent}%")
    if limits.memory_mb:
        # Reclaimed from nine tenths on: a job that grows is slowed down before it is killed.
        lines += [f"MemoryHigh={limits.memory_mb * 9 // 10}M", f"MemoryMax={limits.memory_mb}M"]
    if limits.tasks:
        lines.append(f"TasksMax={limits.tasks}")
    if spec.talks_to is not None:
        # Where the kernel has cgroup v2; the firewall says the same by account.
        lines += ["IPAddressDeny=any", *(f"IPAddressAllow={address}" for address in spec.talks_to)]
    return HEADER + "\n".join(lines) + "\n"


def socket_drop_in(spec: ServiceSpec) -> str:
    """Where one node listens."""
    return HEADER + "[Socket]\n" + "".join(f"ListenStream={place}\n" for place in spec.listen)
