"""Normalisation factors, against numpy's quantiles of all pixels at once."""

import tracemalloc
from dataclasses import replace
from io import StringIO

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from spatialdata.transformations import Scale
from tqdm import tqdm

from nimbus_sd.engine import BadPixels, factors, find_factors, tile
from nimbus_sd.models import PUBLISHED
from nimbus_sd.pixels import levels
from nimbus_sd.spatial import find_regions

MEAN = replace(PUBLISHED, quantile=0.9)
POOLED = replace(MEAN, rule="pooled")
OTSU = replace(MEAN, rule="otsu", quantile=None)


def pixels(seed, shape=(2, 60, 50), dtype=np.uint16):
    return np.random.default_rng(seed).lognormal(3 + seed, 1, shape).clip(0, 60_000).astype(dtype)


def positive(image, q=0.9):
    return np.quantile(image[image > 0].astype(float), q)


def cells_of(seed, bright, shape=(320, 288)):
    """Cells of 16 x 16 pixels, some of them ten times brighter, beside glass."""
    rng = np.random.default_rng(seed)
    labels = np.arange(20 * 18).reshape(20, 18) + 1
    labels[:, 14:] = 0
    level = np.where(rng.random(labels.shape) < bright, 1000, 100)
    image = np.kron(np.where(labels > 0, level, 3), np.ones((16, 16), int))
    return np.stack([image, image // 2]).astype(np.uint16), np.kron(labels, np.ones((16, 16), np.int32))


def measured(regions, card=MEAN, bad=None, normalization=None):
    return find_factors(regions, normalization, card, bad or BadPixels(), progress=False)


@pytest.fixture
def blocks(monkeypatch):
    """Blocks that were announced, and those that were read, in the progress bar of each call."""
    bars = []

    class Bar(tqdm):
        def close(self):
            bars.append((self.total, self.n))

    monkeypatch.setattr(factors, "tqdm", lambda **settings: Bar(**settings | {"disable": False, "file": StringIO()}))
    return bars


@pytest.mark.parametrize("card, n_blocks", [(MEAN, 6 * 5), (POOLED, 6 * 5), (OTSU, 6 * 6)])
def test_every_pixel_is_read_whatever_the_blocks(regions, monkeypatch, card, n_blocks, blocks):
    image, labels = cells_of(0, 0.3)
    whole = measured(regions(image, labels=[labels], pixel_size=0.3), card)
    # Otsu's windows are whole squares, of 27 pixels.
    monkeypatch.setattr(factors, "_BLOCK", 60)
    monkeypatch.setattr(tile, "GROUP_BYTES", 1)
    cut = regions(da.from_array(image, chunks=(1, 50, 70)), labels=[labels], pixel_size=0.3)
    pd.testing.assert_frame_equal(measured(cut, card), whole)
    assert blocks[-1] == (n_blocks, n_blocks)


def test_a_handful_of_pixels_in_one_image_is_named(regions, no_warning):
    dark = pixels(1)
    dark[1] = 0
    dark[1, 5, 5:9] = 50_000
    with pytest.warns(UserWarning, match=r"'CD3' \(4 pixels above 0 in 'fov1'\) rests on a handful"):
        measured(regions(pixels(0), dark))
    # Four pixels among those of both images decide nothing.
    measured(regions(pixels(0), dark), POOLED)


@pytest.mark.parametrize("card", [MEAN, POOLED])
def test_an_image_with_two_labels_elements_counts_once(make_sdata, card, no_warning, blocks):
    images = {"a": pixels(0), "b": pixels(2)}
    cells = {key: np.ones((60, 50), np.int32) for key in ("a_cells", "a_nuclei", "b_cells")}
    sdata = make_sdata(images, cells, transformations={"a_nuclei": {"a": Scale([1, 1], ("y", "x"))}})
    regions = find_regions(sdata, ["a", "a", "b"], ["a_cells", "a_nuclei", "b_cells"], pixel_size=0.5)
    twice = measured(regions, card)
    once = measured(find_regions(sdata, ["a", "b"], ["a_cells", "b_cells"], pixel_size=0.5), card)
    assert blocks[0] == (2, 2)
    pd.testing.assert_frame_equal(twice[once.columns], once)
    pd.testing.assert_series_equal(twice["a_nuclei"], twice["a_cells"], check_names=False)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_pixels_of_a_coarse_image_count_once(make_sdata, monkeypatch, extra):
    """Also where the finer labels end before the image does, or after it."""
    monkeypatch.setattr(factors, "_BLOCK", 16)
    image, cells = pixels(0, (2, 30, 25)), np.ones((90 + extra, 75 + extra), np.int32)
    third = {"a": Scale([1 / 3, 1 / 3], axes=("y", "x"))}
    sdata = make_sdata({"a": image}, {"a_cells": cells}, transformations={"a_cells": third})
    (region,) = find_regions(sdata, pixel_size=0.6)
    assert region.image_repeat == 3
    np.testing.assert_allclose(measured([region])["factor"], [positive(channel) for channel in image], rtol=1e-14)


def test_pooling_images_of_different_types(regions):
    images = pixels(0, dtype=np.uint8), pixels(1, dtype=np.float32)
    table = measured(regions(*images), POOLED)
    together = [positive(np.concatenate([image[c].ravel() for image in images])) for c in range(2)]
    np.testing.assert_allclose(table["factor"], together, rtol=1e-4)


def test_otsu_lies_between_dim_and_bright_cells_of_all_regions(regions, no_warning):
    fovs = [cells_of(0, 0.3), cells_of(1, 0.02), cells_of(2, 0.5)]
    fovs[0][0][0, 0, ::40] = 60_000
    table = measured(regions(*(f[0] for f in fovs), labels=[f[1] for f in fovs]), OTSU)
    assert list(table.columns) == ["fov0_cells", "fov1_cells", "fov2_cells", "factor"]
    assert table["factor"].to_numpy() == pytest.approx([5 * 550, 5 * 275], rel=0.05)
    alone = measured(regions(fovs[2][0], labels=[fovs[2][1]]), OTSU)
    assert alone["factor"].to_numpy() == pytest.approx(table["fov2_cells"].to_numpy(), rel=1e-9)


def test_otsu_on_images_coarser_or_finer_than_their_labels(make_sdata):
    image, labels = cells_of(0, 0.3)
    half, double = (Scale([k, k], axes=("y", "x")) for k in (0.5, 2))
    fine = make_sdata({"a": image}, {"a_cells": labels})
    factor = measured(find_regions(fine, pixel_size=0.5), OTSU)["factor"]
    coarse = make_sdata({"a": image[:, ::2, ::2]}, {"a_cells": labels}, transformations={"a_cells": {"a": half}})
    np.testing.assert_allclose(measured(find_regions(coarse, pixel_size=1.0), OTSU)["factor"], factor, rtol=1e-3)
    masks = make_sdata({"a": image}, {"a_cells": labels[::2, ::2]}, transformations={"a_cells": {"a": double}})
    np.testing.assert_allclose(measured(find_regions(masks, pixel_size=0.5), OTSU)["factor"], factor, rtol=1e-3)


def test_otsu_on_few_cells_or_none_says_so(regions):
    image, labels = cells_of(0, 0.5)
    image[1][labels > 0] = 0
    with pytest.warns(UserWarning, match=r"No pixel above 0 in a cell in channel\(s\) 'CD3'"):
        table = measured(regions(image, labels=[labels]), OTSU)
    assert table["factor"].notna().tolist() == [True, False]
    few = np.where(labels <= 3, labels, 0)
    with pytest.warns(UserWarning, match=r"'DAPI' \(\d+ squares of cells above 0 in 'all images'\).* on a handful"):
        measured(regions(cells_of(0, 0.5)[0], labels=[few]), OTSU)


def test_otsu_counts_bad_pixels_once_with_two_labels_elements(make_sdata):
    image, labels = cells_of(0, 0.5)
    image = image.astype(np.float32)
    image[0, :2, :3] = np.nan
    cells = {"a_cells": labels, "a_nuclei": np.where(labels % 2, labels, 0)}
    sdata = make_sdata({"a": image}, cells, transformations={"a_nuclei": {"a": Scale([1, 1], ("y", "x"))}})
    bad = BadPixels()
    table = measured(find_regions(sdata, ["a", "a"], ["a_cells", "a_nuclei"], pixel_size=0.5), OTSU, bad)
    assert bad.not_finite["DAPI"] == 6
    assert table["factor"].notna().all() and list(table.columns) == ["a_cells", "a_nuclei", "factor"]


def test_given_factors_read_no_more_than_the_first_positive_pixel(regions, monkeypatch):
    monkeypatch.setattr(factors, "_BLOCK", 16)
    dark, spot = pixels(0, (3, 40, 40)) + 1, pixels(1, (3, 40, 40))
    dark[1:], spot[1:] = 0, 0
    spot[2, -1, -1] = 1
    read = set()

    def block(values, block_info=None):
        read.add(block_info[0]["chunk-location"])
        return values

    lazy = da.from_array(dark, chunks=(1, 16, 16)).map_blocks(block, dtype=dark.dtype)
    with pytest.warns(UserWarning, match=r"No pixel above 0 in channel\(s\) 'CD3': their scores are NaN"):
        table = measured(regions(lazy, spot), normalization={"DAPI": 1, "CD3": 2, "CD20": 3})
    assert table["factor"].isna().tolist() == [False, True, False]
    assert {place for place in read if place[0] == 0} == {(0, 0, 0)} and len(read) == 1 + 2 * 9


@pytest.mark.parametrize("card", [MEAN, POOLED])
def test_memory_is_bounded_by_the_channels_in_work(make_sdata, monkeypatch, card, blocks):
    image = np.exp2(np.random.default_rng(0).uniform(-60, 0, (24, 32, 32))).astype(np.float32)
    names = tuple(map(str, range(24)))
    region = find_regions(make_sdata(image, np.ones((32, 32), np.int32), names), pixel_size=0.5)
    whole = measured(region, card)
    # What the histograms of two channels take at most.
    monkeypatch.setattr(levels, "_WORK_BYTES", 2 * 2**25)
    tracemalloc.start()
    table = measured(region, card)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    assert blocks[-1] == (12, 12)
    pd.testing.assert_frame_equal(table, whole)


def test_otsu_reads_no_pixels_where_there_are_no_cells(regions):
    image, labels = cells_of(0, 0.5)
    image, labels = (np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 2048)]) for array in (image, labels))
    image = image.astype(np.float32)
    image[..., -9:] = np.nan
    bad = BadPixels()
    measured(regions(image, labels=[labels]), OTSU, bad)
    assert not any(bad.not_finite.values())


@pytest.mark.parametrize("card", [MEAN, POOLED])
def test_a_measured_factor_that_float32_cannot_divide_by_is_an_error(regions, card):
    image = pixels(0).astype(np.float32)
    image[1] *= np.float32(1e-42)
    words = r"'CD3' \([\d.]+e-\d\d\) is not between 1e-30 and 1e30, as measured in 'fov0_cells'.*`normalization`"
    with pytest.raises(ValueError, match=words):
        measured(regions(image), card)


@pytest.mark.parametrize("card, mark", [(MEAN, np.finfo(np.float32).max), (OTSU, 1e38)])
def test_marks_of_missing_data_are_bad_pixels(regions, card, mark):
    image, labels = cells_of(0, 0.3)
    image = image.astype(np.float32)
    expected = image.copy()
    expected[1, :40], image[1, :40] = 0, mark
    bad = BadPixels()
    marked = measured(regions(image, labels=[labels]), card, bad)
    assert bad.not_finite["CD3"] == 40 * 288
    pd.testing.assert_frame_equal(marked, measured(regions(expected, labels=[labels]), card))
