"""Features of single cells, against regionprops and against what one pass over a padded image gives."""

import itertools
import tracemalloc

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity

from nimbus_sd.pixels import levels
from nimbus_sd.spatial import features, find_regions


def region_of(image, labels, chunks=None):
    sdata = SpatialData(
        images={"i": Image2DModel.parse(da.from_array(image, chunks=chunks or "auto"), dims=("c", "y", "x"))},
        labels={"l": Labels2DModel.parse(labels, dims=("y", "x"))},
    )
    (region,) = find_regions(sdata, pixel_size=0.5)
    return region


def measured(region, thresholds=None, only=None):
    """Ids, features, contacts as {(smaller, larger): edges}."""
    thresholds = features.pixel_thresholds([region], lambda: None) if thresholds is None else thresholds
    outlines = features.read_outlines(region, lambda: None)
    ids, boxes = outlines.boxes()
    if only is not None:
        kept = np.isin(ids, only)
        ids, boxes = ids[kept], boxes[kept]
    contacts = {}
    for first, second, length in zip(*(part.tolist() for part in outlines.contacts()), strict=True):
        contacts[first, second] = contacts.get((first, second), 0) + length
    return ids, features.read_features(region, ids, boxes, thresholds, lambda: None), contacts


def naive_features(image, labels, thresholds):
    # The image's edge is no boundary; regionprops takes each cell by itself.
    inside = (labels > 0) & ~find_boundaries(labels, connectivity=1, mode="inner")
    compact = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + (labels.min() > 0)
    out = []
    for cell in regionprops(compact, intensity_image=np.moveaxis(image, 0, -1).astype(np.float64)):
        pixels = cell.image_intensity[cell.image]
        inner = pixels[inside[cell.slice][cell.image]]
        eroded = inner.mean(axis=0) if len(inner) else np.full(len(image), np.nan)
        out.append([np.median(pixels, axis=0), eroded, (pixels > thresholds).mean(axis=0)])
    return np.array(out).reshape(-1, 3, len(image)).swapaxes(0, 1)


def naive_contacts(labels):
    found = {}
    for y, x in np.ndindex(labels.shape):
        for other in ((y + 1, x), (y, x + 1)):
            if other[0] < labels.shape[0] and other[1] < labels.shape[1] and labels[y, x] != labels[other]:
                pair = tuple(sorted((int(labels[y, x]), int(labels[other]))))
                found[pair] = found.get(pair, 0) + 1
    return found


