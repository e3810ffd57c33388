# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the demo: splitting the data, averaging models, measuring them. No grid in here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HELD_OUT_SHARE = 0.25
MOCK_ROWS = 20
SEED = 0


class Totals(TypedDict):
    """What `functions.feature_totals` returns."""

    patients: int
    sums: list[float]
    squares: list[float]


class Trained(TypedDict):
    """What `functions.train_locally` returns."""

    patients: int
    weights: list[float]


@dataclass(frozen=True)
class Table:
    """Patients in rows: their measurements, and 1 for a benign tumour, 0 for a malignant one."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Returns eight hex digits that change when any value changes."""
        return hashlib.sha256(self.features.tobytes() + self.labels.tobytes()).hexdigest()[:8]


@dataclass(frozen=True)
class Split:
    """The private part of every owner, and the patients nobody trains on."""

    private: list[Table]
    held_out: Table
    feature_names: list[str]

    def pooled(self) -> Table:
        """Returns all private parts in one table: what a grid exists to avoid; only the comparison uses it."""
        return Table(
            np.vstack([part.features for part in self.private]),
            np.concatenate([part.labels for part in self.private]),
        )


def split_patients(owners: int) -> Split:
    """Deals out scikit-learn's breast cancer data: a quarter is held out, the owners get equal parts of the rest."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    rest_x, test_x, rest_y, test_y = train_test_split(
        data.data, data.target, test_size=HELD_OUT_SHARE, stratify=data.target, random_state=SEED
    )
    shares = np.array_split(np.random.default_rng(SEED).permutation(len(rest_y)), owners)
    return Split(
        [Table(rest_x[share], rest_y[share]) for share in shares],
        Table(test_x, test_y),
        [str(name) for name in data.feature_names],
    )


def mock_of(columns: int, owner: str) -> Table:
    """Returns invented patients: the right shape, random values, nothing learnt from any real patient."""
    random = np.random.default_rng(list(owner.encode()))
    return Table(random.uniform(0, 1, (MOCK_ROWS, columns)), random.integers(0, 2, MOCK_ROWS))


def centre_and_scale(totals: Sequence[Totals]) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of every feature over all owners, from their totals alone."""
    patients = sum(part["patients"] for part in totals)
    mean = np.sum([part["sums"] for part in totals], axis=0) / patients
    variance = np.sum([part["squares"] for part in totals], axis=0) / patients - mean**2
    deviation = np.sqrt(np.maximum(variance, 0))
    return mean.tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def average(parts: Sequence[Trained]) -> list[float]:
    """Returns the mean of the owners' weights; who has more patients counts for more (FedAvg)."""
    counts = [part["patients"] for part in parts]
    return np.average([part["weights"] for part in parts], axis=0, weights=counts).tolist()


def accuracy(weights: Sequence[float], centre: Sequence[float], scale: Sequence[float], table: Table) -> float:
    """Returns the share of patients, 0 to 1, whose tumour the model names rightly."""
    score = (table.features - np.array(centre)) / np.array(scale) @ np.array(weights[:-1]) + weights[-1]
    return float(np.mean((score > 0) == (table.labels == 1)))


def central_accuracy(split: Split) -> float:
    """Returns the accuracy of scikit-learn's logistic regression that is given all private data at once."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pooled = split.pooled()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(pooled.features, pooled.labels)
    return float(model.score(split.held_out.features, split.held_out.labels))
