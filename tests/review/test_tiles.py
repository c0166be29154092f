"""Tiles of the review page: levels are means, cells are rows, nothing of a slide is read twice or whole."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity

from nimbus_sd._review.tiles import Tiles
from nimbus_sd.spatial import find_regions

CHANNELS = ("DAPI", "CD3")


@pytest.fixture(scope="module")
def make_tiles(make_sdata):
    return partial(_tiles, make_sdata)


def _tiles(make_sdata, image, labels, scale_factors=None):
    sdata = make_sdata(image, labels, CHANNELS)
    name = next(iter(sdata.images))
    if scale_factors:
        place = {"scale_factors": scale_factors, "transformations": {"fov": Identity()}}
        sdata[name] = Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=CHANNELS, **place)
    regions = find_regions(sdata, pixel_size=0.5)
    ids = np.unique(labels[labels > 0])[::-1].astype(np.int64)
    centre = [np.argwhere(labels == cell).mean(axis=0)[::-1] for cell in ids]
    radius = [np.sqrt((labels == cell).sum() / np.pi) for cell in ids]
    rows = np.arange(len(ids))
    return Tiles(sdata, regions, [(ids, rows)], np.array(centre, np.float32), np.array(radius, np.float32)), ids


@pytest.fixture(scope="module")
def large(tissue):
    image, labels = tissue((1100, 700), 2, pitch=23.0)
    return image, labels


def _decoded(tiles, level, row, col):
    return (tiles.image_tile(0, 1, level, row, col) / 255.0) ** 2 * tiles.contrast(1)["top"]


@pytest.mark.parametrize("scale_factors", [None, [2, 2]])
def test_levels_are_means(large, scale_factors, make_tiles):
    image, labels = large
    tiles, _ = make_tiles(image, labels, scale_factors)
    assert tiles.levels(0) == 3
    fine, coarse = tiles.image_tile(0, 1, 0, 2, 1), _decoded(tiles, 2, 0, 0)
    assert fine.shape == (76, 188) and coarse.shape == (275, 175)
    means = np.clip(image[1].reshape(275, 4, 175, 4).mean(axis=(1, 3)), 0, tiles.contrast(1)["top"])
    # A step of 8 bits on the root, and the pyramid's own rounding.
    assert np.abs(coarse - means).max() < 0.02 * tiles.contrast(1)["top"]


def test_levels_beyond_what_is_read_at_once_are_made_of_finer_ones(large, monkeypatch, make_tiles):
    image, labels = large
    tiles, _ = make_tiles(image, labels)
    direct = _decoded(tiles, 2, 0, 0)
    monkeypatch.setattr("nimbus_sd._review.tiles._DIRECT", 0)
    built, _ = make_tiles(image, labels)
    assert np.abs(_decoded(built, 2, 0, 0) - direct).max() < 0.02 * tiles.contrast(1)["top"]


def test_cells_are_rows_of_the_table(large, make_tiles):
    image, labels = large
    tiles, ids = make_tiles(image, labels)
    tile = tiles.cell_tile(0, 0, 1, 1)
    window = labels[512:1024, 512:700]
    assert (tile > 0).tolist() == (window > 0).tolist()
    assert (ids[tile[tile > 0].astype(int) - 1] == window[window > 0]).all()


def test_where_cells_are_small_they_are_discs_and_no_label_is_read(large, monkeypatch, make_tiles):
    image, labels = large
    tiles, _ = make_tiles(image, labels)
    monkeypatch.setattr("nimbus_sd._review.tiles._SMALLEST", 100.0)
    monkeypatch.setattr("nimbus_sd.spatial.Region.read_labels", lambda *_: pytest.fail("labels were read"))
    drawn = tiles.cell_tile(0, 1, 0, 0)
    centre = (tiles._xy[:, ::-1] / 2).astype(int)
    seen = [row + 1 == drawn[y, x] for row, (y, x) in enumerate(centre) if y < 512 and x < 350]
    assert np.mean(seen) > 0.99
    # About as much is covered as by the labels.
    assert abs((drawn > 0).mean() / (labels[:1024:2, ::2] > 0).mean() - 1) < 0.2


def test_contrast_shows_signal_and_an_empty_channel_is_black(tissue, make_tiles):
    image, labels = tissue((300, 300), 2)
    image[0] = 0
    tiles, _ = make_tiles(image, labels)
    shown = tiles.contrast(1)
    assert shown["low"] < np.quantile(image[1], 0.5) < shown["high"] < shown["top"]
    assert not tiles.image_tile(0, 0, 0, 0, 0).any() and tiles.contrast(0) == {"top": 1.2, "low": 0.0, "high": 1.0}


def test_a_crop_is_about_its_cell(large, make_tiles):
    image, labels = large
    tiles, _ = make_tiles(image, labels)
    row = int(np.argmin(np.abs(tiles._xy - [350, 550]).sum(axis=1)))
    crop = np.asarray(Image.open(io.BytesIO(tiles.crop(row, 0, [0, 1], 40))))
    assert crop.shape == (96, 96, 3)
    outline = (crop == 255).all(axis=2)
    y, x = np.argwhere(outline).mean(axis=0)
    assert outline.sum() > 20 and abs(y - 48) < 6 and abs(x - 48) < 6


@pytest.mark.parametrize("place", [(1, 0, 0, 0), (0, 3, 0, 0), (0, 0, 3, 0), (0, 0, -1, 0), (0, -1, 0, 0)])
def test_tiles_that_are_not_there(large, place, make_tiles):
    tiles, _ = make_tiles(*large)
    region, level, row, col = place
    with pytest.raises(IndexError, match="There is no"):
        tiles.image_tile(region, 0, level, row, col)
    with pytest.raises(IndexError, match="There is no"):
        tiles.cell_tile(region, level, row, col)


def test_a_slide_without_a_pyramid_is_looked_at_where_cells_are(large, make_tiles, monkeypatch):
    image, labels = large
    assert make_tiles(image, labels)[0].home(0) is None
    monkeypatch.setattr("nimbus_sd._review.tiles._DIRECT", 0)
    tiles, _ = make_tiles(image, labels)
    x, y, width = tiles.home(0)
    assert [x, y] in tiles._xy.tolist() and abs(x - 350) < 60 and abs(y - 550) < 60 and width == 2048
    assert make_tiles(image, labels, [2])[0].home(0) is None
