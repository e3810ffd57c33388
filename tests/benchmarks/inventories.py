# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure openmined.pygrid.aws beside amazon.aws.aws_ec2, told to give the same hosts, groups and variables.

    make bench-inventories
    make bench-inventories EXTRA="--cases 1000x1 1000x20@250"      instances x regions @ milliseconds for each call

Prints Markdown. Both run as `ansible-inventory --list` in processes of their own, in turns, against the same server,
which replays what moto answered (ec2_replay.py). Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests.benchmarks.ec2_replay import PAGE_SIZE, regions  # noqa: E402 - the path is known only now
from tests.benchmarks.run import say  # noqa: E402
from tests.support.runtime import free_port  # noqa: E402
from tests.support.servers import moto_server, server  # noqa: E402

# Starts a command and writes what it took; a process of its own, since memory counts from that of who starts it.
MEASURE = """
import json, os, subprocess, sys, time
began = time.monotonic()
_pid, status, usage = os.wait4(subprocess.Popen(sys.argv[2:]).pid, 0)
took = [time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]
with open(sys.argv[1], "w") as file:
    json.dump(took, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
CASES = ("100x1", "1000x1", "5000x1", "10000x1", "1000x5@250", "1000x20@250")
OURS, THEIRS = "openmined.pygrid.aws", "amazon.aws.aws_ec2"
MACHINE = {
    "cloud": "'aws'",
    "id": "instance_id",
    "name": "tags.Name | default('')",
    "region": "placement.region",
    "zone": "placement.availability_zone",
    "state": "state.name",
    "type": "instance_type",
    "image": "image_id",
    "tags": "tags",
    "addresses": "{'private': private_ip_address, 'public': public_ip_address, 'private_name': private_dns_name,"
    " 'public_name': public_dns_name}",
}
SOURCES: dict[str, dict[str, Any]] = {
    OURS: {"grids": ["bench"]},
    THEIRS: {
        "filters": {"tag:pygrid_grid": ["bench"], "instance-state-name": ["pending", "running", "stopping", "stopped"]},
        "hostnames": ["tag:pygrid_name"],
        "strict": False,
        "keyed_groups": [{"key": "tags.pygrid_role", "prefix": "pygrid", "parent_group": "pygrid"}],
        "compose": {
            "ansible_host": "private_ip_address",
            "pygrid_worker_domain": "tags.pygrid_domain",
            "pygrid_machine": "{" + ", ".join(f"'{name}': {value}" for name, value in MACHINE.items()) + "}",
        },
    },
}


@dataclass(frozen=True)
class Case:
    """An account; ``text`` is how it was asked for."""

    text: str
    instances: int
    regions: int
    milliseconds: int

    @classmethod
    def parse(cls, text: str) -> Case:
        found = re.fullmatch(r"([0-9]+)x([0-9]+)(?:@([0-9]+))?", text)
        if not found:
            raise argparse.ArgumentTypeError(f"{text} is not INSTANCESxREGIONS or INSTANCESxREGIONS@MILLISECONDS")
        return cls(text, int(found[1]), int(found[2]), int(found[3] or 0))


@dataclass(frozen=True)
class Measure:
    """One run of ansible-inventory; seconds, megabytes, and how often the cloud was asked."""

    wall: float
    processor: float
    memory_mb: float
    calls: int
    document: dict[str, Any]

    @property
    def hosts(self) -> dict[str, dict[str, Any]]:
        return self.document["_meta"]["hostvars"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", type=Case.parse, default=[Case.parse(case) for case in CASES])
    parser.add_argument("--runs", type=int, default=3, help="of each, of which the median is taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pygrid-bench-") as name, replay(Path(name)) as port:
        folder = Path(name)
        list(measure(Case.parse("1x1"), 1, port, folder))  # so that nothing is read from a disk any more
        rows = [row for case in arguments.cases for row in measure(case, arguments.runs, port, folder)]
    print("| instances, regions, a call | cache | plugin | wall (s) | processor (s) | memory (MB) | calls | times |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


@contextmanager
def replay(folder: Path) -> Iterator[int]:
    """Record a page of moto's, and replay it; yields the port."""
    recorded = folder / "page.xml"
    with moto_server(folder / "moto.log") as port:
        say(f"recording {PAGE_SIZE} instances of moto")
        recorded.write_bytes(record(port))
    port = free_port()
    words = [sys.executable, str(Path(__file__).with_name("ec2_replay.py")), str(port), str(recorded)]
    with server(folder / "replay.log", *words, port=port):
        yield port


