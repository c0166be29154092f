"""Tiles on disk: what inference would see, the labels that the table holds, and splits by region."""

from itertools import pairwise

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.segmentation import find_boundaries
from small_training import with_silver

import nimbus_sd.train.build as building
from nimbus_sd.pixels import overlapping_tiles
from nimbus_sd.train import Store
from nimbus_sd.train.store import StoreSettings
from nimbus_sd.train.tiles import Order, StoredTile, collate_stored, read_batches, read_tile

GIVEN = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells"], "test": ["r3_cells"]}


@given(st.integers(1, 300), st.integers(2, 80), st.data())
def test_windows_cover_a_region_and_share_enough(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    tiles = list(overlapping_tiles((length, size), size, overlap))
    starts = [tile.window[0].start for tile in tiles]
    # Each pixel is in one core.
    assert [tile.core[0].start for tile in tiles] == starts
    assert [tile.core[0].stop for tile in tiles] == [*starts[1:], starts[-1] + size]
    assert starts[0] == 0 and starts[-1] == max(0, length - size)
    assert all(0 < later - one <= size - overlap for one, later in pairwise(starts))
    # None is there for nothing.
    assert len(starts) == 1 or (len(starts) - 1) * (size - overlap) < length - overlap


def seen_by_the_network(sdata, region: str, factors):
    """Model pixels of a whole region, by means of 2 x 2 pixels and every other label."""
    image, cells = sdata.images[region].to_numpy(), sdata.labels[f"{region}_cells"].to_numpy()
    clipped = np.clip(image / np.array(factors)[:, None, None], 0, 1)
    halves = clipped.reshape(len(image), 32, 2, 32, 2).mean(axis=(2, 4))
    inside = (cells > 0) & ~find_boundaries(cells, connectivity=1, mode="inner")
    return halves, inside[::2, ::2], cells[::2, ::2]


def test_tiles_hold_what_the_network_sees_of_every_window(labelled, build):
    store = build(labelled, split=GIVEN)
    factors = [
        np.mean([np.quantile(image[image > 0], 0.999) for image in images])
        for images in zip(*(labelled.images[f"r{i}"].to_numpy() for i in range(4)), strict=True)
    ]
    silver, obs = labelled.tables["table"].layers["silver"], labelled.tables["table"].obs
    assert store.tiles("train").shape == (2 * 9 * 2, 3)
    for number, window, channel in store.tiles("train"):
        region = store.regions[number]
        image, inside, ids = seen_by_the_network(labelled, region.image, factors)
        tile, (row, col) = read_tile(store, number, window, channel), region.corners[window]
        box = np.s_[row : row + 16, col : col + 16]
        # A quantile is read off between two grey levels: the image's step over the factor.
        np.testing.assert_allclose(tile.image, image[channel][box], atol=2e-3)
        np.testing.assert_array_equal(tile.interior, inside[box])
        assert tile.inside.all() and tile.image.dtype == np.float32
        found = np.concatenate([[0], region.ids])[tile.rows + 1]
        np.testing.assert_array_equal(found[tile.cells], ids[box])
        for cell, label in zip(found[1:], tile.labels[1:], strict=True):
            row_of = (obs["region"] == region.region) & (obs["instance_id"] == cell)
            assert label == silver[row_of.to_numpy()][0, channel]


def test_a_region_smaller_than_a_tile_is_mirrored_and_has_no_cell_outside(labelled, build):
    store = build(labelled, tile_size=48, split=GIVEN)
    image, _, _ = seen_by_the_network(labelled, "r0", [1, 1])
    tile = read_tile(store, 0, 0, 0)
    np.testing.assert_array_equal(tile.image[32:47, :32], tile.image[30:15:-1, :32])
    np.testing.assert_array_equal(tile.image[:32, :32] > 0, image[0] > 0)
    assert tile.inside[:32, :32].all() and tile.inside.sum() == 32 * 32
    assert tile.interior[32:].any() and not tile.cells[~tile.inside].any()


def test_cells_that_the_table_lacks_are_not_judged(labelled, build):
    adata = labelled.tables["table"]
    gone = adata.obs["instance_id"].iloc[0]
    labelled.tables["table"] = adata[1:].copy()
    store = build(labelled, split=GIVEN)
    region = store.regions[0]
    assert region.ids[-1] == gone and np.isnan(region.truth(0)[-1]) and not np.isnan(region.truth(0)[:-1]).any()


def test_tiles_without_positive_cells_are_kept_and_channels_without_labels_are_not(labelled, build):
    silver = labelled.tables["table"].layers["silver"]
    silver[:, 1] = np.nan
    silver[(labelled.tables["table"].obs["region"] == "r0_cells").to_numpy(), 0] = 0
    store = build(labelled, split=GIVEN)
    assert store.strata == [("d", "DAPI")] and len(store.tiles("train")) == 18
    assert store.to_frame().set_index("region").loc["r0_cells", "positive"] == 0


def test_gold_is_tested_by_and_proofread_cells_go_before_silver(labelled, build):
    adata = labelled.tables["table"]
    gold = np.full(adata.shape, np.nan, np.float32)
    proofread = gold.copy()
    held = np.flatnonzero(adata.obs["region"] == "r1_cells")
    gold[held[0]] = 0.75
    proofread[0] = 1 - adata.layers["silver"][0]
    adata.layers["gold"], adata.layers["gold_training"] = gold, proofread
    store = build(labelled, split=(0.5, 0.25, 0.25))
    by_name = {region.region: region for region in store.regions}
    assert {name for name, region in by_name.items() if region.split == "test"} == {"r1_cells"}
    assert np.isfinite(by_name["r1_cells"].truth(0)).sum() == 1 and by_name["r1_cells"].truth(0)[0] == 0.75
    assert by_name["r0_cells"].truth(1)[0] == proofread[0, 1] != adata.layers["silver"][0, 1]
    with pytest.raises(ValueError, match=r"\['r1_cells'\] are for evaluation"):
        build(labelled, "other", split={"train": ["r1_cells", "r0_cells"], "validation": ["r2_cells", "r3_cells"]})


def test_a_region_drawn_for_evaluation_is_tested_before_anybody_judged_it(labelled, build):
    adata = labelled.tables["table"]
    adata.obs["evaluation"] = (adata.obs["region"] == "r2_cells").to_numpy()
    store = build(labelled, split=(0.5, 0.25, 0.25))
    assert [region.region for region in store.regions if region.split == "test"] == ["r2_cells"]


def test_regions_without_a_label_take_no_place_in_the_split(labelled, build, caplog):
    adata = labelled.tables["table"]
    adata.layers["silver"][(adata.obs["region"] == "r1_cells").to_numpy()] = np.nan
    for seed in range(4):
        with caplog.at_level("INFO", "nimbus_sd"):
            content = build(labelled, f"tiles{seed}", split=(0.34, 0.33, 0.33), rng=seed).to_frame()
        assert (content.groupby("split")["judged"].sum() > 0).all()
        assert set(content["region"]) == {"r0_cells", "r2_cells", "r3_cells"}
    assert "left out 1 regions without a label: r1_cells" in caplog.text


def test_regions_of_one_patient_stay_together(labelled, build):
    split = {"train": ["r0_cells", "r2_cells"], "validation": ["r1_cells", "r3_cells"]}
    with pytest.raises(ValueError, match="tears apart"):
        build(labelled, split=split, split_by="patient")
    with pytest.raises(KeyError, match="no column 'donor'"):
        build(labelled, "other", split_by="donor")
    labelled.tables["table"].obs.loc["0", "patient"] = "another"
    with pytest.raises(ValueError, match="'r0_cells' has 2 values"):
        build(labelled, "third", split_by="patient")


def test_many_data_sets_share_a_store_of_the_same_settings(labelled, build):
    build(labelled, split=GIVEN)
    store = build(labelled, data_set="e", channels=["CD3"], split=GIVEN)
    assert store.data_sets == ["d", "e"] and store.strata == [("d", "DAPI"), ("d", "CD3"), ("e", "CD3")]
    number, _, channel = store.tiles("train")[-1]
    assert store.stratum(number) + channel == 2
    assert Store(store.path).described() == store.described()
    with pytest.raises(ValueError, match="has data set 'e' already"):
        build(labelled, data_set="e", split=GIVEN)
    with pytest.raises(ValueError, match="tile_size 16, now 32; overlap 4, now 8"):
        build(labelled, data_set="f", tile_size=32, overlap=8)


def copied(make_sdata, sdata, names):
    """The same tissue under other names."""
    images = {new: sdata.images[old].to_numpy() for old, new in names.items()}
    masks = {f"{new}_cells": sdata.labels[f"{old}_cells"].to_numpy() for old, new in names.items()}
    return with_silver(make_sdata(images, masks))


@pytest.mark.parametrize("changed", ["images", "masks"])
def test_a_region_has_one_split_in_all_data_sets(labelled, build, make_sdata, changed):
    build(labelled, split=GIVEN)
    other = copied(make_sdata, labelled, {"r0": "d", "r1": "c", "r2": "b", "r3": "a"})
    for element in (other.images if changed == "images" else other.labels).values():
        element.data[:] = element.data[:] * 2
    if changed == "masks":
        # All channels but one are others, too.
        other.tables["table"].obs["instance_id"] *= 2
        for element in other.images.values():
            element.data[0] = 7
    split = {"train": ["a_cells", "b_cells"], "validation": ["c_cells"], "test": ["d_cells"]}
    with pytest.raises(ValueError, match=r"'[a-d]_cells' would be .*region 'r\d_cells' of data set 'd', which is for"):
        build(other, data_set="e", split=split)
    for seed in range(2):
        store = build(other, data_set=f"e{seed}", split=(0.4, 0.3, 0.3), rng=seed)
        splits = store.to_frame().query("data_set != 'd'").set_index("region")["split"].to_dict()
        assert splits == {"d_cells": "train", "c_cells": "train", "b_cells": "validation", "a_cells": "test"}


def test_a_patient_has_one_split_in_all_data_sets(labelled, build, make_sdata):
    split = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells", "r3_cells"]}
    build(labelled, split=split, split_by="patient")
    for one in (*labelled.images.values(), *labelled.labels.values()):
        one.data[:] = one.data[..., ::-1].copy()
    other, given = with_silver(labelled), {"train": [f"r{i}_cells" for i in range(4)]}
    with pytest.raises(ValueError, match=r"'r2_cells' would be for train, .*of data set 'd', which is for validation"):
        build(other, data_set="e", split=given, split_by="patient")
    # Without it, names say nothing: every data set has a "fov1".
    build(other, data_set="e", split=given)


def test_equal_regions_of_a_data_set_stay_together(labelled, build):
    labelled.images["r3"].data[:] = labelled.images["r0"].data
    with pytest.raises(ValueError, match=r"tears apart .*same pixels\): \['r0'\]"):
        build(labelled, split=GIVEN)
    for seed in range(3):
        content = build(labelled, f"tiles{seed}", split=(0.34, 0.33, 0.33), rng=seed).to_frame()
        splits = content.drop_duplicates("region").set_index("region")["split"]
        assert splits["r0_cells"] == splits["r3_cells"] and splits.nunique() == 3


@pytest.mark.parametrize("normalization", [None, {"DAPI": 100.0, "CD3": 100.0}])
def test_pixels_that_are_no_numbers_are_named_and_counted_once(labelled, build, normalization):
    image = labelled.images["r0"]
    values = image.to_numpy().astype(np.float32)
    values[1, 20:30, 20:30], values[0, 0, :3] = np.nan, -1
    labelled.images["r0"] = image.copy(data=da.from_array(values))
    with pytest.warns(UserWarning) as caught:
        build(labelled, split=GIVEN, normalization=normalization)
    texts = [str(one.message) for one in caught if "pixels" in str(one.message) and "channel" in str(one.message)]
    assert len(texts) == 2 and "NaN, infinite" in texts[0] and "negative" in texts[1]
    assert "channel(s) 'CD3' (100 pixels)" in texts[0] and "channel(s) 'DAPI' (3 pixels)" in texts[1]


def test_a_build_that_was_stopped_leaves_nothing(labelled, build, monkeypatch):
    write = building.write_region

    def failing(group, region, *rest):
        if region.labels_key == "r2_cells":
            raise OSError("the disk is full")
        write(group, region, *rest)

    monkeypatch.setattr(building, "write_region", failing)
    with pytest.raises(OSError, match="disk is full"):
        build(labelled, split=GIVEN)
    monkeypatch.setattr(building, "write_region", write)
    store = build(labelled, split=GIVEN)
    assert len(store.regions) == 4 and store.data_sets == ["d"]


def test_a_build_that_failed_does_not_bind_the_next_one(labelled, build):
    with pytest.raises(KeyError, match="silvr"):
        build(labelled, labels="silvr", split=GIVEN)
    assert build(labelled, tile_size=32, split=GIVEN).settings.tile_size == 32


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.layers["silver"].__setitem__((0, 0), 2), "holds 2, which are no labels"),
        (lambda a: a.layers["silver"].__setitem__((0, 0), np.inf), "holds inf, which are no labels"),
        (lambda a: a.layers["silver"].fill(np.nan), "No cell is labelled positive or negative"),
        (lambda a: a.layers["silver"].fill(0.5), "No cell is labelled positive or negative"),
    ],
)
def test_labels_outside_of_the_code_are_refused(labelled, build, change, message):
    change(labelled.tables["table"])
    with pytest.raises(ValueError, match=message):
        build(labelled)


