# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a node is backed up by itself: a timer of systemd for each node, or in scope user one process for them all."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.backup_folder import BackupFolder, Plan
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import locked, read_text, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import SYSTEM_CONFIGURATION, SYSTEM_STATE, Home
from ansible_collections.openmined.pygrid.plugins.module_utils.services.base import ServiceSpec
from ansible_collections.openmined.pygrid.plugins.module_utils.services.supervisor import Supervisor
from ansible_collections.openmined.pygrid.plugins.module_utils.services.systemd import LOCK, UNITS, systemctl
from ansible_collections.openmined.pygrid.plugins.module_utils.services.systemd_units import HEADER

# In scope user nothing understands more of systemd's calendar than these words.
PERIODS_SECONDS = {"hourly": 3_600, "daily": 86_400, "weekly": 604_800, "monthly": 2_592_000}
# Among the programs of supervisor; no node is called like that.
PROCESS = "pygrid-backup"
DROP_IN = "10-pygrid.conf"
CALL_SECONDS = 120

SERVICE = """\
[Unit]
Description=Backup of PyGrid node %i
Documentation=https://restic.readthedocs.io
After=network-online.target postgresql.service
Wants=network-online.target
# Another backup, or a change of the node, may be at work: it is tried again, but not for ever.
StartLimitIntervalSec=6h
StartLimitBurst=6

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=15min
Nice=10
IOSchedulingClass=idle
UMask=0077
LimitCORE=0
SyslogIdentifier=pygrid-backup-%i

# Root's rights over files, because it reads what belongs to the node, and to become the account of the node.
NoNewPrivileges=true
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SETUID CAP_SETGID
ProtectSystem=strict
ReadWritePaths={writes}
ProtectHome=read-only
PrivateTmp=true
PrivateDevices=true
PrivateMounts=true
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectKernelLogs=true
ProtectControlGroups=true
ProtectClock=true
ProtectHostname=true
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
KeyringMode=private
InaccessiblePaths=-/etc/pygrid/tls -/etc/pygrid/ingress -/root
"""

TIMER = """\
[Unit]
Description=Backups of PyGrid node %i

[Timer]
# Not all nodes of a grid at the same moment; what was missed while the host was off is made up for.
RandomizedDelaySec=30min
Persistent=true

[Install]
WantedBy=timers.target
"""


def program(home: Home) -> Path:
    """The program that makes scheduled backups: the same modules, packed into one file."""
    return home.tools / "backup" / "pygrid-backup.pyz"


def schedule_problem(home: Home, plan: Plan) -> str:
    """What is wrong with the words of the schedule; empty when nothing is."""
    if not plan.schedule:
        return ""
    if home.scope == "user":
        if plan.schedule in PERIODS_SECONDS:
            return ""
        return f"pygrid_backup_schedule is {plan.schedule!r}; in scope user it is one of {', '.join(PERIODS_SECONDS)}"
    command = ["systemd-analyze", "calendar", plan.schedule]
    if shutil.which(command[0]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
        if done.returncode != 0:
            return f"pygrid_backup_schedule is {plan.schedule!r}: {' '.join(done.stderr.split())}"
    return ""


def is_scheduled(home: Home, plan: Plan) -> bool:
    """Whether the node is backed up just when the plan says."""
    if home.scope == "user":
        supervisor = Supervisor(home)
        if not plan.schedule:
            return bool(_others(home, plan.node)) or not supervisor.is_known(PROCESS)
        return supervisor.is_defined(_process(home)) and supervisor.state(PROCESS).is_up
    if not plan.schedule:
        return not _drop_in(plan.node).exists()
    enabled = (UNITS / "timers.target.wants" / _timer(plan.node)).is_symlink()
    return enabled and all(read_text(path) == text for path, text in _files(home, plan).items())


def set_schedule(home: Home, plan: Plan, again: bool) -> None:
    """Let the node be backed up when the plan says. ``again``: the program is another one now."""
    if not plan.schedule:
        remove_schedule(home, plan.node)
    elif home.scope == "user":
        with locked(home.locks / "backup-schedule.lock"):  # the nodes of the home share it
            if not is_scheduled(home, plan) or again:
                Supervisor(home).run(_process(home))
    else:
        with locked(LOCK):
            for path, text in _files(home, plan).items():
                path.parent.mkdir(mode=0o755, exist_ok=True)
                write_if_different(path, text, 0o644)
            if plan.local_folder is not None:
                plan.local_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            systemctl("daemon-reload")
            systemctl("enable", _timer(plan.node))
            systemctl("restart", _timer(plan.node))


def remove_schedule(home: Home, name: str) -> None:
    """No backups of this node by themselves any more; harmless when there were none."""
    if home.scope == "user":
        if not _others(home, name) and Supervisor(home).is_known(PROCESS):
            Supervisor(home).remove(PROCESS, 30)
        return
    if not _drop_in(name).exists():
        return
    with locked(LOCK):
        systemctl("disable", "--now", _timer(name))
        for path in (_drop_in(name), _service_drop_in(name)):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        if not list(UNITS.glob(f"pygrid-backup@*.timer.d/{DROP_IN}")):
            for suffix in ("service", "timer"):
                (UNITS / f"pygrid-backup@.{suffix}").unlink(missing_ok=True)
        systemctl("daemon-reload")


def scheduled_nodes(home: Home) -> list[Plan]:
    """The plans of the nodes of this home that are backed up by themselves."""
    plans = [BackupFolder(home.node(name)).plan() for name in home.node_names()]
    return [plan for plan in plans if plan is not None and plan.schedule]


def _others(home: Home, name: str) -> list[Plan]:
    return [plan for plan in scheduled_nodes(home) if plan.node != name]


def _process(home: Home) -> ServiceSpec:
    """The one process of scope user; it runs with supervisor's own Python, which no node takes away."""
    pythons = sorted(home.tools.glob("supervisor-*/bin/python"))
    if not pythons:
        raise PygridError(f"supervisor is not staged in {home.tools}; run playbooks/deploy.yml")
    return ServiceSpec(
        name=PROCESS,
        kind="backup",
        command=[str(pythons[-1]), str(program(home)), "serve", home.scope, str(home.root)],
        directory=str(home.root),
        log_file=str(home.supervisor / "backup.log"),
        stop_seconds=60,
        environment={"PYTHONUNBUFFERED": "1"},
    )


def _files(home: Home, plan: Plan) -> dict[Path, str]:
    """Every file of a node's timer; the templates are shared."""
    command = shlex.join([sys.executable, str(program(home)), "take", home.scope, str(home.root), "%i"])
    places = [SYSTEM_CONFIGURATION / "nodes", SYSTEM_STATE, home.log, home.locks, home.cache.parent]
    files = {
        UNITS / "pygrid-backup@.service": HEADER
        + SERVICE.format(command=command, writes=" ".join(f"-{place}" for place in places)),
        UNITS / "pygrid-backup@.timer": HEADER + TIMER,
        _drop_in(plan.node): f"{HEADER}[Timer]\nOnCalendar={plan.schedule}\n",
    }
    if plan.local_folder is not None:
        files[_service_drop_in(plan.node)] = f"{HEADER}[Service]\nReadWritePaths={plan.local_folder}\n"
    return files


def _timer(name: str) -> str:
    return f"pygrid-backup@{name}.timer"


def _drop_in(name: str) -> Path:
    return UNITS / f"{_timer(name)}.d" / DROP_IN


def _service_drop_in(name: str) -> Path:
    return UNITS / f"pygrid-backup@{name}.service.d" / DROP_IN
