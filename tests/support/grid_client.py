# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real syft client for tests; runs with a release's Python and prints its answer as JSON on the last line.

python grid_client.py peers       URL
python grid_client.py seed        URL IDENTITY_FILE
python grid_client.py fingerprint URL IDENTITY_FILE
python grid_client.py submit      URL IDENTITY_FILE SECONDS
python grid_client.py result      URL IDENTITY_FILE JOB_ID TIMEOUT_SECONDS
python grid_client.py big_job     URL IDENTITY_FILE TIMEOUT_SECONDS
python grid_client.py greedy      URL IDENTITY_FILE MEGABYTES TIMEOUT_SECONDS
python grid_client.py large       URL IDENTITY_FILE MEGABYTES
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import syft as sy
from syft.service.policy.policy import MixedInputPolicy, OutputPolicyExecuteCount
from syft.types.uid import UID

DATASET = "patients"


def login(url: str, identity_file: str) -> Any:
    identity = json.loads(Path(identity_file).read_text())
    return sy.login(url=url, email=identity["root_email"], password=identity["root_password"], cache=False)


def peers(url: str) -> dict[str, str]:
    """Domains that a guest of the Network finds, with their state."""
    guest = sy.login_as_guest(url=url)
    found = guest.api.services.network.get_all_peers()
    return {peer.name: getattr(peer.ping_status, "name", "UNKNOWN") for peer in found}


def seed(url: str, identity_file: str) -> dict[str, Any]:
    """A dataset with a small and a large (blob) asset, and a user."""
    client = login(url, identity_file)
    small, large = np.arange(10.0), np.random.default_rng(1).random(400_000)
    assets = [
        sy.Asset(name="small", data=small, mock=small * 0),
        sy.Asset(name="large", data=large, mock=large[:10] * 0),
    ]
    client.upload_dataset(sy.Dataset(name=DATASET, asset_list=assets))
    client.users.create(
        email="grace@research.example", password="correct horse", password_verify="correct horse", name="Grace"
    )
    return {"sum": float(small.sum())}


def fingerprint(url: str, identity_file: str) -> dict[str, Any]:
    """Everything that has to survive: identity, users, datasets with their bytes, jobs with their results."""
    client = login(url, identity_file)
    datasets = {
        str(dataset.id): {
            asset.name: hashlib.sha256(np.ascontiguousarray(asset.data).tobytes()).hexdigest()
            for asset in dataset.assets
        }
        for dataset in client.datasets
    }
    return {
        "id": str(client.id),
        "verify_key": str(client.metadata.id if hasattr(client.metadata, "id") else ""),
        "users": sorted(user.email for user in client.users),
        "datasets": datasets,
        "jobs": {str(job.id): job.status.value for job in client.jobs},
    }


def submit(url: str, identity_file: str, seconds: str) -> dict[str, str]:
    """A job over private data that takes a while; returns without waiting for it."""
    client = login(url, identity_file)
    asset = next(asset for dataset in client.datasets for asset in dataset.assets if asset.name == "small")

    @sy.syft_function(
        input_policy=MixedInputPolicy(data=asset, seconds=float, client=client),
        output_policy=OutputPolicyExecuteCount(limit=1000),
    )
    def slow_sum(data, seconds):  # noqa: ANN001, ANN202 - syft sends the source as it stands
        import time

        time.sleep(seconds)
        return float(data.sum())

    if "slow_sum" not in [code.service_func_name for code in client.code]:
        client.code.request_code_execution(slow_sum).approve(disable_warnings=True)
    job = client.code.slow_sum(data=asset, seconds=float(seconds), blocking=False)
    return {"job": str(job.id)}


def result(url: str, identity_file: str, job_id: str, timeout_seconds: str) -> dict[str, Any]:
    """Wait for a job and read its result."""
    client = login(url, identity_file)
    end = time.monotonic() + float(timeout_seconds)
    while True:
        job = client.jobs.get(UID.from_string(job_id))
        if job.status.value in ("completed", "errored", "interrupted") or time.monotonic() > end:
            break
        time.sleep(0.5)
    value = job.result.get() if job.status.value == "completed" else None
    return {"status": job.status.value, "value": value}


def big_job(url: str, identity_file: str, timeout_seconds: str) -> dict[str, Any]:
    """A job that reads a large object (a blob) and writes another one; is it the same afterwards?"""
    client = login(url, identity_file)
    asset = next(asset for dataset in client.datasets for asset in dataset.assets if asset.name == "large")

    @sy.syft_function(
        input_policy=MixedInputPolicy(data=asset, client=client), output_policy=OutputPolicyExecuteCount(limit=1000)
    )
    def doubled(data):  # noqa: ANN001, ANN202 - syft sends the source as it stands
        return data * 2

    if "doubled" not in [code.service_func_name for code in client.code]:
        client.code.request_code_execution(doubled).approve(disable_warnings=True)
    job = client.code.doubled(data=asset, blocking=False)
    end = time.monotonic() + float(timeout_seconds)
    while job.status.value not in ("completed", "errored", "interrupted") and time.monotonic() < end:
        time.sleep(0.5)
        job = client.jobs.get(job.id)
    if job.status.value != "completed":
        return {"status": job.status.value, "same": False}
    return {"status": "completed", "same": bool(np.array_equal(job.result.get(), asset.data * 2))}


def greedy(url: str, identity_file: str, megabytes: str, timeout_seconds: str) -> dict[str, Any]:
    """A job that takes so much memory, if it is let."""
    client = login(url, identity_file)

    @sy.syft_function(
        input_policy=MixedInputPolicy(megabytes=int, client=client), output_policy=OutputPolicyExecuteCount(limit=1000)
    )
    def eat(megabytes):  # noqa: ANN001, ANN202 - syft sends the source as it stands
        return sum(len(part) for part in [bytearray(b"x") * 1_000_000 for _number in range(megabytes)])

    client.code.request_code_execution(eat).approve(disable_warnings=True)
    job = client.code.eat(megabytes=int(megabytes), blocking=False)
    return result(url, identity_file, str(job.id), timeout_seconds)


def large(url: str, identity_file: str, megabytes: str) -> dict[str, Any]:
    """Upload a dataset of so many megabytes and read it back; is it the same?"""
    client = login(url, identity_file)
    data = np.frombuffer(np.random.default_rng(2).bytes(int(megabytes) * 1_000_000), dtype=np.uint8)
    name = f"{megabytes} MB of scans"
    asset = sy.Asset(name=name, data=data, mock=data[:10])
    client.upload_dataset(sy.Dataset(name=name, asset_list=[asset]))
    back = next(asset for dataset in client.datasets for asset in dataset.assets if asset.name == name).data
    return {"megabytes": int(megabytes), "same": bool(np.array_equal(data, back))}


if __name__ == "__main__":
    verbs = (peers, seed, fingerprint, submit, result, big_job, greedy, large)
    verb = next(verb for verb in verbs if verb.__name__ == sys.argv[1])
    print("\n" + json.dumps(verb(*sys.argv[2:])))
