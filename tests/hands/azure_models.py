# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what is said to Azure and by it has the form that Microsoft's SDK knows: the models of the SDK decide."""

from __future__ import annotations

import enum
import functools
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from azure.mgmt.compute import models as compute
from azure.mgmt.network import models as network

#: By type of things the models of a whole one and, where there is a PATCH, of a change.
MODELS: dict[str, tuple[Any, Any]] = {
    "Microsoft.Compute/disks": (compute.Disk, compute.DiskUpdate),
    "Microsoft.Compute/images": (compute.Image, compute.ImageUpdate),
    "Microsoft.Compute/virtualMachines": (compute.VirtualMachine, compute.VirtualMachineUpdate),
    "Microsoft.Network/applicationSecurityGroups": (network.ApplicationSecurityGroup, network.TagsObject),
    "Microsoft.Network/natGateways": (network.NatGateway, network.TagsObject),
    "Microsoft.Network/networkInterfaces": (network.NetworkInterface, network.TagsObject),
    "Microsoft.Network/networkSecurityGroups": (network.NetworkSecurityGroup, network.TagsObject),
    "Microsoft.Network/publicIPAddresses": (network.PublicIPAddress, network.TagsObject),
    "Microsoft.Network/virtualNetworks": (network.VirtualNetwork, network.TagsObject),
}
INSTANCE_VIEW = compute.VirtualMachineInstanceView
#: The SDK's list of sizes is older than most of them.
OPEN = (compute.VirtualMachineSizeTypes,)
PLAIN = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


@functools.cache
def fields(model: Any) -> dict[str, tuple[Any, list[str]]]:
    """Of each property its type and when it may be said."""
    model()  # works them out
    module = sys.modules[model.__module__]
    names = types.SimpleNamespace(**{**vars(module), **vars(sys.modules[module.__name__.rpartition(".")[0]])})
    hints = typing.get_type_hints(model, localns={"_models": names})
    found = model._attr_to_rest_field.items()
    return {field._rest_name: (hints[name], field._visibility or []) for name, field in found}


def misfits(model: Any, document: Any, where: str = "") -> Iterator[str]:
    """What of a document is not of its model: names that it does not have, and values of other types."""
    if not isinstance(document, dict):
        yield f"{where or 'all of it'} is no object"
        return
    known = fields(model)
    for name, value in document.items():
        if name not in known:
            yield f"{model.__name__} has no {name} ({where or 'all of it'})"
        elif value is not None:
            yield from _value_misfits(known[name][0], value, f"{where}.{name}".strip("."))


def _value_misfits(hint: Any, value: Any, where: str) -> Iterator[str]:
    arguments = [one for one in typing.get_args(hint) if one is not type(None)]
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        enums = [one for one in arguments if isinstance(one, type) and issubclass(one, enum.Enum)]
        if enums and enums[0] not in OPEN:
            allowed = {str(member.value).lower() for member in enums[0]}
            if str(value).lower() not in allowed:
                yield f"{where} is {value!r}, which is none of {', '.join(sorted(allowed))}"
        elif len(arguments) == 1 or enums:
            yield from _value_misfits(str if enums else arguments[0], value, where)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for number, part in enumerate(value):
            yield from _value_misfits(arguments[0], part, f"{where}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        for name, part in value.items():
            yield from _value_misfits(arguments[1], part, f"{where}.{name}")
    elif hint in PLAIN:
        if not isinstance(value, PLAIN[hint]) or (isinstance(value, bool) and hint is not bool):
            yield f"{where} is {value!r}, which is no {hint.__name__}"
    elif hasattr(hint, "_attr_to_rest_field") or getattr(hint, "_is_model", False):
        yield from misfits(hint, value, where)


def writable(model: Any, document: dict[str, Any]) -> dict[str, Any]:
    """What of a document may be written; Azure passes over the rest."""
    found = {}
    for name, value in document.items():
        hint, when = fields(model)[name]
        if when == ["read"]:
            continue
        found[name] = _writable_value(hint, value)
    return found


def _writable_value(hint: Any, value: Any) -> Any:
    arguments = [one for one in typing.get_args(hint) if one is not type(None)]
    if getattr(hint, "_is_model", False) and isinstance(value, dict):
        return writable(hint, value)
    if typing.get_origin(hint) is list and isinstance(value, list):
        return [_writable_value(arguments[0], part) for part in value]
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(arguments) == 1:
        return _writable_value(arguments[0], value)
    return value
