# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's public variables, read from the one place that documents them: the roles' argument_specs."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

COLLECTION = Path(__file__).resolve().parents[2]
ROLES = COLLECTION / "roles"
# What the validator of ansible-core understands of a role's option; the rest is documentation.
VALIDATED = ("type", "choices", "elements", "required", "options")
_BESIDE = re.compile(r"\{\{ *inventory_dir [^}]*\}\}/(.+)")

# What every host of scope system has. They are included without a check of their own, which would cost a task each.
HOST_ROLES = ("certificates", "database", "ingress", "firewall", "backup")
# What playbooks do with nodes that are there already; a mistake shows at every deploy, long before it hurts.
LATER_ROLES = ("upgrade",)


@cache
def role_options(role: str, entry_point: str = "main") -> dict[str, dict[str, Any]]:
    """Options of one entry point of a role, by name."""
    return _specs(role)[entry_point].get("options") or {}


@cache
def _specs(role: str) -> dict[str, Any]:
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["argument_specs"]


@cache
def all_names() -> frozenset[str]:
    """Every public variable of every role and entry point."""
    roles = [path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml")]
    return frozenset(name for role in roles for spec in _specs(role).values() for name in spec.get("options") or {})


@cache
def beside_inventory() -> dict[str, str]:
    """The variables whose default is a path beside the inventory, each with that path's part below its folder."""
    found = {}
    for role in ("node", *HOST_ROLES):
        for name, option in role_options(role).items():
            if match := _BESIDE.fullmatch(str(option.get("default"))):
                found[name] = match[1]
    return found


def unknown_variable(name: str) -> str | None:
    """A sentence when ``name`` looks like one of ours but is not, else None."""
    if not name.startswith("pygrid_") or name in all_names():
        return None
    close = difflib.get_close_matches(name, all_names(), n=1)
    hint = f"; did you mean {close[0]}?" if close else "; docs/variables.md lists the known ones"
    return f"{name} is no variable of openmined.pygrid{hint}"


def validate(kind: str, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Check ``given`` against the options of the role of this kind and of the roles that all kinds share.

    Returns the values with their defaults and in their types, and a sentence for each one that is wrong.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    roles = ("node", kind, *HOST_ROLES, *LATER_ROLES)
    options = {name: option for role in roles for name, option in role_options(role).items()}
    for name, option in options.items():
        if name not in given:
            if option.get("required"):
                problems.append(f"{name} is missing; it is needed for a {kind}: {_text(option['description'])}")
            values[name] = option.get("default")
            continue
        spec = {key: option[key] for key in VALIDATED if key in option}
        result = ArgumentSpecValidator({name: spec}).validate({name: given[name]})
        problems.extend(f"{name} is {given[name]!r}: {message}" for message in result.error_messages)
        values[name] = result.validated_parameters[name]
    return values, problems


def _text(description: str | list[str]) -> str:
    return description if isinstance(description, str) else " ".join(description)


def collection_version() -> str:
    """Version of this collection, installed or in a checkout."""
    manifest = COLLECTION / "MANIFEST.json"
    if manifest.exists():
        return json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    source = COLLECTION / "galaxy.yml"
    if not source.exists():  # somebody copied what runs and nothing else
        return "unknown"
    return str(yaml.safe_load(source.read_text(encoding="utf-8"))["version"])
