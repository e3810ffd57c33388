# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud with hands in a lab: python3 -m tests.hands --lab NAME start [CLOUD]|stop, started in the checkout as root.

`start` ends when the API answers; what runs then ends with the lab (python3 -m tests.lab --lab NAME down).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import time

from tests.lab.groups import Group
from tests.lab.lab import Lab
from tests.lab.machine import LabError, network_of
from tests.lab.network import enter

from .cloud import Cloud
from .hands import Hands, release_all

START_SECONDS = 60
CLOUDS = ("aws", "azure", "digitalocean", "gcp", "openstack")


def group(lab: Lab) -> Group:
    return Group(f"{lab.prefix}/hands")


def cloud_called(name: str) -> Cloud:
    return importlib.import_module(f"{__package__}.{name}")  # type: ignore[return-value]


def start(lab: Lab, name: str) -> None:
    """Have the API and the hands, and say how the API is reached."""
    cloud = cloud_called(name)
    lab.prepare()
    lab.network.create()
    (lab.folder / "cloud").mkdir(exist_ok=True)
    if not group(lab).processes():
        group(lab).make()
        command, port = cloud.serve(lab)
        if command:
            launch(lab, "api", lab.inside(*command))
            wait(lab, port)
        launch(lab, "hands", [sys.executable, "-m", "tests.hands", "--lab", lab.name, "work", name])
    print(json.dumps(cloud.environment(lab)))


def launch(lab: Lab, name: str, command: list[str]) -> None:
    with (lab.folder / "cloud" / f"{name}.log").open("ab") as log:
        words = ["setsid", "--fork", *enter(group(lab), *command)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def wait(lab: Lab, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with network_of(lab.network.namespace), contextlib.suppress(OSError):
            socket.create_connection((lab.network.address(1), port), 1).close()
            return
        if time.monotonic() > deadline:
            raise LabError(f"the API does not answer; see {lab.folder}/cloud/api.log")
        time.sleep(0.1)


def work(lab: Lab, name: str) -> None:
    Hands(lab.name, cloud_called(name)).work()


def stop(lab: Lab, _name: str) -> None:
    """End the API and the hands; volumes are given back."""
    group(lab).kill()
    release_all(lab)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.hands", description=__doc__)
    parser.add_argument("--lab", required=True)
    parser.add_argument("deed", choices=("start", "work", "stop"))
    parser.add_argument("cloud", nargs="?", default="aws", choices=CLOUDS)
    given = parser.parse_args()
    try:
        {"start": start, "work": work, "stop": stop}[given.deed](Lab(given.lab), given.cloud)
    except LabError as error:
        sys.exit(f"hands: {error}")


if __name__ == "__main__":
    main()
