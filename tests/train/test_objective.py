"""The loss of pixels, the figures of cells, and the selection, against the rule written plainly."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from nimbus_sd.train import Selection
from nimbus_sd.train.batches import Batch
from nimbus_sd.train.objective import Selector, cell_figures, cell_scores, labelled_cells, masked_loss

NAN = float("nan")
CELLS = torch.tensor([[[1, 1, 1, 0], [1, 1, 2, 2], [3, 3, 2, 2], [4, 4, 4, 4]]])
INTERIOR = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]]])
LABELS = torch.tensor([NAN, 1.0, 0.0, 0.5, NAN])
KEEP = torch.tensor([False, True, True, False, False])
STRATUM = torch.tensor([1, 0, 1])


@pytest.fixture
def batch() -> Batch:
    inputs = torch.stack([torch.zeros(1, 4, 4), INTERIOR.float()], dim=1)
    inside, zeros = torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(5, dtype=torch.long)
    inside[0, 0, 0] = False
    return Batch(inputs, CELLS, LABELS, zeros, inside, torch.zeros(1).long(), zeros, zeros.bool())


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_figures_of_cells_are_means_over_their_pixels(batch, logits):
    confidence = torch.sigmoid(logits[:, 0])
    losses = functional.binary_cross_entropy_with_logits(logits[:, 0], (LABELS > 0.5).float()[CELLS], reduction="none")
    scores, areas = cell_scores(logits, CELLS, 6)
    learned_losses, learned_scores, learned_areas = cell_figures(logits, batch, "background")
    for cell in range(1, 5):
        own, inner = cell == CELLS, (cell == CELLS) & (INTERIOR > 0)
        assert (float(areas[cell]), float(learned_areas[cell])) == (own.sum(), inner.sum())
        assert float(scores[cell]) == pytest.approx(float(confidence[own].mean()), rel=1e-6)
        assert float(learned_scores[cell]) == pytest.approx(float(confidence[inner].mean()), rel=1e-6)
        assert float(learned_losses[cell]) == pytest.approx(float(losses[inner].mean()), rel=1e-6)
    assert scores[5] == areas[5] == 0
    assert labelled_cells(batch).tolist() == [False, True, True, False, False]


def test_the_loss_is_the_mean_over_background_and_cells_that_are_kept(batch, logits):
    expected, count = 0.0, 0
    for row in range(4):
        for col in range(4):
            cell = int(CELLS[0, row, col]) if INTERIOR[0, row, col] else 0
            if (row, col) == (0, 0) or cell in (3, 4):
                continue
            score = torch.sigmoid(logits[0, 0, row, col])
            expected -= float(torch.log(score if cell == 1 else 1 - score))
            count += 1
    # All but the pixel outside and the interior of cells 3 and 4.
    assert count == 16 - 1 - 4
    loss = masked_loss(logits.requires_grad_(), batch, KEEP, "background")
    assert float(loss.detach()) == pytest.approx(expected / count, rel=1e-6)
    loss.backward()
    left = np.isin(CELLS.numpy(), [3, 4]) & (INTERIOR.numpy() > 0) | ~batch.inside.numpy()
    assert ((logits.grad.numpy()[0] == 0) == left).all()
    batch.inside[:] = False
    assert float(masked_loss(logits, batch, KEEP, "background")) == 0


def test_inner_boundaries_are_negative_or_part_of_their_cell(batch, logits):
    masked_loss(logits.requires_grad_(), batch, KEEP, "background").backward()
    boundary = (0, 0, 0, 2)
    # A gradient above 0 lowers the logit.
    assert logits.grad[boundary] > 0
    logits.grad = None
    masked_loss(logits, batch, KEEP, "cell").backward()
    assert logits.grad[boundary] < 0
    # The boundary of an undetermined cell is not learned from, then.
    assert logits.grad[0, 0, 2, 0] == 0


def alone(values):
    return values[None]


def drawn(seed: int, n: int = 60):
    """Losses, scores, labels and tiles of cells; row 0 is background."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, 0.25, 0.75, 0.5, NAN], n)
    labels[0] = NAN
    cells = (torch.tensor(values, dtype=torch.float32) for values in (rng.gamma(1, 0.5, n), rng.random(n), labels))
    return *cells, torch.tensor(np.sort(rng.integers(len(STRATUM), size=n)))


