# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo tells the reader while it runs, and what it leaves behind."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pathlib import Path


class DemoError(Exception):
    """The demo cannot go on; the message is one line for a person."""


@dataclass
class Story:
    """Prints lines that begin with the seconds since the start."""

    out: TextIO
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Returns the seconds since the start."""
        return time.monotonic() - self.started

    def tell(self, text: str = "") -> None:
        """Prints one line with the time in front; an empty line has none."""
        print(f"[{self.seconds():6.1f} s] {text}" if text else "", file=self.out, flush=True)

    def chapter(self, title: str) -> None:
        """Prints the headline of the next step."""
        self.tell()
        self.tell(title)

    def quote(self, text: str) -> None:
        """Prints lines of somebody else's text, set off from the story."""
        for line in text.rstrip().splitlines():
            print(f"           | {line}", file=self.out, flush=True)


@dataclass
class Round:
    """One round of training as it is drawn and stored. Accuracies are between 0 and 1."""

    number: int
    accuracy: float
    accuracy_by_owner: dict[str, float]
    seconds: float


def write_results(folder: Path, rounds: list[Round], central: float, facts: dict[str, Any]) -> tuple[Path, Path]:
    """Writes results.json and accuracy_per_round.png. Returns their paths."""
    record = folder / "results.json"
    content = {**facts, "central_accuracy": central, "rounds": [vars(one) for one in rounds]}
    record.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    picture = folder / "accuracy_per_round.png"
    _draw(picture, rounds, central)
    return record, picture


def _draw(picture: Path, rounds: list[Round], central: float) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    numbers = [one.number for one in rounds]
    for owner in rounds[0].accuracy_by_owner:
        own = [100 * one.accuracy_by_owner[owner] for one in rounds]
        axes.plot(numbers, own, marker=".", linestyle=":", label=f"after {owner}'s own steps")
    axes.plot(numbers, [100 * one.accuracy for one in rounds], marker="o", linewidth=2, label="federated (averaged)")
    axes.axhline(100 * central, color="black", linestyle="--", label="central (all data in one place)")
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on held-out patients, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(min(90, *axes.get_ylim()), 100)
    axes.set_title("Breast cancer model trained where the data lives")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
