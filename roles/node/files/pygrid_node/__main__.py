# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the node runtime: run, check, identity create, identity show, snapshot."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import environment, snapshot_command
from .errors import NodeError
from .identity import create_identity, load_identity
from .logs import is_journal
from .owner import check_owner
from .settings import KINDS, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0, or that of the NodeError whose reason is on stderr)."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except NodeError as error:
        priority = "<3>" if is_journal(2) else ""
        print(f"{priority}pygrid_node: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pygrid_node", description="Run a PyGrid node.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "run the node in the foreground"),
        ("check", _check, "validate settings, identity and data, and start nothing"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("settings", type=Path, help="settings.json of the node")
        sub.set_defaults(command=command)
    identity = commands.add_parser("identity", help="create or show an identity").add_subparsers(
        required=True, metavar="COMMAND"
    )
    create = identity.add_parser("create", help="create the identity file unless there is one")
    create.add_argument("--kind", choices=KINDS, required=True)
    create.add_argument("--file", type=Path, required=True)
    create.add_argument("--from-stdin", action="store_true", help="take own values as JSON from standard input")
    create.set_defaults(command=_identity_create)
    show = identity.add_parser("show", help="print the public part as JSON")
    show.add_argument("--file", type=Path, required=True)
    show.set_defaults(command=_identity_show)
    snapshot_command.add_parser(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    environment.run_from_release()
    settings = load_settings(options.settings)
    identity = load_identity(settings.identity_file, settings.kind)
    environment.syft_version()
    os.umask(0o077)
    environment.prepare(settings, identity)
    if settings.kind != "worker":
        check_owner(settings, identity)
    if settings.stop_with_parent:
        environment.stop_with_parent()
    # Only now, because syft reads the environment when it is imported.
    if settings.kind == "worker":
        from .worker import run
    else:
        from .server import run
    return run(settings, identity)


def _check(options: argparse.Namespace) -> int:
    settings = load_settings(options.settings)
    identity = load_identity(settings.identity_file, settings.kind)
    environment.syft_version()
    if settings.kind != "worker":
        check_owner(settings, identity)
    return 0


def _identity_create(options: argparse.Namespace) -> int:
    identity, created = create_identity(options.file, options.kind, _own_values() if options.from_stdin else None)
    print(json.dumps({**identity.public(), "created": created}))
    return 0


def _identity_show(options: argparse.Namespace) -> int:
    print(json.dumps(load_identity(options.file).public()))
    return 0


def _own_values() -> dict[str, Any]:
    try:
        own = json.load(sys.stdin)
    except ValueError:
        raise NodeError("standard input: not valid JSON") from None
    if not isinstance(own, dict):
        raise NodeError("standard input: must be a JSON object")
    return own


if __name__ == "__main__":
    sys.exit(main())
