# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books of moto, which answers as AWS does."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import boto3

from tests.lab.lab import Lab

from .cloud import Booked, Plugged

PORT = 5000
REGION = "eu-west-1"
# Not so short that modules of Ansible, which mask the secret one wherever it occurs, would mask parts of other words.
CREDENTIALS = {
    "aws_access_key_id": "of-the-tests",
    "aws_secret_access_key": "secret-of-the-tests",
    "region_name": REGION,
}
# The account of Debian's own images, and what such an image says of itself.
DEBIAN = {
    "ami_id": "ami-0debian12bookworm",
    "name": "debian-12-amd64-20260901-2222",
    "description": "Debian 12 (20260901-2222)",
    "owner_id": "136693071363",
    "public": True,
    "virtualization_type": "hvm",
    "architecture": "x86_64",
    "state": "available",
    "platform": None,
    "image_type": "machine",
    "hypervisor": "xen",
    "root_device_name": "/dev/xvda",
    "root_device_type": "ebs",
    "sriov": "simple",
}


def serve(lab: Lab) -> tuple[list[str], int]:
    """The command that runs the API in the lab's network, and its port."""
    images = lab.folder / "cloud" / "amis.json"
    images.write_text(json.dumps([DEBIAN]))
    settings = [
        f"MOTO_AMIS_PATH={images}", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION=true", "MOTO_ENABLE_AMI_VALIDATION=true"
    ]  # fmt: skip
    server = [sys.executable, "-m", "tests.hands.moto_server", "-H", lab.network.address(1), "-p", str(PORT)]
    return ["env", *settings, *server], PORT


def environment(lab: Lab) -> dict[str, str]:
    """How everybody's SDK finds the API."""
    return {
        "AWS_ENDPOINT_URL": f"http://{lab.network.address(1)}:{PORT}",
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Ec2:
    """Reads what EC2 says. Made and used in the lab's network."""

    def __init__(self, lab: Lab) -> None:
        self.ec2 = boto3.client("ec2", endpoint_url=environment(lab)["AWS_ENDPOINT_URL"], **CREDENTIALS)
        self._sizes: dict[str, tuple[int, float]] = {}
        self._user_data: dict[str, str] = {}

    def machines(self) -> Iterable[Booked]:
        answer = self.ec2.describe_instances()
        found = [machine for reservation in answer["Reservations"] for machine in reservation["Instances"]]
        for machine in found:
            state = machine["State"]["Name"]
            tags = {tag["Key"]: tag["Value"] for tag in machine.get("Tags", [])}
            if state in ("terminated", "shutting-down"):
                continue
            memory_mb, processors = self._size(machine["InstanceType"])
            yield Booked(
                name=machine["InstanceId"],
                address=machine["PrivateIpAddress"],
                runs=state == "running" and tags.get("hands") != "never-boots",
                image=machine["ImageId"],
                size=machine["InstanceType"],
                memory_mb=memory_mb,
                processors=processors,
                keys=self._keys(machine.get("KeyName")),
                user_data=self._text(machine["InstanceId"]),
                volumes=self._attached(machine),
            )

    def images(self) -> Mapping[str, str]:
        owned = self.ec2.describe_images(Owners=["self"])["Images"]
        return {image["ImageId"]: image["SourceInstanceId"] for image in owned if image.get("SourceInstanceId")}

    def volumes(self) -> Iterable[str]:
        return [volume["VolumeId"] for volume in self.ec2.describe_volumes()["Volumes"]]

    def _size(self, name: str) -> tuple[int, float]:
        if name not in self._sizes:
            told = self.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"][0]
            self._sizes[name] = (told["MemoryInfo"]["SizeInMiB"], told["VCpuInfo"]["DefaultVCpus"])
        return self._sizes[name]

    def _keys(self, name: str | None) -> tuple[str, ...]:
        if not name:
            return ()
        pairs = self.ec2.describe_key_pairs(KeyNames=[name], IncludePublicKey=True)["KeyPairs"]
        return tuple(pair["PublicKey"] for pair in pairs)

    def _text(self, identity: str) -> str:
        if identity not in self._user_data:
            told = self.ec2.describe_instance_attribute(InstanceId=identity, Attribute="userData")
            encoded = told.get("UserData", {}).get("Value", "")
            self._user_data[identity] = base64.b64decode(encoded).decode()
        return self._user_data[identity]

    def _attached(self, machine: dict[str, Any]) -> tuple[Plugged, ...]:
        roots = {machine.get("RootDeviceName"), "/dev/sda1", "/dev/xvda"}  # moto has both
        names = {
            mapping["DeviceName"]: mapping["Ebs"]["VolumeId"]
            for mapping in machine.get("BlockDeviceMappings", [])
            if mapping["DeviceName"] not in roots
        }
        if not names:
            return ()
        told = self.ec2.describe_volumes(VolumeIds=list(names.values()))["Volumes"]
        sizes = {volume["VolumeId"]: volume["Size"] for volume in told}
        return tuple(
            Plugged(
                volume=volume,
                gigabytes=sizes[volume],
                device=device.removeprefix("/dev/").replace("sd", "xvd"),
                link=f"nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}",
            )
            for device, volume in names.items()
        )


open_books = Ec2
