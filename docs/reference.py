# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/variables.md from the roles' argument_specs, the one place where variables are documented.

python docs/reference.py          write it
python docs/reference.py --check  exit 1 when it is not what would be written
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parent
ROLES = DOCS.parent / "roles"
ORDER = (
    "node",
    "network",
    "domain",
    "worker",
    "upgrade",
    "scale",
    "resize",
    "host",
    "bundle",
    "images",
    "foreign",
    "certificates",
    "database",
    "ingress",
    "firewall",
    "cloud",
)
INTRODUCTION = """\
# Variables

Generated from the roles' `meta/argument_specs.yml` by `python docs/reference.py`; do not edit.
Set them in the inventory, for a group (`pygrid`, `pygrid_domain` ...) or for one node.
A misspelt name or a wrong type is reported, with all others, before anything is changed.
"""
MARKUP = {"O": "`{}`", "V": "`{}`", "C": "`{}`", "M": "`{}`", "B": "**{}**", "I": "*{}*"}


def plain(description: str | list[str]) -> str:
    """Ansible's semantic markup as Markdown, in one paragraph."""
    text = description if isinstance(description, str) else " ".join(description)
    text = re.sub(r"\bP\(([^#)]+)#\w+\)", r"`\1`", text)
    return re.sub(r"\b([OVCMBI])\(([^)]*)\)", lambda match: MARKUP[match[1]].format(match[2]), text).replace("|", "\\|")


def value(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "**required**"
    default = option.get("default")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "empty" if default in ("", [], None) else f"`{default}`"


def table(options: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| variable | type | default | meaning |", "|---|---|---|---|"]
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        choices = f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if "choices" in option else ""
        lines.append(f"| `{name}` | {kind} | {value(option)} | {plain(option['description'])}{choices} |")
    return lines


def render() -> str:
    names = [path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml")]
    roles = sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    lines = [INTRODUCTION]
    for role in roles:
        specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        for entry, spec in specs.items():
            if not spec.get("options"):
                continue
            title = role if entry == "main" else f"{role}, step {entry}"
            description = plain(spec["description"])
            lines += [f"## {title}", "", f"{spec['short_description']}. {description}", "", *table(spec["options"]), ""]
    return "\n".join(lines)


def main() -> None:
    target = DOCS / "variables.md"
    text = render()
    if "--check" not in sys.argv:
        target.write_text(text)
    elif not target.exists() or target.read_text() != text:
        sys.exit("docs/variables.md is not up to date: run python docs/reference.py")


if __name__ == "__main__":
    main()
