# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters between the words of Google Compute Engine and those of the role cloud."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.openmined.pygrid.plugins.filter.gcp import (
    gcp_firewalls,
    gcp_found,
    gcp_image_question,
    gcp_images,
    gcp_labels,
    gcp_machines,
    gcp_problems,
    gcp_taken_away,
    gcp_volumes,
)

ZONE = "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west4-a"
SSH = {"port": 22, "kinds": ["network"], "cidrs": ["192.0.2.0/24"], "why": "administrators"}
PEOPLE = {"port": 443, "kinds": [], "cidrs": ["0.0.0.0/0", "::/0"], "why": "data scientists use the domain"}
NODES = {"port": 443, "kinds": ["worker"], "cidrs": [], "why": "nodes use the domain"}


def image(name: str, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "selfLink": f"https://x/{name}", "creationTimestamp": "2026-09-10", "status": "READY",
        "diskSizeGb": "10", **({"labels": labels} if labels else {}), **more,
    }  # fmt: skip


def plan(*hosts: str) -> dict[str, Any]:
    return {"new": [{"host": host} for host in hosts]}


def test_what_google_has_no_names_for_is_refused() -> None:
    assert gcp_problems(plan("net", "alice-w1"), "heart", "heart-study", "operator") == []
    found = gcp_problems(plan("Alice", "alice.b", "alice_b", "-a"), "Heart", "", "root")
    assert [sentence.partition(":")[0] for sentence in found] == [
        "pygrid_cloud_project", "pygrid_cloud_user", "pygrid_cloud_grid", *["pygrid_machines"] * 4
    ]  # fmt: skip


def test_names_stay_within_63_characters() -> None:
    grid, host = "g" * 27, "h" * 23
    assert gcp_problems(plan(host), grid, "p", "operator") == []
    assert len(f"pygrid-{grid}-{host}-data") <= 63
    assert len(f"pygrid-{grid}-{'0' * 12}-20260910-101112") <= 63
    assert len(gcp_problems(plan(host + "h"), grid, "p", "operator")) == 1
    assert len(gcp_problems(plan(), grid + "g", "p", "operator")) == 1


def test_a_long_tag_is_the_same_when_it_is_read_again() -> None:
    of = "0123456789abcdef" * 4
    labels = gcp_labels({"Name": "pygrid-heart", "pygrid_grid": "heart", "pygrid_image_of": of, "Team": "A b"})
    assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", value) for value in labels.values())
    assert (labels["pygrid_grid"], labels["team"], "name" in labels) == ("heart", "a-b", False)
    assert gcp_images([image("own", labels)], "")[0]["of"] == of


def test_an_image_is_known_by_the_image_that_it_was_made_from() -> None:
    named = "projects/debian-cloud/global/images/family/debian-12"
    labels = gcp_labels({"pygrid_image_of": "abc", "pygrid_image_base": named})
    own = gcp_images([image("own", labels)], named)[0]
    base = gcp_images([image("debian-12-v1")], named)[0]
    assert (own["id"], own["base"], base["id"]) == ("own", named, named)
    assert gcp_images([image("own", labels)], "another")[0]["base"] != "another"
    assert gcp_images([image("debian-12-v1")], "")[0] | {"created": ""} == {
        "id": "debian-12-v1", "name": "debian-12-v1", "link": "https://x/debian-12-v1", "created": "", "usable": True,
        "disk": 10, "of": "", "base": "",
    }  # fmt: skip


def test_deprecated_images_are_left_out() -> None:
    images = [image("old", deprecated={"state": "DEPRECATED"}), image("new", deprecated={"state": "ACTIVE"})]
    assert [one["name"] for one in gcp_images(images, "")] == ["new"]
    assert gcp_images([image("half", status="PENDING")], "")[0]["usable"] is False


