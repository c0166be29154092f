"""Segmentation: which label is which cell, the usual errors, and what is true of each."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from nimbus_sd.simulate import Detector, Marker, Segmentation, Stain, Tissue, draw_tissue, segment, stain, truth

EXACT = {"wobble": 0.0}


@pytest.fixture(scope="module")
def crowd() -> Tissue:
    """Some 1,000 small cells, so that rates can be counted."""
    return draw_tissue((400, 400), 0.5, np.random.default_rng(2), radius=3.2, density=1.0)


def outlined(tissue, seed=0, **settings):
    return segment(tissue, Segmentation(**{**EXACT, **settings}), np.random.default_rng(seed))


def check_numbering(labels: np.ndarray, cells: np.ndarray) -> None:
    assert labels.dtype == np.int32 and cells.shape == (labels.max() + 1, 2)
    np.testing.assert_array_equal(np.unique(labels[labels > 0]), np.arange(1, len(cells)))
    assert not cells[0].any() and (cells[1:, 0] > 0).all()


def test_without_errors_labels_are_the_cells(crowd):
    given = crowd.owner.copy()
    labels, cells = outlined(crowd)
    check_numbering(labels, cells)
    np.testing.assert_array_equal(cells[labels, 0], crowd.owner)
    assert not cells[:, 1].any()
    np.testing.assert_array_equal(crowd.owner, given)


@pytest.mark.parametrize("target", ["cell", "nucleus", "grown"])
def test_most_of_a_label_lies_on_its_cell(crowd, target):
    labels, cells = segment(crowd, Segmentation(target, wobble=0.4), np.random.default_rng(0))
    check_numbering(labels, cells)
    pixels, right = np.bincount(labels.ravel()), np.bincount(labels.ravel(), (cells[labels, 0] == crowd.owner).ravel())
    large = np.flatnonzero(pixels > 20)[1:]
    assert (right[large] > 0.5 * pixels[large]).mean() > 0.95


def test_wobble_and_shift_move_outlines_by_as_much(crowd):
    wobbling = [outlined(crowd, wobble=wobble) for wobble in (0.2, 0.6)]
    little, much = ((cells[labels, 0] != crowd.owner).mean() for labels, cells in wobbling)
    assert 0 < little < much < 0.5
    labels, cells = outlined(crowd, shift=(1.0, -1.5))
    # Pixels are taken from where the shift points to: by 2 rows down and 3 columns to the left.
    np.testing.assert_array_equal(cells[labels, 0][:-2, 3:], crowd.owner[2:, :-3])


def test_nuclei_lie_in_cells_and_grown_nuclei_around_them(crowd):
    nuclei, of_nuclei = outlined(crowd, target="nucleus")
    np.testing.assert_array_equal(of_nuclei[nuclei, 0], np.where(crowd.nucleus, crowd.owner, 0))
    grown, of_grown = outlined(crowd, target="grown", ring=1.5)
    np.testing.assert_array_equal(of_grown[grown, 0][crowd.nucleus], crowd.owner[crowd.nucleus])
    away = ndimage.distance_transform_edt(~crowd.nucleus) * crowd.pixel_size
    np.testing.assert_array_equal(grown > 0, away <= 1.5)


def test_resizing_makes_supersets_and_subsets(crowd):
    nuclei, _ = outlined(crowd, target="nucleus")
    wide, of_wide = outlined(crowd, target="nucleus", resize=0.6)
    narrow, of_narrow = outlined(crowd, target="nucleus", resize=-0.6)
    assert (wide[nuclei > 0] > 0).all() and (wide > 0).sum() > 1.1 * (nuclei > 0).sum()
    assert (nuclei[narrow > 0] > 0).all() and 0 < (narrow > 0).sum() < 0.9 * (nuclei > 0).sum()
    for labels, cells in ((wide, of_wide), (narrow, of_narrow)):
        check_numbering(labels, cells)
        both = (labels > 0) & crowd.nucleus
        np.testing.assert_array_equal(cells[labels, 0][both], crowd.owner[both])


def test_merged_cells_name_both(crowd):
    labels, cells = outlined(crowd, merged=0.2)
    check_numbering(labels, cells)
    pairs = np.flatnonzero(cells[:, 1])
    visible = len(np.unique(crowd.owner)) - 1
    # Pairs that would share a cell are passed over.
    assert 0.1 < 2 * len(pairs) / visible <= 0.25
    for label in pairs:
        assert set(np.unique(crowd.owner[labels == label])) == set(cells[label])
    assert len(labels[labels > 0]) == (crowd.owner > 0).sum()
    assert labels.max() == visible - len(pairs)


def test_split_cells_have_two_labels_and_missing_ones_none(crowd):
    visible = len(np.unique(crowd.owner)) - 1
    labels, cells = outlined(crowd, split=0.2)
    check_numbering(labels, cells)
    np.testing.assert_array_equal(cells[labels, 0], crowd.owner)
    counts = np.bincount(cells[1:, 0])
    # Three standard deviations of a binomial, and some cells at the edge lie on one side of their cut.
    assert counts.max() == 2 and (counts == 2).sum() / visible == pytest.approx(0.2, abs=0.05)
    labels, cells = outlined(crowd, missing=0.3)
    check_numbering(labels, cells)
    assert 1 - labels.max() / visible == pytest.approx(0.3, abs=0.06)
    np.testing.assert_array_equal(cells[labels, 0][labels > 0], crowd.owner[labels > 0])


def test_masks_of_a_coarser_grid_are_made_of_squares(geometry):
    labels, _ = outlined(geometry, grid=2.0)
    side = round(2.0 / geometry.pixel_size)
    whole = labels[: labels.shape[0] // side * side, : labels.shape[1] // side * side]
    blocks = whole.reshape(whole.shape[0] // side, side, whole.shape[1] // side, side)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(np.unique(labels)) > 10


def test_an_image_without_cells_and_one_full_of_cells(geometry):
    empty = dataclasses.replace(geometry, owner=np.zeros_like(geometry.owner), nucleus=np.zeros_like(geometry.nucleus))
    for target in ("cell", "nucleus", "grown"):
        for resize in (-0.5, 0.5):
            labels, cells = segment(empty, Segmentation(target, resize=resize), np.random.default_rng(0))
            assert not labels.any()
            np.testing.assert_array_equal(cells, [[0, 0]])
    full = np.where(np.arange(200) < 90, 3, 7).astype(np.int32) + np.zeros_like(geometry.owner)
    labels, cells = outlined(dataclasses.replace(geometry, owner=full))
    np.testing.assert_array_equal(np.unique(labels), [1, 2])
    np.testing.assert_array_equal(cells, [[0, 0], [3, 0], [7, 0]])


CLEAR = Detector(gain=1000.0, background=0.01)


@pytest.fixture(scope="module")
def squares() -> Tissue:
    """Six cells of 10 x 10 pixels in a row; only what ``truth`` looks at."""
    owner = np.kron(np.arange(1, 7), np.ones((10, 10), int)).astype(np.int32)
    nothing, cells = np.zeros(owner.shape, np.float32), (np.zeros((7, 2)), np.ones(7), np.zeros(7, np.int8))
    return Tissue(0.5, owner, np.zeros_like(owner), owner > 0, nothing, nothing, nothing, *cells, glass=owner < 0)


def lit(tissue: Tissue, levels: list[float], positive: list[bool], other: float = 0.0) -> Stain:
    specific = np.array([0.0, *levels], np.float32)[tissue.owner]
    return Stain(np.array([False, *positive]), specific, np.full(tissue.shape, other, np.float32))


def one_to_one(n: int) -> np.ndarray:
    return np.stack([np.arange(n + 1), np.zeros(n + 1, int)], axis=1)


def test_positive_negative_and_undetermined(squares):
    stained = lit(squares, [1.0, 0.3, 1e-4, 0.0, 0.0, 0.0], [True, True, True, True, False, False])
    states = truth(stained, squares, CLEAR, one_to_one(6))
    assert states.dtype == np.float32
    np.testing.assert_array_equal(states, [0, 1, 1, 0.5, 0.5, 0, 0])
    # Negative cells are negative however bright their surroundings.
    assert not truth(lit(squares, [0.0] * 6, [False] * 6, other=3.0), squares, CLEAR, one_to_one(6)).any()
    # A small bright part is seen where the mean is low.
    specific = np.zeros(squares.shape, np.float32)
    specific[:2, 0] = 1.0
    states = truth(Stain(np.arange(7) == 1, specific, np.zeros_like(specific)), squares, CLEAR, one_to_one(6))
    np.testing.assert_array_equal(states, [0, 1, 0, 0, 0, 0, 0])


def test_the_detection_limit_follows_noise_and_background(squares):
    stained = lit(squares, [0.2] * 6, [True] * 6)
    assert (truth(stained, squares, CLEAR, one_to_one(6))[1:] == 1).all()
    for worse in ({"gain": 0.05}, {"read_noise": 2.0}, {"background": 1.0}):
        states = truth(stained, squares, dataclasses.replace(CLEAR, **worse), one_to_one(6))
        assert (states[1:] == 0.5).all(), worse
    hidden = dataclasses.replace(stained, other=np.ones(squares.shape, np.float32))
    assert (truth(hidden, squares, CLEAR, one_to_one(6))[1:] == 0.5).all()


def test_a_signal_within_the_differences_of_cells_is_undetermined(squares):
    def states(*levels: float) -> np.ndarray:
        glow = np.array([0.0, *levels], np.float32)[squares.owner]
        stained = dataclasses.replace(lit(squares, [0.2] * 6, [True] * 6), other=glow)
        return truth(stained, squares, CLEAR, one_to_one(6))[1:]

    assert (states(0.2, 0.2, 0.2, 0.2, 0.2, 0.2) == 1).all()
    assert (states(0.1, 0.3, 0.1, 0.3, 0.1, 0.3) == 0.5).all()
    # One odd cell says nothing of the others.
    assert (states(0.2, 0.2, 0.2, 0.2, 0.2, 2.0)[:5] == 1).all()


def test_rows_are_of_the_segmentation_and_merged_cells_of_different_state_undetermined(squares):
    # Cell 1 and 2 positive, 3 positive but too dim, 4 to 6 negative.
    stained = lit(squares, [1.0, 1.0, 1e-4, 0, 0, 0], [True, True, True, False, False, False])
    cells = np.array([[0, 0], [1, 2], [1, 4], [4, 1], [4, 5], [1, 3], [3, 4], [3, 3], [2, 0], [6, 0], [3, 0]])
    expected = [0, 1, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 1, 0, 0.5]
    np.testing.assert_array_equal(truth(stained, squares, CLEAR, cells), expected)


def test_cells_without_the_stained_part_are_undetermined(geometry):
    stained = stain(geometry, Marker("nucleus", 1.0, spread=0.0, dim_share=0.0), np.random.default_rng(0))
    states = truth(stained, geometry, CLEAR, one_to_one(geometry.n_cells))
    visible = np.unique(geometry.owner)[1:]
    with_nucleus = np.isin(visible, geometry.owner[geometry.nucleus_depth > 0])
    assert 0.7 < with_nucleus.mean() < 1
    np.testing.assert_array_equal(states[visible], np.where(with_nucleus, 1, 0.5))
