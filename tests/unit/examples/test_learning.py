# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's arithmetic, against scikit-learn where scikit-learn knows the answer."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from federated_breast_cancer import functions, learning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


@pytest.fixture(scope="module")
def split() -> learning.Split:
    return learning.split_patients(2)


def rows(table: learning.Table) -> set[bytes]:
    return {row.tobytes() for row in table.features}


def test_no_patient_is_in_two_places(split: learning.Split) -> None:
    alice, bob = (rows(part) for part in split.private)
    held_out = rows(split.held_out)
    assert alice.isdisjoint(bob)
    assert held_out.isdisjoint(alice | bob)
    assert len(alice) + len(bob) + len(held_out) == 569


def test_owners_get_equal_parts_with_both_diagnoses(split: learning.Split) -> None:
    assert [len(part) for part in split.private] == [213, 213]
    assert all(set(part.labels) == {0, 1} for part in split.private)


def test_split_is_the_same_in_every_run(split: learning.Split) -> None:
    again = learning.split_patients(2)
    assert [part.digest() for part in again.private] == [part.digest() for part in split.private]
    assert split.private[0].digest() != split.private[1].digest()


def test_mock_has_the_shape_but_no_patient(split: learning.Split) -> None:
    mock = learning.mock_of(30, "alice")
    assert mock.features.shape == (learning.MOCK_ROWS, 30)
    assert not rows(mock) & rows(split.pooled())
    assert rows(mock) != rows(learning.mock_of(30, "bob"))


def test_scale_from_totals_is_that_of_the_pooled_data(split: learning.Split) -> None:
    totals = [functions.feature_totals(part.features) for part in split.private]
    centre, scale = learning.centre_and_scale(totals)
    pooled = StandardScaler().fit(split.pooled().features)
    np.testing.assert_allclose(centre, pooled.mean_)
    np.testing.assert_allclose(scale, pooled.scale_, rtol=1e-6)


def test_a_feature_that_never_varies_is_not_divided_by_zero() -> None:
    _unused, scale = learning.centre_and_scale([functions.feature_totals(np.full((4, 1), 7.0))])
    assert scale == [1.0]


def test_average_counts_patients() -> None:
    parts = [
        learning.Trained(patients=30, weights=[1.0, 0.0]),
        learning.Trained(patients=10, weights=[5.0, 4.0]),
    ]
    assert learning.average(parts) == [2.0, 1.0]


def test_training_goes_where_sklearn_goes(split: learning.Split) -> None:
    pooled = split.pooled()
    scaler = StandardScaler().fit(pooled.features)
    weights = [0.0] * 31
    for _unused in range(200):
        weights = functions.train_locally(
            pooled.features, pooled.labels, scaler.mean_.tolist(), scaler.scale_.tolist(), weights
        )["weights"]
    # sklearn adds |w|^2 / 2 to C times the summed loss; the function, 0.001 |w|^2 / 2 to the mean loss
    exact = LogisticRegression(C=1000 / len(pooled), tol=1e-8, max_iter=10_000)
    exact.fit(scaler.transform(pooled.features), pooled.labels)
    np.testing.assert_allclose(weights, [*exact.coef_[0], exact.intercept_[0]], atol=0.1)


def federated_accuracy(split: learning.Split, rounds: int) -> float:
    centre, scale = learning.centre_and_scale([functions.feature_totals(part.features) for part in split.private])
    weights = [0.0] * 31
    for _unused in range(rounds):
        weights = learning.average(
            [functions.train_locally(part.features, part.labels, centre, scale, weights) for part in split.private]
        )
    return learning.accuracy(weights, centre, scale, split.held_out)


@pytest.mark.parametrize("owners", [1, 2, 3])
def test_five_rounds_reach_the_central_model(owners: int) -> None:
    split = learning.split_patients(owners)
    assert abs(federated_accuracy(split, 5) - learning.central_accuracy(split)) <= 0.02


def test_untrained_weights_do_not_reach_it(split: learning.Split) -> None:
    centre, scale = learning.centre_and_scale([functions.feature_totals(part.features) for part in split.private])
    assert learning.accuracy([0.0] * 31, centre, scale, split.held_out) < 0.5


@pytest.mark.parametrize("function", [functions.feature_totals, functions.train_locally])
def test_a_function_that_travels_stands_alone(function: object, split: learning.Split) -> None:
    alone: dict[str, object] = {}
    exec(inspect.getsource(function), alone)  # noqa: S102 - what the Worker does with it
    part = split.private[0]
    given = {"features": part.features, "labels": part.labels, "centre": [0.0] * 30, "scale": [1.0] * 30}
    given["weights"] = [0.0] * 31
    wanted = inspect.signature(function).parameters
    result = alone[function.__name__](**{name: given[name] for name in wanted})
    assert result["patients"] == 213
    for values in (value for name, value in result.items() if name != "patients"):
        assert len(values) in (30, 31), "as many numbers as features, never as many as patients"
