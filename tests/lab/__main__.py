# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab by hand: python3 -m tests.lab [--lab NAME] COMMAND ..., started in the checkout as root."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields

from . import base
from .host import Host
from .lab import Lab
from .machine import PATH, LabError, missing_packages, missing_programs, obstacle

Arguments = argparse.Namespace


def up(lab: Lab, given: Arguments) -> None:
    options = {"image": given.image, "bare": given.bare, "disk_mb": given.disk_mb}
    lab.up({"name": name, **options} for name in given.names)


def make(lab: Lab, _unused: Arguments) -> None:
    """Make what a molecule.yml lists; what else a platform says is molecule's business."""
    known = {field.name for field in fields(Host)} - {"number", "behind"}
    platforms = json.load(sys.stdin)
    lab.up({key: value for key, value in platform.items() if key in known} for platform in platforms)


def listing(lab: Lab, _unused: Arguments) -> None:
    for name, host in lab.hosts.items():
        machine = lab.machine(name)
        state = "running" if machine.running() else "off"
        print(f"{name}  {lab.network.address(host.number)}  {host.image}  {state}  {machine.group.memory_mb()} MB")


def inventory(lab: Lab, given: Arguments) -> None:
    """JSON is YAML too: the fragment can be a file of an inventory folder."""
    hosts = lab.variables()
    dynamic = {"_meta": {"hostvars": hosts}, "all": {"hosts": list(hosts)}}
    print(json.dumps(dynamic if given.list else {"all": {"hosts": hosts}}, indent=2))


def become(command: list[str]) -> None:
    """Go on as another program."""
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, "PATH": PATH})  # noqa: S606 - no shell is wanted


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python3 -m tests.lab", description=__doc__)
    top.add_argument("--lab", default="hand", help="which lab; molecule's are called like the scenario (default: hand)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, action: Callable[[Lab, Arguments], object], hosts: str | None = None
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text)
        command.set_defaults(action=action)
        if hosts:
            command.add_argument("names", nargs=hosts, metavar="NAME")
        return command

    made = add("up", "make hosts and boot them", up, "+")
    made.add_argument("--image", default="bookworm", choices=base.recipe.IMAGES)
    made.add_argument("--bare", action="store_true", help="no package cache: neither distribution packages nor wheels")
    made.add_argument("--disk-mb", type=int, default=0, help="a disk of this size instead of the machine's")
    add("make", "make and boot the platforms of a molecule.yml, read from stdin as JSON", make)
    add("boot", "boot hosts that are off", lambda lab, given: lab.boot(given.names), "+")
    add("stop", "power hosts off in good order", lambda lab, given: lab.stop(given.names), "+")
    add("kill", "cut hosts' power", lambda lab, given: lab.kill(given.names), "+")
    add("reboot", "reboot hosts in good order", lambda lab, given: lab.reboot(given.names), "+")
    add("cut", "unplug hosts' network", lambda lab, given: lab.plug(given.names, False), "+")
    add("heal", "plug hosts' network in again", lambda lab, given: lab.plug(given.names, True), "+")
    add("offline", "close hosts' way to the outside", lambda lab, given: lab.set_offline(given.names, True), "+")
    add("online", "open it again", lambda lab, given: lab.set_offline(given.names, False), "+")
    add("leaked", "packets that offline hosts tried to send outside", lambda lab, _: print(json.dumps(lab.leaked())))
    behind = add("behind", "let NAME be reached only through JUMP", lambda lab, given: lab.hide(given.name, given.jump))
    behind.add_argument("name", metavar="NAME")
    behind.add_argument("jump", metavar="JUMP", nargs="?", help="none: directly again")
    disk = add(
        "disk", "leave a host so many MB free", lambda lab, given: lab.machine(given.name).free_space(given.free_mb)
    )
    disk.add_argument("name", metavar="NAME")
    disk.add_argument("free_mb", metavar="FREE_MB", nargs="?", type=int, help="none: give all space back")
    clock = add(
        "clock", "put a host's clock wrong", lambda lab, given: lab.machine(given.name).set_clock(given.seconds)
    )
    clock.add_argument("name", metavar="NAME")
    clock.add_argument("seconds", metavar="SECONDS", type=int, help="600: ten minutes ahead; 0: right again")
    shell = add(
        "ssh",
        "log in, or run a command",
        lambda lab, given: become(lab.ssh_command(given.name, *given.words, user=given.user)),
    )
    shell.add_argument("--user", default="root")
    shell.add_argument("name", metavar="NAME")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    inside = add("exec", "run a command inside the lab's network", lambda lab, given: become(lab.inside(*given.words)))
    inside.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    add("inventory", "how Ansible reaches the hosts", inventory).add_argument(
        "--list", action="store_true", help="as an inventory script prints it"
    )
    add("list", "list the hosts", listing)
    add("down", "destroy the lab", lambda lab, _: lab.down())
    prepared = add(
        "base", "make base roots", lambda _, given: [print(base.ensure(suite).root) for suite in given.suites]
    )
    prepared.add_argument("suites", nargs="*", default=["bookworm"], metavar="SUITE")
    return top


def main() -> None:
    given = parser().parse_args()
    started = time.monotonic()
    try:
        if reason := obstacle():
            raise LabError(f"no lab here: {reason}")
        if missing := missing_programs():
            raise LabError(f"missing: {', '.join(missing)}; apt-get install {' '.join(missing_packages())}")
        given.action(Lab(given.lab), given)
    except LabError as error:
        sys.exit(f"lab: {error}")
    if given.command in ("up", "make", "boot", "reboot", "stop", "kill", "down"):
        print(f"{given.command}: {time.monotonic() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