def test_gold_alone_is_not_trained_on(labelled, build):
    adata = labelled.tables["table"]
    adata.layers["gold"] = adata.layers.pop("silver")
    with pytest.raises(KeyError, match=r"no layers\['silver'\].*belong into layers\['gold_training'\]"):
        build(labelled, split=GIVEN)
    del adata.layers["gold"]
    with pytest.raises(KeyError, match="no labels to train on"):
        build(labelled, split=GIVEN)
    adata.layers["gold"] = np.ones(adata.shape, np.float32)
    with pytest.raises(ValueError, match="nothing is trained on it"):
        build(labelled, labels="gold", split=GIVEN)


def test_a_layer_that_was_asked_for_must_be_there(labelled, build, caplog):
    adata = labelled.tables["table"]
    adata.layers["gold_training"] = adata.layers.pop("silver")
    with pytest.raises(KeyError, match=r"no layers\['silvr'\].*'gold_training'"):
        build(labelled, labels="silvr", split=GIVEN)
    with caplog.at_level("INFO", "nimbus_sd"):
        build(labelled, split=GIVEN)
    assert "layers['gold_training'] alone" in caplog.text


def test_something_else_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="no store of tiles"):
        Store(tmp_path)
    settings = StoreSettings(16, 4, 1.0, "otsu", None)
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="holds something else than tiles, and is left as it is"):
            Store.create(path, settings)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_settings_are_numbers_of_their_kind(tmp_path):
    with pytest.raises(ValueError, match=r"tile_size is 64.0; it must be a whole number"):
        StoreSettings(64.0, 16, 0.5, "otsu", None)
    store = Store.create(tmp_path / "tiles", StoreSettings(np.int64(64), np.int64(16), np.float32(0.5), "otsu", None))
    assert store.settings == StoreSettings(64, 16, 0.5, "otsu", None)


