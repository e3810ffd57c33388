# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The story from the first greeting to the last number; see README.md for what it shows and why."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import functions, learning
from .nodes import DomainAddress, describe_node
from .owner import Account, Owner
from .researcher import Answer, Grid, Site, mock, private_is_closed, request, run_everywhere, source_of
from .story import DemoError, Round, Story, write_results

DESCRIPTION = "Measurements of cell nuclei from breast tumours, and whether the tumour was benign (1) or malignant (0)."


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know."""

    network_name: str
    network_url: str
    domains: list[DomainAddress]
    results: Path
    rounds: int
    job_timeout_seconds: float
    tolerance_points: float


@dataclass
class Demo:
    """One run. Plays all parts (owners, data scientist, and the referee who knows everything)."""

    plan: Plan
    story: Story
    owners: dict[str, Owner] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    approved: dict[tuple[str, str], Any] = field(default_factory=dict)

    def play(self) -> None:
        """Runs all chapters. Approvals and accounts of this run are taken back whatever happens."""
        split = learning.split_patients(len(self.plan.domains))
        account = Account(f"data.scientist.{secrets.token_hex(4)}@example.org", secrets.token_urlsafe(24))
        try:
            self.meet_the_grid()
            self.share_the_data(split)
            grid = self.discover()
            self.enter(grid, account)
            self.ask(account)
            rounds, seconds = self.train(split.held_out)
        finally:
            self.take_back()
        self.conclude(split, rounds, seconds)

    def meet_the_grid(self) -> None:
        """Every node must answer, every owner must get in, every Domain must have a Worker."""
        tell = self.story.tell
        self.story.chapter("1. The grid: is everybody there?")
        metadata = describe_node(self.plan.network_name, self.plan.network_url, "gateway")
        where = f"{self.plan.network_url} (syft {metadata['syft_version']})"
        tell(f"   Network {self.plan.network_name} answers at {where}")
        for domain in self.plan.domains:
            describe_node(domain.name, domain.url, "datasite")
            owner = self.owners[domain.name] = Owner(domain)
            workers = owner.workers()
            if not workers:
                raise DemoError(f"no Worker is attached to the Domain {domain.name}; see `make status`")
            tell(f"   Domain {domain.name} answers at {domain.url}; its Workers: {', '.join(workers)}")

    def share_the_data(self, split: learning.Split) -> None:
        """Each owner uploads its part, with invented mock data in place of what others may not see."""
        self.story.chapter("2. The owners: each uploads its own patients to its own Domain")
        for part, (name, owner) in zip(split.private, self.owners.items(), strict=True):
            dataset = self.datasets[name] = f"Breast cancer patients of {name} ({part.digest()})"
            fresh = owner.share(dataset, DESCRIPTION, part, learning.mock_of(part.features.shape[1], name))
            what = f"uploads {len(part)} private patients" if fresh else f"has uploaded its {len(part)} patients before"
            self.story.tell(f"   {name} {what}, and {learning.MOCK_ROWS} invented ones that anybody may see")
        self.story.tell(f"   {len(split.held_out)} further patients are held out: nobody trains on them")

    def discover(self) -> Grid:
        """A guest of the Network, with no account anywhere, learns what there is."""
        self.story.chapter("3. The data scientist: knows the Network's URL and nothing else")
        grid = Grid(self.plan.network_url)
        known = grid.domains()
        self.story.tell("   the Network knows: " + ", ".join(f"{name} ({state})" for name, state in known.items()))
        for name, dataset in self.datasets.items():
            if known.get(name) != "active":
                raise DemoError(f"the Network lists {name} as {known.get(name, 'not associated')}, not as active")
            if dataset not in grid.datasets(name):
                raise DemoError(f"a guest of the Network cannot see the dataset {dataset!r} at {name}")
            self.story.tell(f'   {name} offers "{dataset}"')
        return grid

    def enter(self, grid: Grid, account: Account) -> None:
        """Ordinary accounts, used through the Network; private values stay closed to them."""
        self.story.chapter("4. An ordinary account at each Domain, opened by its owner; no right to any private value")
        for name, owner in self.owners.items():
            owner.open_account(account, "A data scientist")
            site = grid.enter(name, account, self.datasets[name])
            if not private_is_closed(site):
                raise DemoError(f"{name} handed private data to an ordinary account")
            self.story.tell(f"   logged in to {name} through the Network; asked for the private data: refused")
            self.sites.append(site)
        sample = mock(self.sites[0])
        width = sample["features"].shape[1]
        functions.feature_totals(sample["features"])
        functions.train_locally(**sample, centre=[0.0] * width, scale=[1.0] * width, weights=[0.0] * (width + 1))
        self.story.tell("   both functions run on the invented data; now they may be shown to the owners")

    def ask(self, account: Account) -> None:
        """Two functions for each Domain: totals for a common scale, and the training itself."""
        self.story.chapter("5. Request and approval: the owners read what is to run on their data")
        self.story.quote(source_of(functions.feature_totals))
        self.story.quote("\n" + source_of(functions.train_locally))
        wanted = (
            (functions.feature_totals, 1, "A common scale for all Domains' measurements"),
            (functions.train_locally, self.plan.rounds, "Federated training of a logistic regression"),
        )
        for site in self.sites:
            owner = self.owners[site.name]
            for function, runs, reason in wanted:
                asked = request(site, function, runs, f"{reason}; {runs} run(s)")
                found = owner.review(asked, account, source_of(function), self.datasets[site.name])
                owner.approve(found)
                self.approved[site.name, function.__name__] = found
                self.story.tell(f"   {site.name} got {function.__name__} ({runs} run(s)), compared it, approves it")

    def train(self, held_out: learning.Table) -> tuple[list[Round], float]:
        """FedAvg: the same weights go to all Domains, better ones come back, their average goes out again."""
        self.story.chapter(f"6. Training: {self.plan.rounds} rounds; weights travel, patients stay")
        started = self.story.seconds()
        totals = self._everywhere("feature_totals")
        centre, scale = learning.centre_and_scale([answer.value for answer in totals.values()])
        patients = sum(answer.value["patients"] for answer in totals.values())
        self.story.tell(f"   scale    {_who(totals)}: mean and spread of {patients} patients from totals alone")
        weights = [0.0] * (len(centre) + 1)
        rounds: list[Round] = []
        for number in range(1, self.plan.rounds + 1):
            began = self.story.seconds()
            trained = self._everywhere("train_locally", centre=centre, scale=scale, weights=weights)
            weights = learning.average([answer.value for answer in trained.values()])
            each = {
                name: learning.accuracy(answer.value["weights"], centre, scale, held_out)
                for name, answer in trained.items()
            }
            mean = learning.accuracy(weights, centre, scale, held_out)
            rounds.append(Round(number, mean, each, round(self.story.seconds() - began, 2)))
            parts = "  ".join(f"{name} {each[name]:.1%} ({_run(answer)})" for name, answer in trained.items())
            self.story.tell(f"   round {number}/{self.plan.rounds}  {parts}  averaged {mean:.1%}")
        for (name, function), approved in self.approved.items():
            runs, allowed = self.owners[name].runs_of(approved), self._allowed(function)
            if runs != allowed:
                raise DemoError(f"{name} approved {allowed} run(s) of {function}, its record holds {runs}")
        self.story.tell("   the owners' records hold exactly the runs they approved; approvals and accounts end here")
        return rounds, self.story.seconds() - started

    def take_back(self) -> None:
        """Ends approvals and accounts at every Domain that still answers; hides no other error."""
        for name, owner in self.owners.items():
            try:
                owner.close()
            except Exception as error:
                self.story.tell(
                    f"   {name}: could not take back what was approved in this run ({type(error).__name__})"
                )

    def conclude(self, split: learning.Split, rounds: list[Round], seconds: float) -> None:
        """Compares with the model that a single pot of data would have given."""
        self.story.chapter("7. The result, on the held-out patients")
        central, federated = learning.central_accuracy(split), rounds[-1].accuracy
        difference = 100 * (federated - central)
        facts = {
            "federated_accuracy": federated,
            "difference_points": difference,
            "tolerance_points": self.plan.tolerance_points,
            "domains": list(self.owners),
            "private_patients": len(split.pooled()),
            "held_out_patients": len(split.held_out),
            "training_seconds": round(seconds, 2),
            "total_seconds": round(self.story.seconds(), 2),
        }
        record, picture = write_results(self.plan.results, rounds, central, facts)
        self.story.tell(f"   federated model  {federated:.1%}   (no private value left its Domain)")
        self.story.tell(f"   central model    {central:.1%}   (scikit-learn, all data in one place)")
        self.story.tell(f"   difference       {difference:+.1f} points; allowed are {self.plan.tolerance_points:g}")
        self.story.tell(f"   plot   {picture}")
        self.story.tell(f"   record {record}")
        if abs(difference) > self.plan.tolerance_points:
            raise DemoError(
                f"the federated accuracy {federated:.1%} differs from the central {central:.1%} by more than "
                f"{self.plan.tolerance_points:g} points"
            )

    def _allowed(self, function: str) -> int:
        return self.plan.rounds if function == functions.train_locally.__name__ else 1

    def _everywhere(self, function: str, **chosen: list[float]) -> dict[str, Answer]:
        def waiting(states: str) -> None:
            self.story.tell(f"   waiting  {states}")

        return run_everywhere(self.sites, function, self.plan.job_timeout_seconds, waiting, **chosen)


def _run(answer: Answer) -> str:
    return f"{answer.worker}, {answer.seconds:.1f} s"


def _who(answers: dict[str, Answer]) -> str:
    return "  ".join(f"{name} ({_run(answer)})" for name, answer in answers.items())
