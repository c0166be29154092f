"""Features of single cells, against regionprops and against what one pass over a padded image gives."""

import tracemalloc
from collections import Counter

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu
from skimage.measure import regionprops
from skimage.segmentation import find_boundaries
from spatialdata.transformations import Identity

from nimbus_sd.pixels import levels
from nimbus_sd.spatial import count_windows, features, find_regions


def thresholds_of(*regions):
    return features.pixel_thresholds(regions, lambda: None)


def measured(region, thresholds=None, only=None):
    """Ids, features, contacts as {(smaller, larger): edges}."""
    outlines = features.read_outlines(region, lambda: None)
    ids, boxes = outlines.boxes()
    if only is not None:
        kept = np.isin(ids, only)
        ids, boxes = ids[kept], boxes[kept]
    contacts = Counter()
    for first, second, length in zip(*(part.tolist() for part in outlines.contacts()), strict=True):
        contacts[first, second] += length
    thresholds = thresholds_of(region) if thresholds is None else thresholds
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
    pairs = [*zip(labels[1:].flat, labels[:-1].flat, strict=True)]
    pairs += zip(labels[:, 1:].flat, labels[:, :-1].flat, strict=True)
    return Counter(tuple(sorted(map(int, pair))) for pair in pairs if pair[0] != pair[1])


def sizes(monkeypatch, window, block, group=2**20):
    for name, size in (("_WINDOW", window), ("_BLOCK", block), ("_GROUP_BYTES", group)):
        monkeypatch.setattr(features, name, size)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_small_image(region_of, data):
    height, width = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)), label="shape")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    ids = np.array([0, 0, 1, 7, 2**31 + 5, 2**40, 2**62])[: data.draw(st.integers(1, 7))]
    coarse = rng.choice(ids, (4, 4)).repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    labels = np.where(rng.random((height, width)) < 0.2, rng.choice(ids, (height, width)), coarse)
    image = rng.integers(0, data.draw(st.sampled_from([1, 3, 60000])), (2, height, width)).astype(np.uint16)
    cut = [threshold_otsu(channel) if len(np.unique(channel)) > 1 else np.inf for channel in image]
    with pytest.MonkeyPatch.context() as patch:
        side = data.draw(st.integers(1, 8))
        sizes(patch, side, data.draw(st.integers(1, 2 * side)), data.draw(st.sampled_from([1, 2**20])))
        region = region_of(da.from_array(image, chunks=(1, 5, 7)), labels)
        found, values, contacts = measured(region)
        _, some, _ = measured(region, only=found[::3])
        np.testing.assert_allclose(thresholds_of(region), cut)
    np.testing.assert_array_equal(found, np.setdiff1d(labels, 0))
    np.testing.assert_allclose(values, naive_features(image, labels, cut), rtol=1e-6)
    np.testing.assert_allclose(some, values[:, ::3], rtol=1e-6)
    assert contacts == naive_contacts(labels)


def test_pixels_that_are_no_numbers_count_as_zero(region_of):
    image = np.array([[[np.nan, np.inf, 5, 6], [-1, 1e300, 7, 8]]])
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    _, found, _ = measured(region_of(image, labels))
    np.testing.assert_allclose(found[0, :, 0], [0, 6.5])
    np.testing.assert_allclose(found[2, :, 0], [0, 1])


def test_a_cell_larger_than_a_window_takes_no_more_than_its_pixels(region_of, monkeypatch):
    """A frame around everything: its box is the whole region, yet blocks stay small."""
    labels = np.zeros((60, 60), np.int32)
    labels[[0, -1]] = labels[:, [0, -1]] = 3
    labels[20:25, 20:25] = 8
    image = np.random.default_rng(0).integers(0, 999, (1, 60, 60)).astype(np.uint16)
    sizes(monkeypatch, 10, 20)
    read, region = [], region_of(image, labels)
    original = type(region).read_image
    monkeypatch.setattr(type(region), "read_image", lambda self, *args: read.append(original(self, *args)) or read[-1])
    _, found, _ = measured(region, np.array([500.0]))
    np.testing.assert_allclose(found, naive_features(image, labels, np.array([500.0])), rtol=1e-6)
    assert max(window.size for window in read) <= 20 * 20


def test_thresholds_are_of_all_images_together_and_each_image_once(build):
    rng = np.random.default_rng(2)
    a, b = rng.poisson(3, (1, 40, 30)).astype(np.uint16), rng.poisson(90, (1, 40, 30)).astype(np.uint8)
    x, y, labels = {"x": Identity()}, {"y": Identity()}, np.ones((40, 30), np.int32)
    sdata = build({"a": (a, x), "b": (b, y)}, {"a1": (labels, x), "a2": (labels, x), "b1": (labels, y)})
    regions = find_regions(sdata, ["a", "a", "b"], ["a1", "a2", "b1"], pixel_size=0.5)
    calls = []
    assert features.pixel_thresholds(regions, lambda: calls.append(1)) == threshold_otsu(np.concatenate([a, b]))
    assert len(calls) == 2 and count_windows(regions) == 2 + 2 * 3


def test_thresholds_of_many_channels_take_the_memory_of_some(region_of, monkeypatch):
    image = np.exp2(np.random.default_rng(0).uniform(-60, 0, (12, 32, 32))).astype(np.float32)
    region = region_of(image, np.ones((32, 32), np.int32))
    whole = thresholds_of(region)
    # What the histograms of two channels take at most.
    monkeypatch.setattr(levels, "_WORK_BYTES", 2 * 2**25)
    tracemalloc.start()
    np.testing.assert_array_equal(thresholds_of(region), whole)
    assert tracemalloc.get_traced_memory()[1] < 80e6
    tracemalloc.stop()


def test_thresholds_of_floats_part_the_same_pixels(region_of):
    rng = np.random.default_rng(3)
    image = np.concatenate([rng.normal(0.1, 0.02, (1, 50, 40)), rng.normal(0.9, 0.05, (1, 10, 40))], axis=1)
    (cut,) = thresholds_of(region_of(image, np.ones((60, 40), np.int32)))
    values = np.sort(np.maximum(image.astype(np.float32).ravel(), 0))
    # Every value is a candidate.
    variance = [k * (len(values) - k) * (values[:k].mean() - values[k:].mean()) ** 2 for k in range(1, len(values))]
    np.testing.assert_array_equal(values > cut, np.arange(len(values)) > np.argmax(variance))


def test_a_flat_background_is_not_bright_in_floats(region_of):
    """Its value may lie anywhere in a bin of the histogram, all of which belongs to the lower class."""
    labels = np.repeat([[1, 2, 3, 3]], 4, axis=0).astype(np.int32)
    rng = np.random.default_rng(6)
    lows = 10 ** rng.uniform(-6, 6, 20)
    pairs = [(0.3, 0.9), *zip(lows, lows * (1 + 10 ** rng.uniform(-3, 3, 20)), strict=True)]
    # Where bins change their width.
    pairs.append((np.nextafter(np.float32(1), np.float32(0)), 1))
    for low, high in pairs:
        image = np.repeat([[[low, high, low, high]]], 4, axis=1).astype(np.float32)
        for dtype in (np.float32, np.float64):
            _, found, _ = measured(region_of(image.astype(dtype), labels))
            assert found[2, :, 0].tolist() == [0, 1, 0.5], (low, high)