def test_every_tile_is_shown_once_before_one_is_shown_again():
    order = Order(10, 4, seed=0)
    shown = np.concatenate([order(step) for step in range(5)])
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10)) and list(shown[:10]) != list(shown[10:])
    shared = np.stack([order(3, rank, 2) for rank in range(2)], axis=1).ravel()
    np.testing.assert_array_equal(shared, order(3))
    assert not np.array_equal(Order(10, 4, seed=1)(0), order(0))


def stored_tile(cells, labels, seed: int) -> StoredTile:
    cells, n = np.array(cells), len(labels)
    image, inside = np.random.default_rng(seed).random(cells.shape, np.float32), np.ones(cells.shape, bool)
    rows, trusted = np.arange(n) + 10 * seed, np.arange(n) % 2 == 0
    return StoredTile(image, cells == 2, cells, np.array(labels, np.float32), inside, seed, rows, trusted)


def test_cells_are_numbered_through_the_batch():
    tiles = [
        stored_tile([[0, 1], [2, 2]], [np.nan, 1, 0.5], seed=1),
        # Cell 1 covers no pixel, and there is no cell at all in the third.
        stored_tile([[2, 0], [3, 3]], [np.nan, 0, 1, 0], seed=2),
        stored_tile([[0, 0], [0, 0]], [np.nan], seed=3),
        stored_tile([[1, 1], [0, 0]], [np.nan, np.nan], seed=4),
    ]
    batch = collate_stored(tiles)
    assert batch.inputs.shape == (4, 2, 2, 2) and batch.inputs.dtype == torch.float32
    assert batch.cells.dtype == torch.int64 and batch.labels.dtype == torch.float32
    np.testing.assert_array_equal(batch.cells, [[[0, 1], [2, 2]], [[4, 0], [5, 5]], [[0, 0], [0, 0]], [[6, 6], [0, 0]]])
    np.testing.assert_array_equal(batch.labels[1:], [1, 0.5, 0, 1, 0, np.nan])
    np.testing.assert_array_equal(batch.tile[1:], [0, 0, 1, 1, 1, 3])
    np.testing.assert_array_equal(batch.rows[1:], [11, 12, 21, 22, 23, 41])
    np.testing.assert_array_equal(batch.trusted[1:], [False, True, False, True, False, False])
    np.testing.assert_array_equal(batch.stratum, [1, 2, 3, 4])
    for number, one in enumerate(tiles):
        np.testing.assert_array_equal(batch.inputs[number, 0], one.image)
        np.testing.assert_array_equal(batch.inputs[number, 1], one.interior)


def test_batches_are_read_in_order(labelled, build):
    store = build(labelled, split=GIVEN)
    tiles = store.tiles("train")
    batches = list(read_batches(store, [tiles[:3], tiles[3:5]]))
    assert [len(one.inputs) for one in batches] == [3, 2]
    for batch, own in zip(batches, (tiles[:3], tiles[3:5]), strict=True):
        alone = collate_stored([read_tile(store, *one) for one in own])
        for name, value in vars(alone).items():
            np.testing.assert_array_equal(getattr(batch, name), value, err_msg=name)
    assert int(batches[0].cells.max()) == len(batches[0].labels) - 1
