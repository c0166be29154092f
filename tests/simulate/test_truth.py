"""Truth: positive, negative, and what nobody could tell."""

import dataclasses

import numpy as np
import pytest

from nimbus_sd.simulate import Detector, Marker, Stain, Tissue, stain, truth

CLEAR = Detector(gain=1000.0, background=0.01)


@pytest.fixture(scope="module")
def squares() -> Tissue:
    """Six cells of 10 x 10 pixels in a row; only what ``truth`` looks at."""
    owner = np.kron(np.arange(1, 7), np.ones((10, 10), int)).astype(np.int32)
    nothing = np.zeros(owner.shape, np.float32)
    return Tissue(
        pixel_size=0.5,
        owner=owner,
        under=np.zeros_like(owner),
        nucleus=owner > 0,
        nucleus_depth=nothing,
        depth=nothing,
        angle=nothing,
        centre=np.zeros((7, 2)),
        radius=np.ones(7),
        kind=np.zeros(7, np.int8),
        glass=owner < 0,
    )


def lit(tissue: Tissue, levels: list[float], positive: list[bool], rest: float = 0.0) -> Stain:
    return Stain(
        np.array([False, *positive]),
        np.array([0.0, *levels], np.float32)[tissue.owner],
        np.full(tissue.shape, rest, np.float32),
    )


def one_to_one(n: int) -> np.ndarray:
    return np.stack([np.arange(n + 1), np.zeros(n + 1, int)], axis=1)


def test_positive_negative_and_undetermined(squares):
    stained = lit(squares, [1.0, 0.3, 1e-4, 0.0, 0.0, 0.0], [True, True, True, True, False, False])
    known = truth(stained, squares, CLEAR, one_to_one(6))
    assert known.dtype == np.float32
    np.testing.assert_array_equal(known, [0, 1, 1, 0.5, 0.5, 0, 0])


def test_the_detection_limit_follows_noise_and_background(squares):
    stained = lit(squares, [0.2] * 6, [True] * 6)
    assert (truth(stained, squares, CLEAR, one_to_one(6))[1:] == 1).all()
    for worse in ({"gain": 0.05}, {"read_noise": 2.0}, {"background": 1.0}):
        known = truth(stained, squares, dataclasses.replace(CLEAR, **worse), one_to_one(6))
        assert (known[1:] == 0.5).all(), worse
    hidden = dataclasses.replace(stained, rest=np.ones(squares.shape, np.float32))
    assert (truth(hidden, squares, CLEAR, one_to_one(6))[1:] == 0.5).all()


def test_a_signal_within_the_differences_of_cells_is_undetermined(squares):
    def known(*levels: float) -> np.ndarray:
        glow = np.array([0.0, *levels], np.float32)[squares.owner]
        stained = dataclasses.replace(lit(squares, [0.2] * 6, [True] * 6), rest=glow)
        return truth(stained, squares, CLEAR, one_to_one(6))[1:]

    assert (known(0.2, 0.2, 0.2, 0.2, 0.2, 0.2) == 1).all()
    assert (known(0.1, 0.3, 0.1, 0.3, 0.1, 0.3) == 0.5).all()
    # One odd cell says nothing of the others.
    assert (known(0.2, 0.2, 0.2, 0.2, 0.2, 2.0)[:5] == 1).all()


def test_a_small_bright_part_is_seen_where_the_mean_is_low(squares):
    own = np.zeros(squares.shape, np.float32)
    own[:2, 0] = 1.0
    known = truth(Stain(np.arange(7) == 1, own, np.zeros_like(own)), squares, CLEAR, one_to_one(6))
    np.testing.assert_array_equal(known, [0, 1, 0, 0, 0, 0, 0])


def test_negative_cells_are_negative_however_bright_their_surroundings(squares):
    known = truth(lit(squares, [0.0] * 6, [False] * 6, rest=3.0), squares, CLEAR, one_to_one(6))
    assert not known.any()


def test_merged_cells_of_different_state_are_undetermined(squares):
    # Cell 1 and 2 positive, 3 positive but too dim, 4 to 6 negative.
    stained = lit(squares, [1.0, 1.0, 1e-4, 0, 0, 0], [True, True, True, False, False, False])
    cells = np.array([[0, 0], [1, 2], [1, 4], [4, 1], [4, 5], [1, 3], [3, 4], [3, 3], [2, 0]])
    np.testing.assert_array_equal(truth(stained, squares, CLEAR, cells), [0, 1, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 1])


def test_rows_follow_the_segmentation(squares):
    stained = lit(squares, [1, 0, 1, 0, 1, 0], [True, False] * 3)
    cells = np.array([[0, 0], [6, 0], [5, 0], [5, 0], [1, 0]])
    np.testing.assert_array_equal(truth(stained, squares, CLEAR, cells), [0, 0, 1, 1, 1])


def test_cells_without_the_stained_part_are_undetermined(geometry):
    stained = stain(geometry, Marker("nucleus", 1.0, spread=0.0, dim_share=0.0), np.random.default_rng(0))
    known = truth(stained, geometry, CLEAR, one_to_one(geometry.n_cells))
    visible = np.unique(geometry.owner)[1:]
    with_nucleus = np.isin(visible, geometry.owner[geometry.nucleus_depth > 0])
    assert 0.7 < with_nucleus.mean() < 1
    np.testing.assert_array_equal(known[visible], np.where(with_nucleus, 1, 0.5))
