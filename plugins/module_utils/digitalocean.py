# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DigitalOcean's API by its own SDK, for the modules of the role cloud that community.digitalocean has no match for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

try:
    import pydo
    from azure.core.exceptions import AzureError, HttpResponseError
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

PAGE_SIZE = 200
PAUSE_SECONDS = 1.0
ENDPOINT = "https://api.digitalocean.com"
# The names that DigitalOcean's own tools and those of others look for.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "token": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, ["DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN", "DO_API_TOKEN"]),
    },
    "endpoint": {"type": "str", "default": ENDPOINT, "fallback": (env_fallback, ["DIGITALOCEAN_API_URL"])},
}


class NotThereError(PygridError):
    """What was asked for does not exist."""


class Account:
    """An account, as somebody with a token sees it."""

    def __init__(self, token: str, endpoint: str) -> None:
        self.client: Any = pydo.Client(token=token, endpoint=endpoint)

    def ask(self, operation: Callable[..., Any], *values: Any, **named: Any) -> dict[str, Any]:
        """Call an operation of the SDK, which returns some errors and raises others.

        Raises:
            NotThereError: there is no such thing.
            PygridError: with what DigitalOcean said.
        """
        try:
            answer = operation(*values, **named) or {}
        except HttpResponseError as error:
            raise _refusal(error.status_code or 0, _said(error)) from error
        except AzureError as error:
            raise PygridError(f"DigitalOcean was not reached: {error}") from error
        if set(answer) >= {"id", "message"}:
            raise _refusal(404 if answer["id"] == "not_found" else int(answer.get("status_code") or 0), answer)
        return answer

    def all(self, operation: Callable[..., Any], key: str, **named: Any) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            answer = self.ask(operation, per_page=PAGE_SIZE, page=page, **named)
            found += answer[key]
            if not ((answer.get("links") or {}).get("pages") or {}).get("next"):
                return found
            page += 1

    def wait(self, action: Mapping[str, Any], seconds: int) -> None:
        """Wait until what was begun is done."""

        def is_done() -> bool:
            status = self.ask(self.client.actions.get, action["id"])["action"]["status"]
            if status == "errored":
                raise PygridError(f"DigitalOcean began to {action['type']} and could not (action {action['id']})")
            return bool(status == "completed")

        wait_until(is_done, seconds, f"{action['type']} (action {action['id']})")

    def tag(self, tag: str, kind: str, identity: str) -> None:
        """Have a tag on something; the tag is made where there is none."""
        self.ask(self.client.tags.create, body={"name": tag})
        self.ask(
            self.client.tags.assign_resources,
            tag,
            body={"resources": [{"resource_id": identity, "resource_type": kind}]},
        )


def wait_until(is_done: Callable[[], bool], seconds: int, what: str) -> None:
    """Ask again and again."""
    deadline = time.monotonic() + seconds
    while not is_done():
        if time.monotonic() > deadline:
            raise PygridError(f"DigitalOcean does not come to an end with {what} in {seconds} seconds")
        time.sleep(PAUSE_SECONDS)


def _said(error: HttpResponseError) -> Mapping[str, Any]:
    try:
        return dict(error.response.json())
    except (AttributeError, TypeError, ValueError):
        return {"message": error.reason}


def _refusal(status: int, answer: Mapping[str, Any]) -> PygridError:
    kind = NotThereError if status == 404 else PygridError
    return kind(f"DigitalOcean says: {answer.get('message') or answer}{f' ({status})' if status else ''}")


def run(module: AnsibleModule, deed: Callable[[Account], dict[str, Any]]) -> None:
    """Do what a module is for, and say how it went."""
    if MISSING:
        module.fail_json(msg=missing_required_lib("pydo"), exception=str(MISSING))
    if not module.params["token"]:
        module.fail_json(msg="there is no token; put one into DIGITALOCEAN_TOKEN")
    try:
        module.exit_json(**deed(Account(module.params["token"], module.params["endpoint"])))
    except PygridError as error:
        module.fail_json(msg=str(error))
