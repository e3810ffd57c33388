# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading EC2's answers for what an inventory needs of them.

botocore turns each of the hundreds of elements of an instance into Python values: 1,000 instances take it more than two
seconds. Everything else of a call stays its: credentials, signature, retries, time-outs, errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from ansible_collections.openmined.pygrid.plugins.plugin_utils.machines import Machine

EVENT = "before-parse.ec2.DescribeInstances"
MACHINES = "PygridMachines"
_ADDRESSES = {
    "private": "privateIpAddress",
    "public": "ipAddress",
    "private_name": "privateDnsName",
    "public_name": "dnsName",
}


def read_ourselves(client: Any, region: str) -> None:
    """Have DescribeInstances of a boto client answer with ``MACHINES`` (and NextToken) instead of Reservations."""

    def read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_kwargs: Any) -> None:
        if response_dict["status_code"] >= 300:
            return
        try:
            root = fromstring(response_dict["body"])  # noqa: S314 - botocore does no other; expat limits entities
        except ParseError:
            return  # botocore says so, and knows whether to ask again
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        customized_response_dict[MACHINES] = list(_machines(root, space, region))
        token = root.findtext(f"{space}nextToken")
        if token:
            customized_response_dict["NextToken"] = token
        response_dict["body"] = b"<DescribeInstancesResponse/>"

    client.meta.events.register(EVENT, read)


def _machines(root: Element, space: str, region: str) -> Iterator[Machine]:
    for item in root.iterfind(f"{space}reservationSet/{space}item/{space}instancesSet/{space}item"):
        parts = {child.tag: child for child in item}

        def text(name: str, parts: dict[str, Element] = parts) -> str:
            found = parts.get(space + name)
            return (found.text or "") if found is not None else ""

        tag_set = parts.get(f"{space}tagSet")
        tags = {tag.findtext(f"{space}key", ""): tag.findtext(f"{space}value", "") for tag in tag_set or ()}
        yield Machine(
            cloud="aws",
            id=text("instanceId"),
            name=tags.get("Name", ""),
            region=region,
            zone=item.findtext(f"{space}placement/{space}availabilityZone", ""),
            state=item.findtext(f"{space}instanceState/{space}name", ""),
            type=text("instanceType"),
            image=text("imageId"),
            addresses={kind: value for kind, name in _ADDRESSES.items() if (value := text(name))},
            tags=tags,
        )
