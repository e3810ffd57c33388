# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The owner of a Domain: uploads data, opens accounts, reads and approves what others want to run on the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import syft as sy
from syft.service.policy.policy import Matches
from syft.service.worker.worker_pool import ConsumerState
from syft.types.errors import SyftException

from .nodes import DomainAddress, attached_workers
from .story import DemoError

if TYPE_CHECKING:
    from .learning import Table

FEATURES, LABELS = "features", "labels"


@dataclass
class Account:
    """An ordinary account: no right to any private value."""

    email: str
    password: str = field(repr=False)


class Owner:
    """Speaks directly to its own Domain: a login through the Network would show the password to the Network."""

    def __init__(self, address: DomainAddress) -> None:
        """Logs in with the account in the identity file."""
        self.name = address.name
        self.url = address.url
        login = address.login()
        try:
            self.client = sy.login(url=address.url, email=login.email, password=login.password, cache=False)
        except SyftException as error:
            raise DemoError(
                f"{self.name} at {self.url} refuses the account in {address.identity_file}: {error.public_message}"
            ) from None
        self._accounts: list[Any] = []
        self._requests: list[Any] = []

    def workers(self) -> list[str]:
        """Returns the names of the Workers that wait for jobs."""
        names = attached_workers(self.url)
        if names is not None:
            return names
        known = self.client.worker.get_all()
        return [worker.name for worker in known if worker.consumer_state != ConsumerState.DETACHED]

    def share(self, name: str, description: str, private: Table, mock: Table) -> bool:
        """Uploads the data once. Returns False when a dataset of this name is already there."""
        if any(dataset.name == name for dataset in self.client.datasets):
            return False
        assets = [
            sy.Asset(name=FEATURES, data=private.features, mock=mock.features),
            sy.Asset(name=LABELS, data=private.labels, mock=mock.labels),
        ]
        self.client.upload_dataset(sy.Dataset(name=name, description=description, asset_list=assets))
        return True

    def open_account(self, account: Account, name: str) -> None:
        """Makes the account; a data scientist's role is what the Domain gives to everybody."""
        user = self.client.users.create(
            email=account.email, password=account.password, password_verify=account.password, name=name
        )
        self._accounts.append(user.id)

    def review(self, request_id: Any, account: Account, source: str, dataset: str) -> Any:
        """Compares a request with what was agreed. Returns it; raises DemoError for the first difference."""
        found = [request for request in self.client.requests.get_all_pending() if request.id == request_id]
        if not found:
            raise DemoError(f"the request of {account.email} did not arrive at {self.name}")
        request = found[0]
        if request.requesting_user_email != account.email:
            raise DemoError(f"{self.name} got a request from {request.requesting_user_email}, not from {account.email}")
        if request.code.raw_code.strip() != source.strip():
            raise DemoError(f"the code that reached {self.name} is not the code that was sent")
        own = {asset.action_id for one in self.client.datasets if one.name == dataset for asset in one.assets}
        for rules in request.code.input_policy_init_kwargs.values():
            wanted = {rule.val for rule in rules.values() if isinstance(rule, Matches)}
            if not wanted <= own:
                raise DemoError(f"the request asks for data of {self.name} that was not offered")
        return request

    def approve(self, request: Any) -> None:
        """From now on the requester may run this code, and only this, on the data it names."""
        request.approve(disable_warnings=True)
        self._requests.append(request)

    def runs_of(self, request: Any) -> int:
        """Returns how many jobs the Domain's record holds for an approved request."""
        return len(self.client.jobs.get_by_user_code_id(request.code.id))

    def close(self) -> None:
        """Takes every approval back and closes the accounts that were opened here."""
        while self._requests:
            self._requests.pop().deny(reason="The training is over.")
        while self._accounts:
            self.client.users.delete(self._accounts.pop())
