# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""moto's server, saying what AWS always says and moto leaves out, where modules of amazon.aws count on it.

It answers one request after the other: moto's books are dictionaries that change while another thread reads them.
"""

from __future__ import annotations

from typing import Any

from moto import server
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE

made, create_image, run_simple = Volume.__init__, AmiBackend.create_image, server.run_simple


def make(self: Volume, *values: Any, **named: Any) -> None:
    """A volume that says of itself whether several machines may use it, and what snapshot it is from: none is ""."""
    said = {"multi_attach_enabled": named.get("multi_attach_enabled") or False}
    made(self, *values, **{**named, **said})
    self.snapshot_id = self.snapshot_id or ""


def image(
    self: AmiBackend, instance_id: str, name: str, description: str, tag_specifications: list[dict[str, Any]]
) -> Ami:
    """An image of which the snapshot has tags as well."""
    of_image = [one for one in tag_specifications if one["ResourceType"] == "image"]
    made_image = create_image(self, instance_id, name, description, of_image)
    for one in tag_specifications:
        if one["ResourceType"] == "snapshot":
            made_image.ebs_snapshot.add_tags({tag["Key"]: tag["Value"] for tag in one["Tags"]})
    return made_image


def run_one_by_one(*values: Any, **named: Any) -> None:
    run_simple(*values, **{**named, "threaded": False})


# As which kind of thing the tags of an address are asked for.
EC2_PREFIX_TO_RESOURCE["eipalloc"] = "elastic-ip"
Volume.__init__, AmiBackend.create_image, server.run_simple = make, image, run_one_by_one

if __name__ == "__main__":
    server.main()
