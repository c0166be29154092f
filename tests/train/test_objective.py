"""The loss of pixels, and the figures of cells by which they are selected."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from nimbus_sd.train.objective import cell_figures, cell_scores, known_cells, masked_loss
from nimbus_sd.train.tiles import StoredBatch

NAN = float("nan")
CELLS = torch.tensor([[[1, 1, 1, 0], [1, 1, 2, 2], [3, 3, 2, 2], [4, 4, 4, 4]]])
INTERIOR = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]]])
LABELS = torch.tensor([NAN, 1.0, 0.0, 0.5, NAN])
KEEP = torch.tensor([False, True, True, False, False])


@pytest.fixture
def batch() -> StoredBatch:
    inputs = torch.stack([torch.zeros(1, 4, 4), INTERIOR.float()], dim=1)
    inside = torch.ones(1, 4, 4, dtype=torch.bool)
    inside[0, 0, 0] = False
    rows = torch.zeros(5, dtype=torch.long)
    tile, trusted = torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.bool)
    return StoredBatch(inputs, CELLS, LABELS, tile, inside, torch.zeros(1).long(), rows, trusted)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_cell_scores_are_the_mean_confidence_of_each_cell(logits):
    scores, areas = cell_scores(logits, CELLS, 6)
    confidence = torch.sigmoid(logits[:, 0])
    for cell in range(5):
        assert float(scores[cell]) == pytest.approx(float(confidence[cell == CELLS].mean()), rel=1e-6)
        assert areas[cell] == (cell == CELLS).sum()
    # One that covers no pixel.
    assert scores[5] == areas[5] == 0


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
    assert float(masked_loss(logits, batch, KEEP, "background")) == pytest.approx(expected / count, rel=1e-6)


def test_inner_boundaries_are_negative_or_part_of_their_cell(batch, logits):
    logits.requires_grad_()
    masked_loss(logits, batch, KEEP, "background").backward()
    boundary = (0, 0, 0, 2)
    # A gradient above 0 lowers the logit.
    assert logits.grad[boundary] > 0
    logits.grad = None
    masked_loss(logits, batch, KEEP, "cell").backward()
    assert logits.grad[boundary] < 0
    # The boundary of an undetermined cell is not learned from, then.
    assert logits.grad[0, 0, 2, 0] == 0


def test_nothing_is_learned_from_cells_that_were_not_kept(batch, logits):
    logits.requires_grad_()
    masked_loss(logits, batch, torch.tensor([False, False, True, False, False]), "background").backward()
    left = np.isin(CELLS.numpy(), [1, 3, 4]) & (INTERIOR.numpy() > 0)
    assert not logits.grad.numpy()[0][left].any()
    assert logits.grad.numpy()[0][~left].astype(bool).sum() == (~left).sum()


def test_a_batch_without_anything_to_learn_has_a_finite_loss(batch, logits):
    batch.inside[:] = False
    assert float(masked_loss(logits, batch, KEEP, "background")) == 0


def test_figures_of_cells_are_means_over_their_interior(batch, logits):
    found = cell_figures(logits, batch, "background")
    target = (LABELS > 0.5).float()[CELLS]
    losses = functional.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    for cell in range(1, 5):
        own = (cell == CELLS) & (INTERIOR > 0)
        assert float(found.areas[cell]) == own.sum()
        assert float(found.losses[cell]) == pytest.approx(float(losses[own].mean()), rel=1e-6)
        assert float(found.scores[cell]) == pytest.approx(float(torch.sigmoid(logits[:, 0])[own].mean()), rel=1e-6)


def test_known_cells_are_labelled_and_visible(batch):
    assert known_cells(batch).tolist() == [False, True, True, False, False]
    areas = torch.tensor([9.0, 0.0, 2.0, 2.0, 2.0])
    assert known_cells(batch, areas).tolist() == [False, False, True, False, False]
