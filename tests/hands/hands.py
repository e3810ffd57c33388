# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make of a lab what the books of a cloud say."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.machine import LabError, locked, network_of, run

from .cloud import Booked, Cloud

IMAGE = "bookworm-cloud"
PAUSE_SECONDS = 0.5


class Hands:
    """Hands of one cloud, in a lab of this name. Its hosts of other images are none of theirs."""

    def __init__(self, name: str, cloud: Cloud) -> None:
        self.name = name
        self.cloud = cloud
        self.folder = Lab(name).folder / "cloud"
        #: Machines that somebody works on at the moment.
        self._busy: set[str] = set()
        self._lock = threading.Lock()

    def work(self) -> None:
        """Read the books for ever, and do what they say; each machine by itself, as it takes time to boot one."""
        with network_of(Lab(self.name).network.namespace):
            books = self.cloud.open_books(Lab(self.name))
        while True:
            try:
                with network_of(Lab(self.name).network.namespace):
                    booked = {machine.name: machine for machine in books.machines()}
                    images, volumes = books.images(), set(books.volumes())
                self._keep_images(images)
                self._follow(booked)
                self._forget(set(images), volumes)
            except Exception:  # the API may be gone for a while, as any API
                traceback.print_exc()
            time.sleep(PAUSE_SECONDS)

    def _follow(self, booked: dict[str, Booked]) -> None:
        for name, host in Lab(self.name).hosts.items():
            if name not in booked and host.image == IMAGE:
                self._start(name, lambda lab, name=name: self._take_away(lab, name))
        for name, machine in booked.items():
            self._start(name, lambda lab, machine=machine: self._see_to(lab, machine))

    def _start(self, name: str, deed: Callable[[Lab], None]) -> None:
        with self._lock:
            if name in self._busy:
                return
            self._busy.add(name)

        def do() -> None:
            try:
                deed(Lab(self.name))
            except Exception as error:  # is tried again
                print(f"{name}: {error}", file=sys.stderr, flush=True)
            finally:
                with self._lock:
                    self._busy.discard(name)

        threading.Thread(target=do, daemon=True).start()

    def _see_to(self, lab: Lab, machine: Booked) -> None:
        """Have a machine as it is booked."""
        host = lab.hosts.get(machine.name)
        if host is None:
            if machine.runs:
                self._make(lab, machine)
            return
        runs = lab.machine(machine.name).running()
        if runs and not machine.runs:
            print(f"{machine.name}: stops", flush=True)
            lab.stop([machine.name])
        elif not runs and machine.runs:
            print(f"{machine.name}: starts as {machine.size}", flush=True)
            lab.change(machine.name, memory_mb=machine.memory_mb, processors=machine.processors)
            lab.boot([machine.name])
        if machine.runs:
            self._plug_in(lab, machine)

    def _make(self, lab: Lab, machine: Booked) -> None:
        print(f"{machine.name}: appears as {machine.size} at {machine.address}", flush=True)
        subnet, _dot, number = machine.address.rpartition(".")
        if subnet != lab.subnet:
            raise LabError(f"{machine.address} is no address of the lab's network {lab.subnet}.0/24")
        layer = self.folder / "images" / machine.image
        host = Host(
            name=machine.name,
            number=int(number),
            image=IMAGE,
            seed=seed(machine),
            memory_mb=machine.memory_mb,
            processors=machine.processors,
            layer=str(layer) if layer.exists() else "",
        )
        lab.up([host.as_document()])
        print(f"{machine.name}: runs", flush=True)

    def _take_away(self, lab: Lab, name: str) -> None:
        print(f"{name}: is gone", flush=True)
        lab.destroy(name)

    def _plug_in(self, lab: Lab, machine: Booked) -> None:
        """Have a device in the running machine for each of its volumes. What has left it is not pulled out."""
        if not machine.volumes:
            return
        devices = Path(f"/proc/{lab.machine(machine.name).init()}/root/dev")
        for plugged in machine.volumes:
            there = devices / plugged.device
            if there.exists():
                continue
            loop = self._loop_of(plugged.volume, plugged.gigabytes)
            os.mknod(there, stat.S_IFBLK | 0o660, Path(loop).stat().st_rdev)
            by_id = devices / "disk" / "by-id"
            by_id.mkdir(parents=True, exist_ok=True)
            link = Path(os.path.normpath(by_id / plugged.link))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(there, link.parent))
            print(f"{machine.name}: has {plugged.volume} as {plugged.device}", flush=True)

    def _loop_of(self, volume: str, gigabytes: int) -> str:
        disk = self.folder / "volumes" / volume
        disk.parent.mkdir(parents=True, exist_ok=True)
        if not disk.exists():
            with disk.open("wb") as file:
                file.truncate(gigabytes << 30)  # takes no space
        used = json.loads(run("losetup", "--json", "--list", "--associated", disk) or '{"loopdevices": []}')
        if used["loopdevices"]:
            return used["loopdevices"][0]["name"]
        return run("losetup", "--find", "--show", disk).strip()

    def _keep_images(self, images: dict[str, str]) -> None:
        for image, source in images.items():
            layer = self.folder / "images" / image
            if not layer.exists() and source in Lab(self.name).hosts:
                print(f"{image}: an image of {source}", flush=True)
                Lab(self.name).machine(source).keep_as_layer(layer)

    def _forget(self, images: set[str], volumes: set[str]) -> None:
        used = {host.layer for host in Lab(self.name).hosts.values()}
        for layer in (self.folder / "images").glob("*"):
            if layer.name not in images and str(layer) not in used:
                shutil.rmtree(layer, ignore_errors=True)
        for disk in (self.folder / "volumes").glob("*"):
            if disk.name not in volumes:
                release(disk)
                disk.unlink()


def seed(machine: Booked) -> dict[str, str]:
    """What cloud-init finds: the API's words in the form of a folder."""
    told = {"instance-id": machine.name, "local-hostname": machine.name, "public-keys": list(machine.keys)}
    return {"meta-data": json.dumps(told), "user-data": machine.user_data or "#cloud-config\n"}


def release(disk: Path) -> None:
    """Give the loop device of a volume back."""
    for line in run("losetup", "--noheadings", "--output", "NAME", "--associated", disk).split():
        run("losetup", "--detach", line)


def release_all(lab: Lab) -> None:
    with locked(lab.folder / "cloud.lock"):
        for disk in (lab.folder / "cloud" / "volumes").glob("*"):
            release(disk)
