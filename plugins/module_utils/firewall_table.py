# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of nftables that is ours: in the kernel, in its file, and in the unit that loads it at boot."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import read_text, write_if_different
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_rules import TABLE
from ansible_collections.openmined.pygrid.plugins.module_utils.firewall_run import (
    SYSTEM_PATH,
    checked,
    has,
    output_of,
    run,
)

FILE = Path("/etc/pygrid/firewall.nft")
UNIT_NAME = "pygrid-firewall.service"
UNIT_FILE = Path("/etc/systemd/system") / UNIT_NAME

# After and PartOf nftables.service: its configuration usually begins with "flush ruleset", which takes our table along.
UNIT = """\
# Written by openmined.pygrid, role firewall.
[Unit]
Description=Firewall rules of PyGrid
DefaultDependencies=no
Wants=network-pre.target
After=local-fs.target nftables.service
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {file}
ExecReload={nft} -f {file}
ExecStop=-{nft} delete table {table}
ProtectSystem=full
ProtectHome=true

[Install]
WantedBy=sysinit.target nftables.service
"""


@dataclass(frozen=True)
class Difference:
    """What is there and what is wanted, as text for a diff; ``name`` heads it."""

    name: str
    before: str
    after: str


def without_counts(listing: str) -> str:
    """A table as nft lists it, less what its counters have counted: ``nft -s`` before 1.0 tells that, too."""
    return re.sub(r"\s*packets \d+ bytes \d+", "", listing)


class Table:
    """The table, its file and its unit; ``text`` is the wanted file, None for none at all."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def differences(self, dry_run: bool) -> list[Difference]:
        """What is not as wanted. In a dry run nftables may be missing still."""
        if dry_run and not has("nft"):
            return [Difference(f"table {TABLE}", "", self._text)] if self._text else []
        table = Difference(f"table {TABLE}", self._live(), self._canonical() if self._text else "")
        file = Difference(str(FILE), read_text(FILE) or "", self._text or "")
        found = [
            # the file says the same as the table: it is shown where it is all that differs
            table if table.before != table.after else file,
            Difference(str(UNIT_FILE), read_text(UNIT_FILE) or "", self._unit()),
            Difference(UNIT_NAME, self._unit_state(), "enabled, active\n" if self._text else "absent\n"),
        ]
        return [difference for difference in found if difference.before != difference.after]

    def apply(self) -> None:
        """Make it as wanted. The old rules hold until the kernel has taken the new ones as a whole."""
        if self._text is None:
            self._remove()
            return
        with self._draft(self._text) as draft:
            checked(["nft", "-c", "-f", draft.name])
        FILE.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_if_different(FILE, self._text, 0o600)
        if write_if_different(UNIT_FILE, self._unit(), 0o644):
            checked(["systemctl", "daemon-reload"])
        checked(["systemctl", "enable", "--quiet", UNIT_NAME])
        # loads the file, and nothing in between, whether the unit was active or not
        checked(["systemctl", "reload-or-restart", UNIT_NAME])

    def _remove(self) -> None:
        if UNIT_FILE.exists():
            checked(["systemctl", "disable", "--quiet", "--now", UNIT_NAME])
            UNIT_FILE.unlink()
            checked(["systemctl", "daemon-reload"])
        if self._live():
            checked(["nft", "delete", "table", *TABLE.split()])
        if FILE.exists():
            FILE.unlink()
            # others keep theirs in the same folder; only an empty one was left for us
            with contextlib.suppress(OSError):
                FILE.parent.rmdir()

    @staticmethod
    def is_there() -> bool:
        """Whether an earlier run made rules that hold now, as far as this account may see."""
        return bool(output_of(["nft", "list", "table", *TABLE.split()]))

    @staticmethod
    def _live() -> str:
        """The table as the kernel has it, without the values of its counters; empty when it has none."""
        if not has("nft"):
            return ""
        result = run(["nft", "-s", "list", "table", *TABLE.split()])
        if result.returncode and "No such file or directory" not in result.stderr:
            raise PygridError(
                f"nft cannot read the rules of this machine: {result.stderr.strip()}; in a container it needs the"
                " capability CAP_NET_ADMIN"
            )
        return "" if result.returncode else without_counts(result.stdout)

    def _canonical(self) -> str:
        """The wanted table as a kernel tells it: loaded into a network namespace of its own, which then ends.

        Only so can it be compared with the live one, since nft sorts, joins and renames what it is given.
        """
        with self._draft(self._text or "") as draft:
            script = f'nft -f "$1" && exec nft -s list table {TABLE}'
            return without_counts(checked(["unshare", "--net", "sh", "-c", script, "sh", draft.name]))

    @staticmethod
    def _draft(text: str) -> tempfile._TemporaryFileWrapper[str]:
        draft = tempfile.NamedTemporaryFile("w", prefix="pygrid-", suffix=".nft", encoding="utf-8")  # noqa: SIM115
        draft.write(text)
        draft.flush()
        return draft

    def _unit(self) -> str:
        if self._text is None:
            return ""
        return UNIT.format(nft=shutil.which("nft", path=SYSTEM_PATH) or "/usr/sbin/nft", file=FILE, table=TABLE)

    @staticmethod
    def _unit_state() -> str:
        if not UNIT_FILE.exists():
            return "absent\n"
        states = checked(["systemctl", "show", "--property=UnitFileState,ActiveState", "--value", UNIT_NAME]).split()
        # systemctl prints them in an order of its own
        return ", ".join(sorted(states, key=lambda state: "active" in state or "fail" in state)) + "\n"
