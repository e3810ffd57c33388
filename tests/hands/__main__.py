# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud with hands in a lab: python3 -m tests.hands --lab NAME start|stop aws, started in the checkout as root.

`start` ends when the API answers; what runs then ends with the lab (python3 -m tests.lab --lab NAME down).
"""

from __future__ import annotations

import argparse
import contextlib
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

from . import aws
from .hands import Hands, release_all

START_SECONDS = 60


def group(lab: Lab) -> Group:
    return Group(f"{lab.prefix}/cloud")


def start(lab: Lab) -> None:
    """Have the API and the hands, and say how the API is reached."""
    lab.prepare()
    lab.network.create()
    address = lab.network.address(1)
    folder = lab.folder / "cloud"
    folder.mkdir(exist_ok=True)
    if not group(lab).processes():
        group(lab).make()
        launch(lab, "api", lab.inside(*aws.serve(folder, address)))
        wait(lab, address)
        launch(lab, "hands", [sys.executable, "-m", "tests.hands", "--lab", lab.name, "work"])
    print(json.dumps(aws.environment(address)))


def launch(lab: Lab, name: str, command: list[str]) -> None:
    with (lab.folder / "cloud" / f"{name}.log").open("ab") as log:
        words = ["setsid", "--fork", *enter(group(lab), *command)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def wait(lab: Lab, address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with network_of(lab.network.namespace), contextlib.suppress(OSError):
            socket.create_connection((address, aws.PORT), 1).close()
            return
        if time.monotonic() > deadline:
            raise LabError(f"the API does not answer; see {lab.folder}/cloud/api.log")
        time.sleep(0.1)


def work(lab: Lab) -> None:
    Hands(lab.name, lambda: aws.Aws(lab.network.address(1))).work()


def stop(lab: Lab) -> None:
    """End the API and the hands; volumes are given back."""
    group(lab).kill()
    release_all(lab)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.hands", description=__doc__)
    parser.add_argument("--lab", required=True)
    parser.add_argument("deed", choices=("start", "work", "stop"))
    given = parser.parse_args()
    try:
        {"start": start, "work": work, "stop": stop}[given.deed](Lab(given.lab))
    except LabError as error:
        sys.exit(f"hands: {error}")


if __name__ == "__main__":
    main()
