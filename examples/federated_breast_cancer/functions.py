# Copyright (c) OpenMined and contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two functions that travel to the data: their source text is sent to the Domains and run by the Workers.

Each stands alone (it imports what it needs inside) and returns only numbers that many patients share.
What an owner approves is exactly the text in this file.
"""
# The tables have no type hints: syft sends the signature along and can name no type that must be imported.
# ruff: noqa: ANN001


def feature_totals(features) -> dict:
    """Returns how many patients there are, and each feature's sum and sum of squares over all of them."""
    import numpy

    table = numpy.asarray(features, dtype=float)
    return {
        "patients": len(table),
        "sums": table.sum(axis=0).tolist(),
        "squares": (table**2).sum(axis=0).tolist(),
    }


def train_locally(features, labels, centre: list, scale: list, weights: list) -> dict:
    """Improves the weights of a logistic regression by 20 gradient steps; the last weight is the intercept."""
    import numpy

    table = (numpy.asarray(features, dtype=float) - numpy.array(centre)) / numpy.array(scale)
    table = numpy.hstack([table, numpy.ones((len(table), 1))])
    truth = numpy.asarray(labels, dtype=float)
    weight = numpy.array(weights, dtype=float)
    for _step in range(20):
        guess = 1 / (1 + numpy.exp(-numpy.clip(table @ weight, -30, 30)))
        shrink = 0.001 * numpy.append(weight[:-1], 0)
        weight = weight - 0.5 * (table.T @ (guess - truth) / len(truth) + shrink)
    return {"patients": len(truth), "weights": weight.tolist()}