def record(port: int) -> bytes:
    """moto's answer for a page of nodes: for each Domain four Workers."""
    ec2 = boto3.client(
        "ec2",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    answers: list[bytes] = []
    for number in range(PAGE_SIZE):
        name = f"node-{number:05}"
        tags = {"pygrid_grid": "bench", "pygrid_name": name, "Name": f"machine of {name}", "Owner": "cardiology"}
        tags |= {"pygrid_role": "worker", "pygrid_domain": "alice"} if number % 5 else {"pygrid_role": "domain"}
        entries = [{"Key": key, "Value": value} for key, value in tags.items()]
        ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.large",
            TagSpecifications=[{"ResourceType": "instance", "Tags": entries}],
        )
    ec2.meta.events.register(
        "before-parse.ec2.DescribeInstances", lambda response_dict, **_: answers.append(response_dict["body"])
    )
    ec2.describe_instances(MaxResults=PAGE_SIZE)
    return re.sub(rb"<nextToken>[^<]*</nextToken>", b"", answers[0])


def measure(case: Case, runs: int, port: int, folder: Path) -> Iterator[str]:
    """Run both plugins on one account, asked and cached. Yields rows."""
    endpoint = f"http://127.0.0.1:{port}/{case.instances}/{case.regions}/{case.milliseconds}"
    sources = {plugin: write_source(folder / case.text, plugin, case) for plugin in (OURS, THEIRS)}
    for cached in (False, True):
        found: dict[str, list[Measure]] = {OURS: [], THEIRS: []}
        for _run in range(runs):
            for plugin, source in sources.items():
                say(f"{case.text} {'cached' if cached else 'asked'} {plugin}")
                found[plugin].append(run(source, endpoint, folder, flush=not cached))
        check(found[OURS][0], found[THEIRS][0], case)
        walls = {plugin: statistics.median(one.wall for one in measures) for plugin, measures in found.items()}
        for plugin, measures in found.items():
            processor, memory = (
                statistics.median(getattr(one, name) for one in measures) for name in ("processor", "memory_mb")
            )
            times = f"{walls[THEIRS] / walls[OURS]:.1f}" if plugin == OURS else ""
            yield (
                f"| {case.instances:,}, {case.regions}, {case.milliseconds} ms | {'hit' if cached else 'cold'} |"
                f" `{plugin}` | {walls[plugin]:.2f} | {processor:.2f} | {memory:.0f} | {measures[-1].calls} | {times} |"
            )


def write_source(folder: Path, plugin: str, case: Case) -> Path:
    source = folder / plugin / ("grid.yml" if plugin == OURS else "aws_ec2.yml")
    source.parent.mkdir(parents=True)
    cache = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(folder / plugin / "kept"),
    }
    options = {"plugin": plugin, "regions": regions(case.regions), **cache, **SOURCES[plugin]}
    source.write_text(yaml.safe_dump(options))
    return source


def run(source: Path, endpoint: str, folder: Path, flush: bool) -> Measure:
    """Run ansible-inventory and say what it took."""
    server_url = endpoint.rsplit("/", 3)[0]
    urllib.request.urlopen(f"{server_url}/calls").read()  # noqa: S310 - ours; counts from here
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": regions(1)[0],
        "ANSIBLE_INVENTORY_ENABLED": f"{OURS},{THEIRS}",
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
    }
    words = ["ansible-inventory", "-i", str(source), "--list"]
    took = folder / "took.json"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(took), *words, *(["--flush-cache"] if flush else [])],
        env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-3000:]}")
    calls = int(urllib.request.urlopen(f"{server_url}/calls").read())  # noqa: S310 - ours
    return Measure(*json.loads(took.read_text()), calls, json.loads(done.stdout))


def check(ours: Measure, theirs: Measure, case: Case) -> None:
    """Stop unless both give the same hosts, groups and variables; aws_ec2 gives more of them, which are named."""
    if len(ours.hosts) != case.instances:
        sys.exit(f"{case.text}: {len(ours.hosts)} hosts")
    groups = [
        {
            name: sorted(group["hosts"])
            for name, group in one.document.items()
            if group.get("hosts") and name != "aws_ec2"
        }
        for one in (ours, theirs)
    ]
    if groups[0] != groups[1]:
        sys.exit(f"{case.text}: other groups: {[list(one) for one in groups]}")
    for host, variables in ours.hosts.items():
        for name, value in variables.items():
            other = without_marks(theirs.hosts[host].get(name))
            if other != value:
                sys.exit(f"{case.text}: {host}: {name} is {value} and {other}")
    host = next(iter(ours.hosts))
    more = sorted(set(theirs.hosts[host]) - set(ours.hosts[host]))
    say(f"both give {', '.join(ours.hosts[host])}; {THEIRS} gives {len(more)} more: {', '.join(more)}")


def without_marks(value: Any) -> Any:
    """What ansible-inventory writes of strings that are never to be templates; ours are such without looking so."""
    if isinstance(value, dict):
        if list(value) == ["__ansible_unsafe"]:
            return value["__ansible_unsafe"]
        return {name: without_marks(inner) for name, inner in value.items()}
    return value


if __name__ == "__main__":
    main()