@pytest.mark.parametrize(
    ("named", "project", "asked"),
    [
        ("", "debian-cloud", "family = debian-12"),
        ("mine", "heart-study", "name = mine"),
        ("projects/other/global/images/theirs", "other", "name = theirs"),
        ("projects/other/global/images/family/f", "other", "family = f"),
        ("https://www.googleapis.com/compute/v1/projects/other/global/images/theirs", "other", "name = theirs"),
    ],
)
def test_images_are_asked_for_where_they_are(named: str, project: str, asked: str) -> None:
    assert gcp_image_question(named, "heart-study") == {"project": project, "filter": asked}


def test_a_port_is_in_one_rule_with_all_who_may_use_it() -> None:
    found = gcp_firewalls({"domain": [SSH, PEOPLE, NODES, {**NODES, "port": 5500}]}, "pygrid-heart")
    assert [(one["ports"], one["tags"], one["cidrs"]) for one in found] == [
        ([22], ["pygrid-heart-network"], ["192.0.2.0/24"]),
        ([443], ["pygrid-heart-worker"], ["0.0.0.0/0"]),
        ([5500], ["pygrid-heart-worker"], []),
    ]
    assert {one["target"] for one in found} == {"pygrid-heart-domain"}
    together = gcp_firewalls({"domain": [NODES, {**NODES, "port": 5500}]}, "pygrid-heart")
    assert [one["ports"] for one in together] == [[443, 5500]]


def test_a_rule_without_anybody_is_none() -> None:
    # Google takes a rule without a source for one that is for everybody.
    assert gcp_firewalls({"worker": [{**SSH, "kinds": [], "cidrs": ["2001:db8::/32"]}]}, "pygrid-heart") == []


def test_another_rule_has_another_name() -> None:
    former, other = ({"worker": [{**SSH, "cidrs": [cidr]}]} for cidr in ("192.0.2.0/24", "192.0.2.0/25"))
    names = {gcp_firewalls(rules, "pygrid-heart")[0]["name"] for rules in (former, other, former)}
    assert len(names) == 2


def test_where_things_are() -> None:
    machine = {"id": "17", "name": "pygrid-heart-alice", "zone": ZONE, "disks": [{"source": f"{ZONE}/disks/x"}]}
    assert gcp_machines([machine]) == {
        "17": {"name": "pygrid-heart-alice", "zone": "europe-west4-a", "disk": f"{ZONE}/disks/x"}
    }
    disks = [
        {"name": "d", "zone": ZONE, "labels": {"pygrid_data_of": "alice"}},
        {"name": "e", "zone": ZONE, "labels": {}},
    ]
    assert gcp_volumes(disks) == {"alice": {"name": "d", "zone": "europe-west4-a"}}


def test_a_machine_that_is_being_changed_was_not_taken_away() -> None:
    off = {"id": "1", "status": "TERMINATED", "scheduling": {"preemptible": True}, "labels": {}}
    others = [
        {**off, "status": "RUNNING"},
        {**off, "scheduling": {"preemptible": False}},
        {**off, "labels": {"pygrid_resizing": "e2-medium"}},
    ]
    assert gcp_taken_away([off, *others]) == [{"id": "1"}]


def test_only_data_are_kept() -> None:
    things = {
        "instances": [{"id": "1", "name": "m", "zone": ZONE, "labels": {}}],
        "disks": [
            {"id": "2", "name": "d", "zone": ZONE, "labels": {"pygrid_data_of": "alice"}},
            {"id": "3", "name": "e", "zone": ZONE, "labels": {}},
        ],
        "subnetworks": [{"id": "4", "name": "s", "network": "n", "ipCidrRange": "10.0.0.0/24"}],
    }
    found = gcp_found(things)
    assert [(one["kind"], one["kept"]) for one in found] == [
        ("machine", False), ("volume", True), ("volume", False), ("subnet", False)
    ]  # fmt: skip
    assert (found[0]["zone"], found[3]["network"], found[3]["cidr"]) == ("europe-west4-a", "n", "10.0.0.0/24")
