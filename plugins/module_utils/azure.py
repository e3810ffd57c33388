# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure's Resource Manager for modules: things by their ids, with what they are to be in the words of Azure's REST API.

It needs of Microsoft's SDK only what the inventory plugin needs, and starts in half a second. azure.azcollection loads
forty packages for each task, which takes eight seconds and 270 MB, and wants other versions of some of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from ansible.module_utils.basic import env_fallback

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

Result = TypeVar("Result")

#: The version of the API that each type of things is spoken of in.
VERSIONS = {
    "Microsoft.Compute/disks": "2024-03-02",
    "Microsoft.Compute/images": "2024-07-01",
    "Microsoft.Compute/virtualMachines": "2024-07-01",
    "Microsoft.Network/applicationSecurityGroups": "2024-05-01",
    "Microsoft.Network/natGateways": "2024-05-01",
    "Microsoft.Network/networkInterfaces": "2024-05-01",
    "Microsoft.Network/networkSecurityGroups": "2024-05-01",
    "Microsoft.Network/publicIPAddresses": "2024-05-01",
    "Microsoft.Network/virtualNetworks": "2024-05-01",
    "Microsoft.Resources/resourceGroups": "2021-04-01",
}
MACHINE, GROUP = "Microsoft.Compute/virtualMachines", "Microsoft.Resources/resourceGroups"
#: Lists of which nothing else may be in them than what is wanted; what others have added to other lists stays.
EXACT = ("securityRules",)
#: Azure says so when it is still at something else, sometimes only for moments and with an interface for three minutes.
BUSY = frozenset({
    "AnotherOperationInProgress", "AttachDiskWhileBeingDetached", "NicInUse", "NicReservedForAnotherVm",
    "OperationPreempted", "PublicIPAddressCannotBeDeleted", "ReferencedResourceNotProvisioned", "RetryableError",
    "RetryableErrorDueToAnotherOperation",
})  # fmt: skip
BUSY_SECONDS, PAUSE_SECONDS = 240, 3
#: How often it is asked whether something is done, where Azure does not say how often it wants to be.
POLL_SECONDS = 1
ENDPOINT = "https://management.azure.com"
ARGUMENTS: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ENDPOINT, "fallback": (env_fallback, ["AZURE_RESOURCE_MANAGER_URL"])},
}


def kind_of(identity: str) -> str:
    """The type of the thing that has this id."""
    words = identity.strip("/").split("/")
    if len(words) == 4:
        return GROUP
    return _known("/".join(words[5:7])) if len(words) == 8 else "/".join(words)


def _known(kind: str) -> str:
    """The type as this file writes it; Azure does not mind capital letters."""
    return next((known for known in VERSIONS if known.lower() == kind.lower()), kind)


def contains(have: Any, wanted: Any, name: str = "") -> bool:
    """Whether something is what is wanted. What is wanted as None is not to be there; what is not spoken of is free.

    Args:
        have: as Azure tells of it.
        wanted: what it is to be.
        name: what both are called in the thing that they are part of.
    """
    if isinstance(wanted, Mapping):
        have = have or {}
        return all(contains(have.get(key), value, name if name == "tags" else key) for key, value in wanted.items())
    if isinstance(wanted, (list, tuple)):
        parts = {_name(part): part for part in have or []}
        is_free = all(isinstance(part, Mapping) for part in wanted) and name not in EXACT
        if not is_free and len(parts) != len(wanted):
            return False
        return all(_name(part) in parts and contains(parts[_name(part)], part) for part in wanted)
    if isinstance(wanted, str) and isinstance(have, str) and name != "tags":
        return _plain(have, name) == _plain(wanted, name)
    return have == wanted


def _plain(text: str, name: str) -> str:
    """Azure writes the same now with capital letters, now without, and the name of a location with spaces."""
    return text.replace(" ", "").lower() if name == "location" else text.lower()


def _name(part: Any) -> Any:
    """By what one part of a list is known."""
    if not isinstance(part, Mapping):
        return part.lower() if isinstance(part, str) else part
    return str(part.get("name") or part.get("id") or part).lower()


def merged(have: Any, wanted: Any, name: str = "") -> Any:
    """What is there with what is wanted of it; see ``contains``."""
    if isinstance(wanted, Mapping):
        have = have if isinstance(have, Mapping) else {}
        parts = {key: merged(have.get(key), value, key) for key, value in wanted.items() if value is not None}
        return {key: value for key, value in have.items() if key not in wanted} | parts
    if isinstance(wanted, (list, tuple)) and all(isinstance(part, Mapping) for part in wanted):
        parts = {_name(part): part for part in have or []}
        names = {_name(part) for part in wanted}
        more = [] if name in EXACT else [part for key, part in parts.items() if key not in names]
        return more + [merged(parts.get(_name(part)), part) for part in wanted]
    return wanted


