# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large values pass through syft's services untouched, and objects are still told where they are from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("syft", reason="runs in the environment of a node: see tests/e2e/test_runtime_units.py")

from syft.client.api import SyftAPICall
from syft.service import service
from syft.types import syft_object
from syft.types.syft_object import SyftObject
from syft.types.uid import UID

from pygrid_node import large_calls

WHERE = {"syft_server_location": UID()}


class Untouchable(bytes):
    """A large value: whoever looks at its bytes, or writes them out, takes his time."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("each byte was looked at")

    def __repr__(self) -> str:
        raise AssertionError("all of it was written out")


class Box(SyftObject):
    """An object of syft with others in it."""

    __canonical_name__ = "PygridTestBox"
    __version__ = 1

    content: Any = None


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is patched here is put back for the other tests."""
    attach = syft_object.attach_attribute_to_syft_object
    for module in (syft_object, service):
        monkeypatch.setattr(module, "attach_attribute_to_syft_object", attach)
    monkeypatch.setattr(SyftAPICall, "__repr__", SyftAPICall.__repr__)
    large_calls.install()
    large_calls.install()


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: Box(content=value), lambda value: [value]])
def test_bytes_are_not_looked_at(wrap: Any) -> None:
    service.attach_attribute_to_syft_object(wrap(Box(content=Untouchable(b"scans"))), WHERE)
    service.attach_attribute_to_syft_object(Untouchable(b"scans"), WHERE)


def test_objects_in_objects_are_told_where_they_are_from() -> None:
    inner = Box(content=Untouchable(b"scans"))
    for result in (Box(content=inner), Box(content=[inner]), {"a": Box(content={"b": inner})}):
        inner.syft_server_location = None
        service.attach_attribute_to_syft_object(result, WHERE)
        assert inner.syft_server_location == WHERE["syft_server_location"]


def test_a_call_is_named_without_its_arguments() -> None:
    call = SyftAPICall(server_uid=UID(), path="blob_storage.write", args=[Untouchable(b"scans")], kwargs={})
    assert "blob_storage.write" in str(call)
