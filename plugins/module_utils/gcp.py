# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules of Google Compute Engine share: questions to the API, and waiting for operations.

By Google's library for credentials and requests, as modules of google.cloud do it: importing the SDK
google-cloud-compute takes longer than all that these modules ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError

ROOT = "https://compute.googleapis.com/compute/v1/"
SCOPES = ["https://www.googleapis.com/auth/compute"]
GRID = "pygrid_grid"
# Those of which each has labels; others have the grid in their description.
LABELLED = ("instances", "disks", "images")
# Where things of a kind are; all others are in no region.
IN_ZONES, IN_REGIONS = ("instances", "disks"), ("addresses", "routers", "subnetworks")
# How long an answer and an operation may take.
ANSWER_SECONDS, OPERATION_SECONDS = 180, 600


class NotThere(PygridError):
    """What was asked for is not there."""


class Compute:
    """A project, as somebody with the application default credentials sees it."""

    def __init__(self, project: str) -> None:
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, _project = google.auth.default(scopes=SCOPES)
        self._session = AuthorizedSession(credentials)
        self.project = project

    def ask(self, verb: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """Put a question. ``path``: a whole link, or what comes after the project.

        Raises:
            NotThere: what is asked about does not exist.
            PygridError: the API says no, with its words.
        """
        link = path if path.startswith("https://") else f"{ROOT}projects/{self.project}/{path}"
        answer = self._session.request(verb, link, json=body, params=query, timeout=ANSWER_SECONDS)
        if answer.ok:
            return answer.json()
        try:
            said = answer.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = answer.text[:500]
        raise (NotThere if answer.status_code == 404 else PygridError)(f"Google answered {answer.status_code}: {said}")

    def do(self, verb: str, path: str, body: dict[str, Any] | None = None, **query: str) -> None:
        """Begin an operation, and wait until it has come to a good end.

        Raises:
            PygridError: it has not, with what Google said of it.
        """
        operation = self.ask(verb, path, body, **query)
        end = time.monotonic() + OPERATION_SECONDS
        while operation["status"] != "DONE":
            if time.monotonic() > end:
                raise PygridError(f"{operation['operationType']} did not end in {OPERATION_SECONDS} s")
            operation = self.ask("POST", f"{operation['selfLink']}/wait")
        errors = operation.get("error", {}).get("errors", [])
        if errors:
            raise PygridError("; ".join(f"{one.get('code')}: {one.get('message')}" for one in errors))

    def things(self, kind: str, region: str, grid: str) -> Iterator[dict[str, Any]]:
        """The things of a grid, of one kind.

        Instances, disks and images have labels. Others have none, or modules of google.cloud give them none: these have
        the grid in their description, as ``pygrid_grid=NAME``, alone or before a colon.
        """
        if kind not in LABELLED:
            scope = f"regions/{region}" if kind in IN_REGIONS else "global"
            for thing in self._pages(f"{scope}/{kind}"):
                if thing.get("description", "").partition(":")[0] == f"{GRID}={grid}":
                    yield thing
            return
        path = f"aggregated/{kind}" if kind in IN_ZONES else f"global/{kind}"
        for thing in self._pages(path, filter=f"labels.{GRID}={grid}"):
            zone = thing.get("zone", f"{region}-").rpartition("/")[2]
            if thing.get("labels", {}).get(GRID) == grid and zone.rpartition("-")[0] == region:
                yield thing

    def _pages(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """All things of a list, whether it is one for all zones or not."""
        page: dict[str, Any] = {}
        while True:
            more = {"pageToken": page["nextPageToken"]} if page else {}
            page = self.ask("GET", path, **query, **more)
            found = page.get("items", [])
            for answer in found.values() if isinstance(found, dict) else [{"all": found}]:
                self._see_whole(answer)
                yield from (thing for name, things in answer.items() if name != "warning" for thing in things)
            if not page.get("nextPageToken"):
                return

    def _see_whole(self, answer: dict[str, Any]) -> None:
        """A zone that does not answer is no zone without things."""
        warning = answer.get("warning", {})
        if warning.get("code", "NO_RESULTS_ON_PAGE") != "NO_RESULTS_ON_PAGE":
            raise PygridError(f"not all zones answered: {warning.get('message') or warning['code']}")


@contextmanager
def google(module: AnsibleModule) -> Iterator[Compute]:
    """Talk to Google; what goes wrong ends the module with a sentence."""
    try:
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException
    except ImportError:
        module.fail_json(msg=missing_required_lib("google-auth and requests"))
    try:
        yield Compute(module.params["project"])
    except PygridError as error:
        module.fail_json(msg=str(error))
    except GoogleAuthError as error:
        module.fail_json(msg=f"{error}; run gcloud auth application-default login")
    except RequestException as error:
        module.fail_json(msg=f"Google did not answer: {error}")