def test_the_default_is_the_paper_rule():
    selector, thresholds = Selector(Selection(), 2), [None, None]
    for step in range(5):
        losses, scores, labels, tile = drawn(step)
        believed = np.isin(labels.numpy(), [0, 0.25, 0.75, 1])
        selector.update(losses, labels, tile, STRATUM, step, alone)
        for number, stratum in enumerate(STRATUM.tolist()):
            own = losses.numpy()[(tile.numpy() == number) & believed]
            quantile, old = np.quantile(own.astype(np.float64), 0.85), thresholds[stratum]
            thresholds[stratum] = quantile if old is None else 0.99 * old + 0.01 * quantile
    # Quantiles travel between devices in float32.
    np.testing.assert_allclose(selector.threshold[:, 0], thresholds, rtol=1e-6)
    kept = selector.keep(losses, scores, labels, STRATUM[tile]).numpy()
    limit = np.array(thresholds)[STRATUM[tile].numpy()]
    sure = np.where(labels.numpy() > 0.5, scores.numpy() > 0.9, scores.numpy() < 0.1)
    np.testing.assert_array_equal(kept, believed & ((losses.numpy() <= limit) | sure))
    assert 0.5 < kept[believed].mean() < 1


def test_classes_can_have_thresholds_of_their_own_and_the_quantile_can_rise():
    labels = torch.tensor([1.0] * 10 + [0.0] * 10)
    losses = torch.cat([torch.linspace(1, 2, 10), torch.linspace(0, 0.1, 10)])
    for step, quantile in ((0, 0.5), (50, 0.7), (500, 0.9)):
        selector = Selector(Selection(per_class=True, quantile=0.9, ramp=(0.5, 100)), 1)
        selector.update(losses, labels, torch.zeros(20).long(), torch.tensor([0]), step, alone)
        np.testing.assert_allclose(selector.threshold[0], [quantile / 10, 1 + quantile], rtol=1e-5)


def test_a_histogram_is_not_biased_by_small_tiles():
    """Tiles of two cells: the mean of their quantiles lies far from the quantile of all losses."""
    rng = np.random.default_rng(0)
    mean, histogram = (Selector(Selection(histogram=histogram), 1) for histogram in (False, True))
    for step in range(1000):
        losses = torch.tensor(rng.exponential(1, 2), dtype=torch.float32)
        for selector in (mean, histogram):
            selector.update(losses, torch.tensor([1.0, 0.0]), torch.zeros(2).long(), torch.tensor([0]), step, alone)
    truth = -np.log(0.15)
    # The histogram remembers about a hundred tiles, so two hundred cells: a standard error of about 0.17.
    assert abs(float(histogram.threshold) - truth) < 0.5 < truth - float(mean.threshold)


@pytest.mark.parametrize("histogram", [False, True])
def test_devices_agree_on_thresholds_and_the_state_survives(histogram):
    """Two devices that share what they saw are in the state of one that saw all."""
    single, shared, again = (Selector(Selection(histogram=histogram), 2) for _ in range(3))
    shares, sent = [drawn(seed) for seed in (0, 1)], []
    for losses, _, labels, tile in shares:
        single.update(losses, labels, tile, STRATUM, 0, alone)
        own = []
        again.update(losses, labels, tile, STRATUM, 0, lambda values, own=own: own.append(values) or values[None])
        sent.append(own)
    received = iter(zip(*sent, strict=True))
    shared.update(*(shares[0][i] for i in (0, 2, 3)), STRATUM, 0, lambda _: torch.stack(next(received)))
    again.load_state_dict(shared.state_dict())
    for selector in (single, again):
        selector.update(*(drawn(2)[i] for i in (0, 2, 3)), STRATUM, 1, alone)
    torch.testing.assert_close(again.threshold, single.threshold, rtol=0, atol=0)
