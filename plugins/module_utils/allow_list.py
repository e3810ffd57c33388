# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single entries of a Domain's allow-list, while the Domain runs: it re-reads the file by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ansible_collections.openmined.pygrid.plugins.module_utils.accounts import readable_by_node
from ansible_collections.openmined.pygrid.plugins.module_utils.errors import PygridError
from ansible_collections.openmined.pygrid.plugins.module_utils.files import (
    locked,
    read_json,
    read_text,
    to_json,
    write_if_different,
)
from ansible_collections.openmined.pygrid.plugins.module_utils.paths import Home


def edit(
    home: Home, name: str, present: Mapping[str, str], absent: Iterable[str], dry_run: bool = False
) -> tuple[str, str]:
    """Let in and lock out single Workers; all others stay as they are. Returns the list before and after.

    Args:
        home: of the grid.
        name: of the Domain.
        present: public keys of Workers to let in, by name.
        absent: names of Workers to lock out.
    """
    node = home.node(name)
    if not node.settings.exists():
        raise PygridError(f"{name} is not deployed on this host; run playbooks/deploy.yml")
    with locked(home.locks / f"workers-{name}.lock"):
        before = read_text(node.workers) or to_json({})
        gone = set(absent)
        kept = {worker: key for worker, key in (read_json(node.workers) or {}).items() if worker not in gone}
        after = to_json({**kept, **present})
        if after != before and not dry_run:
            write_if_different(node.workers, after, *readable_by_node(home, name))
    return before, after