def check(image, labels, **chunks):
    region = region_of(image, labels, **chunks)
    ids, found, contacts = measured(region)
    np.testing.assert_array_equal(ids, np.setdiff1d(labels, 0))
    cut = [threshold_otsu(channel) if len(np.unique(channel)) > 1 else np.inf for channel in image]
    np.testing.assert_allclose(features.pixel_thresholds([region], lambda: None), cut)
    np.testing.assert_allclose(found, naive_features(image, labels, cut), rtol=1e-6)
    assert contacts == naive_contacts(labels)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_small_image(data):
    height, width = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)), label="shape")
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    ids = np.array([0, 0, 1, 7, 2**31 + 5, 2**40, 2**62])[: data.draw(st.integers(1, 7))]
    coarse = rng.choice(ids, (4, 4)).repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    labels = np.where(rng.random((height, width)) < 0.2, rng.choice(ids, (height, width)), coarse)
    image = rng.integers(0, data.draw(st.sampled_from([1, 3, 60000])), (2, height, width)).astype(np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        side = data.draw(st.integers(1, 8))
        patch.setattr(features, "_WINDOW", side)
        patch.setattr(features, "_BLOCK", data.draw(st.integers(1, 2 * side)))
        patch.setattr(features, "_GROUP_BYTES", data.draw(st.sampled_from([1, 2**20])))
        check(image, labels)


def test_chunks_and_windows_do_not_matter(tissue, monkeypatch):
    image, labels = tissue((120, 104), 3, seed=4)
    image = image * np.float32(0.37)
    expected = measured(region_of(image, labels))
    for chunks, side in itertools.product([(1, 50, 33), (3, 7, 104)], [16, 37, 120]):
        monkeypatch.setattr(features, "_WINDOW", side)
        monkeypatch.setattr(features, "_BLOCK", 2 * side)
        ids, found, contacts = measured(region_of(image, labels, chunks=chunks))
        np.testing.assert_array_equal(ids, expected[0])
        np.testing.assert_allclose(found, expected[1], rtol=1e-6)
        np.testing.assert_array_equal(found[0], expected[1][0])
        assert contacts == expected[2]


def test_pixels_that_are_no_numbers_count_as_zero():
    image = np.array([[[np.nan, np.inf, 5, 6], [-1, 1e300, 7, 8]]])
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    _, found, _ = measured(region_of(image, labels))
    np.testing.assert_allclose(found[0, :, 0], [0, 6.5])
    np.testing.assert_allclose(found[2, :, 0], [0, 1])


def test_a_cell_larger_than_a_window_takes_no_more_than_its_pixels(monkeypatch):
    """A frame around everything: its box is the whole region, yet blocks stay small."""
    labels = np.zeros((60, 60), np.int32)
    labels[[0, -1]] = labels[:, [0, -1]] = 3
    labels[20:25, 20:25] = 8
    image = np.random.default_rng(0).integers(0, 999, (1, 60, 60)).astype(np.uint16)
    monkeypatch.setattr(features, "_WINDOW", 10)
    monkeypatch.setattr(features, "_BLOCK", 20)
    read = []
    region = region_of(image, labels)
    original = type(region).read_image
    monkeypatch.setattr(type(region), "read_image", lambda self, *args: read.append(original(self, *args)) or read[-1])
    _, found, _ = measured(region, np.array([500.0]))
    np.testing.assert_allclose(found, naive_features(image, labels, np.array([500.0])), rtol=1e-6)
    assert max(window.size for window in read) <= 20 * 20


def test_only_the_cells_asked_for(tissue):
    image, labels = tissue((80, 80), 2, seed=1)
    ids, every, _ = measured(region_of(image, labels))
    some, found, _ = measured(region_of(image, labels), only=ids[::3])
    np.testing.assert_array_equal(some, ids[::3])
    np.testing.assert_array_equal(found, every[:, ::3])


def test_thresholds_are_of_all_images_together_and_each_image_once():
    rng = np.random.default_rng(2)
    images = {key: rng.poisson(mean, (1, 40, 30)).astype(dtype) for key, mean, dtype in
              [("a", 3, np.uint16), ("b", 90, np.uint8)]}  # fmt: skip
    labels = {key: np.ones((40, 30), np.int32) for key in ("a1", "a2", "b1")}
    place = {key: {key[0]: Identity()} for key in ("a", "b", *labels)}
    sdata = SpatialData(
        images={key: Image2DModel.parse(one, transformations=place[key]) for key, one in images.items()},
        labels={key: Labels2DModel.parse(one, transformations=place[key]) for key, one in labels.items()},
    )
    regions = find_regions(sdata, ["a", "a", "b"], ["a1", "a2", "b1"], pixel_size=0.5)
    calls = []
    found = features.pixel_thresholds(regions, lambda: calls.append(1))
    assert found == threshold_otsu(np.concatenate([images["a"], images["b"]]).astype(np.uint16))
    assert len(calls) == 2


def test_thresholds_of_many_channels_take_the_memory_of_some(monkeypatch):
    image = np.exp2(np.random.default_rng(0).uniform(-60, 0, (24, 32, 32))).astype(np.float32)
    region = region_of(image, np.ones((32, 32), np.int32))
    whole = features.pixel_thresholds([region], lambda: None)
    # What the histograms of two channels take at most.
    monkeypatch.setattr(levels, "_WORK_BYTES", 2 * 2**25, raising=False)
    calls = []
    tracemalloc.start()
    found = features.pixel_thresholds([region], lambda: calls.append(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6 and len(calls) == 1
    np.testing.assert_array_equal(found, whole)


def test_thresholds_of_floats_part_the_same_pixels():
    rng = np.random.default_rng(3)
    image = np.concatenate([rng.normal(0.1, 0.02, (1, 50, 40)), rng.normal(0.9, 0.05, (1, 10, 40))], axis=1)
    found = features.pixel_thresholds([region_of(image, np.ones((60, 40), np.int32))], lambda: None)
    values = np.sort(np.maximum(image.astype(np.float32).ravel(), 0))
    # Every value is a candidate.
    variance = [k * (len(values) - k) * (values[:k].mean() - values[k:].mean()) ** 2 for k in range(1, len(values))]
    np.testing.assert_array_equal(values > found[0], np.arange(len(values)) > np.argmax(variance))


def two_levels():
    rng = np.random.default_rng(6)
    yield 0.3, 0.9
    for _ in range(50):
        low = 10 ** rng.uniform(-6, 6)
        yield low, low * (1 + 10 ** rng.uniform(-3, 3))


def test_a_flat_background_is_not_bright_in_floats():
    """Its value may lie anywhere in a bin of the histogram, all of which belongs to the lower class."""
    labels = np.zeros((20, 30), np.int32)
    labels[2:8, 2:8], labels[2:8, 12:18], labels[12:18, 2:8] = 1, 2, 3
    bright = np.isin(labels, [2]) | ((labels == 3) & (np.arange(30) < 5))
    for low, high in two_levels():
        image = np.where(bright, np.float32(high), np.float32(low))[None]
        for dtype in (np.float32, np.float64):
            region = region_of(image.astype(dtype), labels)
            (cut,) = features.pixel_thresholds([region], lambda: None)
            assert image.min() <= cut < image.max(), (low, high)
            _, found, _ = measured(region)
            assert found[2, :, 0].tolist() == [0, 1, 0.5], (low, high)


def test_the_first_value_above_the_lower_bin_is_bright():
    """The threshold is the last number of its bin, also where bins change their width."""
    image = np.full((1, 20, 20), np.nextafter(np.float32(1), np.float32(0)))
    image[0, :2] = 1
    region = region_of(image, np.ones((20, 20), np.int32))
    _, found, _ = measured(region)
    np.testing.assert_allclose(found[2], 0.1)


def test_labels_coarser_than_the_image(square, build, pixels, cells):
    image = pixels(2, 12, 16)
    sdata = build({"i": image}, {"l": (cells(), {"global": square(2)})})
    (region,) = find_regions(sdata, pixel_size=0.5)
    fine = cells().repeat(2, axis=0).repeat(2, axis=1)
    ids, found, contacts = measured(region, np.array([300.0, 600.0]))
    assert ids.tolist() == [3, 5, 9]
    np.testing.assert_allclose(found, naive_features(image, fine, np.array([300.0, 600.0])), rtol=1e-6)
    assert contacts == naive_contacts(fine)


def test_no_cell():
    image = np.ones((2, 5, 5), np.uint8)
    ids, found, contacts = measured(region_of(image, np.zeros((5, 5), np.int32)))
    assert ids.shape == (0,) and found.shape == (3, 0, 2) and contacts == {}
