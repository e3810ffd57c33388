# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a grid on Amazon EC2."""

from __future__ import annotations

DOCUMENTATION = r"""
name: aws
short_description: Nodes of a grid on Amazon EC2
version_added: 0.1.0
description:
  - Finds EC2 instances by their tags C(pygrid_grid), C(pygrid_role), C(pygrid_name) and C(pygrid_domain), and makes
    them the groups and hosts that every playbook of this collection understands.
  - Credentials, the default region, endpoints and proxies are found as the AWS command line finds them.
  - Instances that are terminated, or about to be, are none.
options:
  plugin:
    description: Says that a file is for this plugin.
    required: true
    choices: [openmined.pygrid.aws]
  profile:
    description: Profile in the AWS configuration. When empty, the one of the environment.
    type: str
    default: ""
  role_arn:
    description: A role to take on, for machines in another account. When empty, none.
    type: str
    default: ""
  ec2_filters:
    description: Further filters in the words of EC2's DescribeInstances, each name with a value or a list of them.
    type: dict
    default: {}
extends_documentation_fragment:
  - openmined.pygrid.cloud_inventory
  - constructed
  - inventory_cache
requirements:
  - boto3 in the Python that runs Ansible
"""

EXAMPLES = r"""
# The grid of an account, wherever it has machines.
plugin: openmined.pygrid.aws

---
# One of several grids, in two regions; Ansible runs outside of them.
plugin: openmined.pygrid.aws
grids: [heart-study]
regions: [eu-west-1, eu-central-1]
addresses: [public]
filters:
  state: running
"""

import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.plugin_utils import ec2_instances
from ansible_collections.openmined.pygrid.plugins.plugin_utils.cloud_inventory import (
    CloudInventory,
    Machine,
    PassingError,
)

# Of filters that all clouds have, those that EC2 can apply itself.
EC2_NAMES = {
    "id": "instance-id",
    "zone": "availability-zone",
    "state": "instance-state-name",
    "type": "instance-type",
    "image": "image-id",
}
STATES = ["pending", "running", "stopping", "stopped"]
# Asked for the others when nothing else is known: every account of AWS's largest partition has it.
FIRST_REGION = "us-east-1"
PAGE_SIZE = 1000
PASSING_CODES = {
    "InternalError", "InternalFailure", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "TooManyRequestsException", "Unavailable",
}  # fmt: skip
REMEDIES = {
    "AuthFailure": "is the region enabled for the account, and are the credentials right?",
    "ExpiredToken": "get new temporary credentials",
    "InvalidClientTokenId": "is the access key right, and is the region enabled for the account?",
    "OptInRequired": "enable the region for the account, or name others with the option regions",
    "RequestExpired": "get new temporary credentials, or put this machine's clock right",
    "UnauthorizedOperation": "allow ec2:DescribeInstances and ec2:DescribeRegions; docs/inventories.md has the policy",
}


class InventoryModule(CloudInventory):
    """Lists EC2 instances, each region in a thread of its own."""

    NAME = "openmined.pygrid.aws"
    CLOUD = "AWS"
    NEEDS = (("boto3", "boto3"),)

    def __init__(self) -> None:
        super().__init__()
        self._making = threading.Lock()
        self._session: Any = None

    def places(self) -> Iterable[str]:
        """The regions that were named, or all that are enabled for the account."""
        if self.get_option("regions"):
            return self.get_option("regions")
        client = self._client(None)
        answer = client.describe_regions(AllRegions=False)
        return sorted(region["RegionName"] for region in answer["Regions"])

    def list_machines(self, place: str) -> Iterator[Machine]:
        """The instances of one region."""
        client = self._client(place)
        ec2_instances.read_ourselves(client, place)
        token: dict[str, str] = {}
        while True:
            answer = client.describe_instances(Filters=self._filters(), MaxResults=PAGE_SIZE, **token)
            yield from answer[ec2_instances.MACHINES]
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def explain(self, error: Exception, place: str) -> PygridError:
        """What EC2 or boto said, and what to do about it."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        if isinstance(error, exceptions.ClientError):
            told = error.response.get("Error", {})
            code, sentence = told.get("Code", ""), f"{told.get('Code', 'error')}: {told.get('Message', error)}"
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in PASSING_CODES or status >= 500:
                return PassingError(sentence)
            remedy = REMEDIES.get(code)
            return PygridError(f"{sentence}; {remedy}" if remedy else sentence)
        if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
            return PygridError(
                f"{error}; give them as the AWS command line takes them (environment, profile, role of this machine)"
            )
        if isinstance(error, (exceptions.ResponseStreamingError, exceptions.IncompleteReadError, ResponseParserError)):
            return PassingError(f"the answer breaks off: {str(error).splitlines()[0][:200]}")
        if isinstance(error, exceptions.HTTPClientError):
            return PassingError(str(error))
        return PygridError(f"{type(error).__name__}: {error}")

    def _filters(self) -> list[dict[str, Any]]:
        """What EC2 itself is asked for: it answers with few of many machines faster than with all of them."""
        wanted: dict[str, Any] = {"tag-key": "pygrid_grid", "instance-state-name": STATES}
        if self.get_option("grids"):
            wanted["tag:pygrid_grid"] = self.get_option("grids")
        for name, value in self.get_option("filters").items():
            if name.startswith("tag:") or name in EC2_NAMES:
                wanted[EC2_NAMES.get(name, name)] = value
        wanted |= self.get_option("ec2_filters")
        return [
            {"Name": name, "Values": [str(item) for item in (value if isinstance(value, list) else [value])]}
            for name, value in wanted.items()
        ]

    def _client(self, region: str | None) -> Any:
        """A client of one region; those of one session share what botocore has read of EC2, some 20 MB."""
        from botocore.config import Config

        config = Config(
            connect_timeout=self.seconds(), read_timeout=self.seconds(), retries={"mode": "standard", "max_attempts": 3}
        )
        with self._making:  # clients may be used side by side, and not be made so
            if self._session is None:
                self._session = self._new_session()
            return self._session.client("ec2", region_name=region or _default_region(self._session), config=config)

    def _new_session(self) -> Any:
        import boto3

        session = boto3.session.Session(profile_name=self.get_option("profile") or None)
        role = self.get_option("role_arn")
        if not role:
            return session
        tokens = session.client("sts", region_name=_default_region(session))
        given = tokens.assume_role(RoleArn=role, RoleSessionName="openmined.pygrid")["Credentials"]
        return boto3.session.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])


def _default_region(session: Any) -> str:
    """Where an account is asked about itself when no region was named."""
    return session.region_name or os.environ.get("AWS_REGION") or FIRST_REGION
