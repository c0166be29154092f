"""The rule by which cells are selected, against the rule written down plainly."""

import numpy as np
import pytest
import torch

from nimbus_sd.train import Selection
from nimbus_sd.train.select import Selector

NAN = float("nan")


def drawn(seed: int, n: int = 60, tiles: int = 3):
    """Losses, scores, labels and tiles of cells; row 0 is background."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, 0.25, 0.75, 0.5, NAN], n)
    labels[0] = NAN
    losses, scores = rng.gamma(1, 0.5, n), rng.random(n)
    return [torch.tensor(one, dtype=torch.float32) for one in (losses, scores, labels)] + [
        torch.tensor(np.sort(rng.integers(tiles, size=n)))
    ]


STRATUM = torch.tensor([1, 0, 1])


def believed(labels: torch.Tensor) -> np.ndarray:
    return np.isin(labels.numpy(), [0, 0.25, 0.75, 1])


def test_the_default_is_the_paper_rule():
    selector, thresholds = Selector(Selection(), 2), [None, None]
    for step in range(5):
        losses, scores, labels, tile = drawn(step)
        selector.update(losses, labels, tile, STRATUM, step)
        for number, stratum in enumerate(STRATUM.tolist()):
            own = losses.numpy()[(tile.numpy() == number) & believed(labels)]
            quantile, old = np.quantile(own.astype(np.float64), 0.85), thresholds[stratum]
            thresholds[stratum] = quantile if old is None else 0.99 * old + 0.01 * quantile
    # Quantiles travel between devices in float32.
    np.testing.assert_allclose(selector.threshold[:, 0], thresholds, rtol=1e-6)
    kept = selector.keep(losses, scores, labels, STRATUM[tile]).numpy()
    limit = np.array(thresholds)[STRATUM[tile].numpy()]
    positive = labels.numpy() > 0.5
    sure = np.where(positive, scores.numpy() > 0.9, scores.numpy() < 0.1)
    np.testing.assert_array_equal(kept, believed(labels) & ((losses.numpy() <= limit) | sure))
    assert 0.5 < kept[believed(labels)].mean() < 1


def test_undetermined_and_unjudged_cells_are_never_kept():
    selector = Selector(Selection(), 1)
    labels = torch.tensor([0.5, NAN, 1.0, 0.0])
    losses, scores = torch.zeros(4), torch.tensor([0.99, 0.01, 0.99, 0.01])
    selector.update(losses, labels, torch.zeros(4, dtype=torch.long), torch.tensor([0]), 0)
    assert selector.keep(losses, scores, labels, torch.zeros(4, dtype=torch.long)).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_a_sure_score_that_agrees_is_kept_whatever_its_loss():
    selector = Selector(Selection(), 1)
    selector.threshold[:] = 0.0
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    scores = torch.tensor([0.95, 0.05, 0.05, 0.95])
    kept = selector.keep(torch.ones(4), scores, labels, torch.zeros(4, dtype=torch.long))
    assert kept.tolist() == [True, False, True, False]


def test_classes_can_have_thresholds_of_their_own():
    selector = Selector(Selection(per_class=True), 1)
    labels = torch.tensor([1.0] * 10 + [0.0] * 10)
    losses = torch.cat([torch.linspace(1, 2, 10), torch.linspace(0, 0.1, 10)])
    tile = torch.zeros(20, dtype=torch.long)
    selector.update(losses, labels, tile, torch.tensor([0]), 0)
    np.testing.assert_allclose(selector.threshold[0], [0.085, 1.85], rtol=1e-5)


def test_the_quantile_can_rise():
    rising = Selection(quantile=0.9, ramp=(0.5, 100))
    assert [rising.quantile_at(step) for step in (0, 50, 100, 500)] == pytest.approx([0.5, 0.7, 0.9, 0.9])


def test_a_histogram_is_not_biased_by_small_tiles():
    """Tiles of two cells: the mean of their quantiles lies far from the quantile of all losses."""
    rng = np.random.default_rng(0)
    ways = {name: Selector(Selection(histogram=name == "histogram"), 1) for name in ("mean", "histogram")}
    for step in range(2000):
        losses = torch.tensor(rng.exponential(1, 2), dtype=torch.float32)
        for one in ways.values():
            one.update(losses, torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long), torch.tensor([0]), step)
    truth = -np.log(0.15)
    # The histogram remembers about a hundred tiles, so two hundred cells: a standard error of about 0.17.
    assert abs(float(ways["histogram"].threshold) - truth) < 0.5 < truth - float(ways["mean"].threshold)


def test_devices_agree_on_thresholds():
    """Two devices that share what they saw are in the state of one that saw all."""
    alone = Selector(Selection(), 2)
    shares = [drawn(seed) for seed in (0, 1)]
    for losses, _, labels, tile in shares:
        alone.update(losses, labels, tile, STRATUM, 0)
    sent: list[list[torch.Tensor]] = []
    for losses, _, labels, tile in shares:
        own: list[torch.Tensor] = []
        Selector(Selection(), 2).update(
            losses, labels, tile, STRATUM, 0, lambda one, own=own: own.append(one) or one[None]
        )
        sent.append(own)
    for losses, _, labels, tile in shares:
        received = iter(zip(*sent, strict=True))
        one = Selector(Selection(), 2)
        one.update(losses, labels, tile, STRATUM, 0, lambda _, received=received: torch.stack(next(received)))
        torch.testing.assert_close(one.threshold, alone.threshold, rtol=0, atol=0)


def test_the_state_survives():
    selector, again = Selector(Selection(histogram=True), 2), Selector(Selection(histogram=True), 2)
    losses, _, labels, tile = drawn(0)
    selector.update(losses, labels, tile, STRATUM, 0)
    again.load_state_dict(selector.state_dict())
    for one in (selector, again):
        one.update(*(drawn(1)[i] for i in (0, 2, 3)), STRATUM, 1)
    torch.testing.assert_close(again.threshold, selector.threshold, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"quantile": 1.0},
        {"ramp": (0, 5)},
        {"rate": 0},
        {"sure": (0.9, 0.1)},
        {"ramp": (0.5, 0)},
        {"ramp": (0.5,)},
        {"sure": 0.9},
        {"rate": "1"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is .* must be"):
        Selection(**settings)
