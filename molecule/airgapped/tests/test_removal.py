# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grid is taken away: first what runs, then with all data, and of it only packages of the distribution are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hospital import NODES

if TYPE_CHECKING:
    from .conftest import Hospital


@pytest.mark.thorough
def test_without_data_the_same_nodes_come_back(hospital: Hospital) -> None:
    before = {node: hospital.must(f"sha256sum /etc/pygrid/nodes/{node}/identity.json") for node in NODES}
    datasets = hospital.client("fingerprint", "alice")["datasets"]
    assert datasets
    hospital.grid.must_play("remove")
    assert hospital.must("systemctl list-units --all --plain --no-legend 'pygrid-*' --state=active") == ""
    assert hospital.must("ps -eo user:32= | grep -c '^pygrid' || true") == "0"
    hospital.grid.must_play("deploy")
    assert {node: hospital.must(f"sha256sum /etc/pygrid/nodes/{node}/identity.json") for node in NODES} == before
    assert hospital.client("fingerprint", "alice")["datasets"] == datasets


def test_with_data_nothing_is_left(hospital: Hospital) -> None:
    hospital.grid.must_play("remove", "-e", "pygrid_remove_data=true", "-e", "pygrid_confirm=true")
    left = hospital.must(
        "ls -d /etc/pygrid /opt/pygrid /var/lib/pygrid /run/pygrid /var/cache/pygrid/bundles 2>/dev/null || true"
    )
    assert left == ""
    assert hospital.must("find /etc /var /usr/local -xdev -name '*pygrid*' -not -path '/var/cache/pygrid*'") == ""
    assert hospital.must("getent passwd | grep -c ^pygrid || true") == "0"
    assert hospital.must("nft list tables | grep -c pygrid || true") == "0"
    assert hospital.must("systemctl list-unit-files --no-legend 'pygrid*' || true") == ""
    databases = (
        "cd / && runuser -u postgres -- psql -At -c \"select datname from pg_database where datname like 'pygrid%'\""
    )
    assert hospital.must(f"! systemctl is-active -q postgresql || ({databases})") == ""
