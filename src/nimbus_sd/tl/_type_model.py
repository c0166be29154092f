"""How probable each type is for a cell: a mixture of types, whose rates of positive cells start from the signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from nimbus_sd.tl.signatures import CellType

#: Share of cells positive for a marker that scores take for granted: that of the labels they were trained on.
_TRAINED_SHARE = 0.27
#: Chance that a score says the opposite, however sure it is.
_WRONG = 0.02
#: Shares of a type's cells that are positive: for what the type adds, for what it inherits, for what its subtypes add,
#: for what it must not have, and for what defines other types.
_OWN, _INHERITED, _OF_SUBTYPES, _FORBIDDEN, _OF_OTHERS = 0.9, 0.6, 0.15, 0.03, 0.05
#: The most that these may be learned to be, for a type and for cells of none, which would else explain every cell.
_MOST_WRONG, _MOST_OF_NONE = 0.6, 0.2
#: A type with subtypes is mostly one of these.
_UNDIVIDED = 0.2
#: Weight of what is expected beside the cells: of all for shares, and cells and share of all for rates.
_OF_SHARES, _CELLS, _OF_CELLS = 0.5, 50, 0.1
_FITTED, _STEPS = 20_000, 30


class TypeModel(NamedTuple):
    """Shares of the types and of cells of none, (types + 1,), and the rates of positive cells, (types + 1, channels).

    ``within``, (types, types), is 1 where the type of the row is that of the column or one of its subtypes.
    """

    tree: Sequence[CellType]
    channels: Sequence[str]
    within: NDArray[np.float64]
    shares: NDArray[np.float64]
    rates: NDArray[np.float64]

    def terms(self, scores: NDArray) -> NDArray[np.float64]:
        """Log likelihood of each marker's score, (cells, types + 1, markers), up to a term of each cell and marker."""
        positive = evidence(scores)[:, None]
        return np.log(positive * self.rates + (1 - positive) * (1 - self.rates))

    def posterior(self, terms: NDArray) -> NDArray[np.float64]:
        """Probability of each type itself, without its subtypes, and of none, (cells, types + 1)."""
        joint = terms.sum(axis=2) + np.log(self.shares)
        joint = np.exp(joint - joint.max(axis=1, keepdims=True))
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))


def evidence(scores: NDArray) -> NDArray[np.float64]:
    """Turn scores into the probability of a positive cell where positive and negative ones are as frequent."""
    even = logit(np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)) - logit(_TRAINED_SHARE)
    return np.asarray(_WRONG + (1 - 2 * _WRONG) * expit(even))


def fit_types(tree: Sequence[CellType], scores: NDArray, channels: Sequence[str]) -> TypeModel:
    """Fit shares of types, and the rates at which markers are positive where they should not be, to the cells.

    Expectation-maximisation with what the signatures say as prior. A marker that spills over, or sticks to everything,
    so weighs less. Rates at which markers are positive where they should be stay as they are: a type would else come to
    mean something that its signature does not say. Of many cells 20,000, evenly spaced, are used.
    """
    cells = np.linspace(0, len(scores) - 1, min(len(scores), _FITTED)).astype(int)
    seen = np.asarray(scores)[cells]
    expected, learned = _expected_rates(tree, channels, evidence(seen).mean(axis=0))
    parents = {cell_type.parent for cell_type in tree}
    usual = np.array([*(_UNDIVIDED if cell_type.name in parents else 1.0 for cell_type in tree), 1.0])
    usual /= usual.sum()
    within = np.array([[top.name in (*sub.parents, sub.name) for top in tree] for sub in tree], float)
    model = TypeModel(tree, channels, within, usual, expected)
    positive, n = evidence(seen), len(seen)
    weight = _CELLS + _OF_CELLS * n
    means = np.where(learned, expected, 0).sum(axis=0) / np.maximum(learned.sum(axis=0), 1)
    for _ in range(_STEPS):
        # Not the terms of all cells at once.
        parts = np.array_split(seen, max(1, n // 2048))
        share = np.concatenate([model.posterior(model.terms(part)) for part in parts])
        size = share.sum(axis=0)
        # The cells of each type that are positive, given their scores and the rates so far.
        found = np.empty_like(expected)
        for i, column in enumerate(positive.T):
            given = np.outer(column, model.rates[:, i])
            found[:, i] = (share * given / (given + np.outer(1 - column, 1 - model.rates[:, i]))).sum(axis=0)
        of_all = ((found * learned).sum(axis=0) + weight * means) / ((size[:, None] * learned).sum(axis=0) + weight)
        own = (found + (size[:, None] + _CELLS) * of_all) / (2 * size[:, None] + _CELLS)
        own[-1] = np.minimum(of_all, _MOST_OF_NONE)
        rates = np.where(learned, np.clip(own, 0.005, _MOST_WRONG), expected)
        model = model._replace(shares=(size + _OF_SHARES * n * usual) / (n + _OF_SHARES * n), rates=rates)
    return model


def _expected_rates(tree: Sequence[CellType], channels: Sequence[str], mean: NDArray) -> tuple[NDArray, NDArray]:
    """Rates of positive cells by the signatures, (types + 1, markers), and which of them the cells may change."""
    rates = np.tile(mean, (len(tree) + 1, 1))
    learned = np.zeros(rates.shape, bool)
    for j, channel in enumerate(channels):
        users = [cell_type for cell_type in tree if (channel, True) in cell_type.added]
        for i, cell_type in enumerate(tree):
            if (channel, True) in cell_type.rules:
                rates[i, j] = _OWN if cell_type in users else _INHERITED
            elif (channel, False) in cell_type.rules:
                rates[i, j], learned[i, j] = _FORBIDDEN, True
            elif any(cell_type.name in user.parents for user in users):
                rates[i, j] = _OF_SUBTYPES
            elif users:
                rates[i, j], learned[i, j] = _OF_OTHERS, True
        if users:
            rates[-1, j], learned[-1, j] = _OF_OTHERS, True
    return rates, learned