def only(whole: Any, wanted: Any, name: str = "") -> Any:
    """Of a merged thing what has to be said to change it: tags and lists as a whole, and no more than is wanted."""
    if not isinstance(wanted, Mapping) or name == "tags":
        return whole
    return {key: only(whole[key], value, key) for key, value in wanted.items() if key in whole}


class Azure:
    """Talks to the Resource Manager with whatever credential the SDK finds.

    Raises:
        PygridError: of all methods, when Azure refuses or cannot be reached, with what it said.
    """

    def __init__(self, endpoint: str) -> None:
        try:
            from azure.core.pipeline.policies import RequestIdPolicy, RetryPolicy, UserAgentPolicy
            from azure.identity import DefaultAzureCredential
            from azure.mgmt.core import ARMPipelineClient
            from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
        except ImportError as error:
            raise PygridError(
                f"{error.name} is not there; install azure-identity and azure-mgmt-core into the Python that runs this"
            ) from error
        self.endpoint = endpoint.rstrip("/")
        policies = [
            RequestIdPolicy(),
            UserAgentPolicy("openmined.pygrid"),
            RetryPolicy(retry_total=6),
            ARMChallengeAuthenticationPolicy(DefaultAzureCredential(), f"{self.endpoint}/.default"),
        ]
        self._client = ARMPipelineClient(self.endpoint, policies=policies)

    def find(self, identity: str) -> dict[str, Any] | None:
        """The thing of an id, or None."""
        return self._read(self._url(identity))

    def settled(self, identity: str) -> dict[str, Any] | None:
        """Like ``find``, but what is being removed is waited for: it is not there."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            found = self.find(identity)
            state = (found or {}).get("properties", {}).get("provisioningState")
            if state != "Deleting" or time.monotonic() > deadline:
                return found
            time.sleep(PAUSE_SECONDS)

    def listed(self, path: str, version: str) -> Iterator[dict[str, Any]]:
        """What is in a list, all pages of it."""
        url = f"{self.endpoint}{path}{'&' if '?' in path else '?'}api-version={version}"
        while url:
            answer = self._read(url) or {}
            # A few lists are lists.
            yield from answer if isinstance(answer, list) else answer.get("value") or []
            url = "" if isinstance(answer, list) else answer.get("nextLink") or ""

    def all_of(self, subscription: str, kind: str) -> Iterator[dict[str, Any]]:
        """All things of a type in a subscription."""
        path = "resourcegroups" if kind == GROUP else f"providers/{kind}"
        for one in self.listed(f"/subscriptions/{subscription}/{path}", VERSIONS[kind]):
            yield {**one, "type": kind}

    def state(self, machine: str) -> dict[str, Any]:
        """What a machine does: ``power`` and ``generalized``; ``generation`` is that of its firmware, V1 or V2."""
        version = VERSIONS[MACHINE]
        view = self._read(f"{self.endpoint}{machine}/instanceView?api-version={version}")
        if view is None:
            raise PygridError(f"there is no machine {machine}")
        codes = [status.get("code", "").partition("/") for status in view.get("statuses") or []]
        return {
            "power": next((code for kind, _slash, code in codes if kind == "PowerState"), ""),
            "generalized": any(kind == "OSState" and code == "generalized" for kind, _slash, code in codes),
            "generation": view.get("hyperVGeneration") or "V1",
        }

    def act(self, machine: str, deed: str) -> None:
        """Let a machine do something (start, deallocate, generalize), and wait until it is done."""

        def do() -> None:
            wait = self._begin("POST", self._url(machine, f"/{deed}"))
            wait()

        self._patiently(do)

    def have(self, things: Sequence[tuple[str, Mapping[str, Any] | None, Mapping[str, Any]]]) -> None:
        """Make things, or change those that are not as wanted, those of one type at once.

        A machine that could not be made is not left behind.

        Args:
            things: of each its id, what there is of it, and what is wanted of it.
        """
        for kind, batch in groupby(things, lambda thing: kind_of(thing[0])):
            waiting = []
            for identity, have, wanted in batch:
                whole = merged(have, wanted)
                is_patch = have is not None and kind == MACHINE
                body = only(whole, wanted) if is_patch else whole
                method, url = "PATCH" if is_patch else "PUT", self._url(identity)
                waiting.append((identity, have is None, self._beginning(method, url, body)))
            for identity, is_new, wait in waiting:
                try:
                    wait()
                except PygridError:
                    if is_new and kind == MACHINE:
                        self._remove_failed(identity)
                    raise

    def _beginning(self, method: str, url: str, body: Any = None) -> Callable[[], None]:
        """Begin something, and again while Azure is busy; what is returned waits until it is done."""

        def again() -> None:
            wait = self._begin(method, url, body)
            wait()

        first = self._patiently(lambda: self._begin(method, url, body))
        return lambda: self._patiently(first, again)

    def _remove_failed(self, machine: str) -> None:
        """Where there is no room, Azure keeps a machine that never was one, and that can be in no other zone."""
        found = self.find(machine)
        if found and found.get("properties", {}).get("provisioningState") == "Failed":
            self.remove([machine])

    def remove(self, identities: Sequence[str]) -> None:
        """Remove things, those of one type at once. A group is only removed when nothing is in it any more."""
        for kind, batch in groupby(identities, kind_of):
            if kind == GROUP:
                for identity in batch:
                    self._refuse_full(identity)
                    self._begin("DELETE", self._url(identity))()
                continue
            for wait in [self._beginning("DELETE", self._url(identity)) for identity in batch]:
                wait()

    def contents(self, group: str) -> list[str]:
        """Ids of what is in a group. What was removed a moment ago may still be in its list."""
        inside = [one["id"] for one in self.listed(f"{group}/resources", VERSIONS[GROUP])]
        return [one for one in inside if kind_of(one) not in VERSIONS or self.find(one) is not None]

    def _refuse_full(self, group: str) -> None:
        """Refuse to go on with a group that is not empty: it would be removed with everything in it."""
        there = self.contents(group)
        if there:
            names = ", ".join(one.rpartition("/providers/")[2] for one in there)
            raise PygridError(f"{group.rpartition('/')[2]} is not removed, because something is in it: {names}")

    def _url(self, identity: str, more: str = "") -> str:
        kind = kind_of(identity)
        if kind not in VERSIONS:
            raise PygridError(f"{identity} is no id of a thing that is known here ({', '.join(VERSIONS)})")
        return f"{self.endpoint}{identity}{more}?api-version={VERSIONS[kind]}"

    def _read(self, url: str) -> Any:
        try:
            return self._send("GET", url).http_response.json()
        except Refusal as error:
            if error.status == 404:
                return None
            raise

    def _begin(self, method: str, url: str, body: Any = None) -> Callable[[], None]:
        """Begin something; what is returned waits until it is done."""
        from azure.core.polling import LROPoller
        from azure.mgmt.core.polling.arm_polling import ARMPolling

        begun = self._send(method, url, body)
        return _explained(LROPoller(self._client, begun, lambda _answer: None, ARMPolling(POLL_SECONDS)).result)

    def _send(self, method: str, url: str, body: Any = None) -> Any:
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        def send() -> Any:
            request = HttpRequest(method, url, json=body)
            answer = self._client.send_request(request, _return_pipeline_response=True)
            if answer.http_response.status_code >= 400:
                raise HttpResponseError(response=answer.http_response)
            return answer

        return _explained(send)()

    def _patiently(self, deed: Callable[[], Result], again: Callable[[], Result] | None = None) -> Result:
        """Do something, again and again while Azure is busy."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return deed()
            except Refusal as error:
                if error.code not in BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)
            deed = again or deed


class Refusal(PygridError):
    """Azure said no. ``status``: of HTTP; ``code``: the word that Azure has for it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


def _explained(call: Callable[..., Result]) -> Callable[..., Result]:
    """A call of the SDK whose exceptions are those of this collection."""

    def explained(*values: Any) -> Result:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        try:
            return call(*values)
        except ClientAuthenticationError as error:
            raise PygridError(
                f"{_first_line(error)}; run az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET"
            ) from error
        except HttpResponseError as error:
            code = (error.error.code if error.error else "") or ""
            said = (error.error.message if error.error else "") or _first_line(error)
            sentence = f"{code or error.status_code}: {' '.join(str(said).split())}"
            raise Refusal(error.status_code or 0, code, sentence) from error
        except (AzureError, OSError) as error:
            raise PygridError(f"{type(error).__name__}: {_first_line(error)}") from error

    return explained


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
