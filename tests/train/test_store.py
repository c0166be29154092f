"""Tiles on disk: what inference would see, the labels that the table holds, and splits by region."""

import dask.array as da
import numpy as np
import pytest
from skimage.segmentation import find_boundaries
from small_training import with_silver

from nimbus_sd.train import Split, Store
from nimbus_sd.train import build as build_module
from nimbus_sd.train.batches import read_tile
from nimbus_sd.train.build import assign_splits
from nimbus_sd.train.store import StoreSettings, open_store


def seen_by_the_network(sdata, region: str, factors):
    """Model pixels of a whole region, by means of 2 x 2 pixels and every other label."""
    image, cells = sdata.images[region].to_numpy(), sdata.labels[f"{region}_cells"].to_numpy()
    clipped = np.clip(image / np.array(factors)[:, None, None], 0, 1)
    halves = clipped.reshape(len(image), 32, 2, 32, 2).mean(axis=(2, 4))
    inside = (cells > 0) & ~find_boundaries(cells, connectivity=1, mode="inner")
    return halves, inside[::2, ::2], cells[::2, ::2]


def test_tiles_hold_what_the_network_sees_of_every_window(labelled, store):
    factors = [
        np.mean([np.quantile(image[image > 0], 0.999) for image in images])
        for images in zip(*(labelled.images[f"r{i}"].to_numpy() for i in range(4)), strict=True)
    ]
    adata = labelled.tables["table"]
    silver = adata.to_df("silver").set_index([adata.obs["region"], adata.obs["instance_id"]])
    assert store.tiles("train").shape == (2 * 9 * 2, 3)
    for number, window, channel in store.tiles("train"):
        region = store.regions[number]
        image, inside, ids = seen_by_the_network(labelled, region.image, factors)
        tile, (row, col) = read_tile(store, number, window, channel), region.corners[window]
        box = np.s_[row : row + 16, col : col + 16]
        # A quantile is read off between two grey levels: the image's step over the factor.
        np.testing.assert_allclose(tile.inputs[0, 0], image[channel][box], atol=2e-3)
        np.testing.assert_array_equal(tile.inputs[0, 1], inside[box])
        assert tile.inside.all() and store.strata[tile.stratum] == ("d", region.channels[channel])
        cells = np.concatenate([[0], region.ids])[tile.rows + 1]
        np.testing.assert_array_equal(cells[tile.cells[0]], ids[box])
        np.testing.assert_array_equal(tile.labels[1:], silver.loc[region.region].loc[cells[1:]].iloc[:, channel])


def test_a_region_smaller_than_a_tile_is_mirrored_and_has_no_cell_outside(labelled, build):
    tile = read_tile(build(labelled, tile_size=48), 0, 0, 0)
    pixels, inside = tile.inputs[0, 0], tile.inside[0]
    np.testing.assert_array_equal(pixels[32:47, :32], pixels[range(30, 15, -1), :32])
    assert inside[:32, :32].all() and inside.sum() == 32 * 32
    assert tile.inputs[0, 1, 32:].any() and not tile.cells[~tile.inside].any()


def test_what_has_no_label_is_not_judged(labelled, build):
    adata = labelled.tables["table"]
    gone, adata = adata.obs["instance_id"].iloc[0], adata[1:].copy()
    # A channel without labels is not taken; tiles without a positive cell are.
    adata.layers["silver"][:, 1] = np.nan
    adata.layers["silver"][(adata.obs["region"] == "r0_cells").to_numpy(), 0] = 0
    labelled.tables["table"] = adata
    store = build(labelled)
    region = store.regions[0]
    assert region.ids[-1] == gone and np.isnan(region.truth(0)[-1]) and not np.isnan(region.truth(0)[:-1]).any()
    assert store.strata == [("d", "DAPI")] and len(store.tiles("train")) == 18
    assert store.to_frame().set_index("region").loc["r0_cells", "positive"] == 0


def test_gold_is_tested_by_and_proofread_cells_go_before_silver(labelled, build):
    adata = labelled.tables["table"]
    gold = np.full(adata.shape, np.nan, np.float32)
    proofread = gold.copy()
    gold[np.flatnonzero(adata.obs["region"] == "r1_cells")[0]] = 0.75
    proofread[0] = 1 - adata.layers["silver"][0]
    adata.layers["gold"], adata.layers["gold_training"] = gold, proofread
    # Also before somebody judged it.
    adata.obs["evaluation"] = (adata.obs["region"] == "r2_cells").to_numpy()
    store = build(labelled, split=(0.4, 0.3, 0.3))
    regions = {region.region: region for region in store.regions}
    assert {name for name, region in regions.items() if region.split == "test"} == {"r1_cells", "r2_cells"}
    assert np.isfinite(regions["r1_cells"].truth(0)).sum() == 1 and regions["r1_cells"].truth(0)[0] == 0.75
    assert regions["r0_cells"].truth(1)[0] == proofread[0, 1] != adata.layers["silver"][0, 1]
    with pytest.raises(ValueError, match=r"\['r1_cells', 'r2_cells'\] are for evaluation"):
        build(labelled, "other", split={"train": ["r1_cells", "r0_cells"], "validation": ["r2_cells", "r3_cells"]})


def test_regions_without_a_label_take_no_place_in_the_split(labelled, build, caplog):
    adata = labelled.tables["table"]
    adata.layers["silver"][(adata.obs["region"] == "r1_cells").to_numpy()] = np.nan
    with caplog.at_level("INFO", "nimbus_sd"):
        content = build(labelled, split=(0.34, 0.33, 0.33)).to_frame()
    assert (content.groupby("split")["judged"].sum() > 0).all()
    assert set(content["region"]) == {"r0_cells", "r2_cells", "r3_cells"}
    assert "left out 1 regions without a label: r1_cells" in caplog.text


def test_regions_of_one_patient_stay_together(labelled, build):
    masks = ["r0_cells", "r1_cells"]
    split, adata = {"train": ["r0_cells", "r2_cells"], "validation": ["r1_cells", "r3_cells"]}, labelled.tables["table"]
    for error, message, by in ((ValueError, "tears apart", "patient"), (KeyError, "no column 'donor'", "donor")):
        with pytest.raises(error, match=message):
            build(labelled, split=Split(split, by=by))
    adata.obs.loc["0", "patient"] = "another"
    with pytest.raises(ValueError, match="'r0_cells' has 2 values"):
        build(labelled, split=Split(split, by="patient"))
    adata.obs["patient"], labelled.labels["r1_cells"] = adata.obs["region"].astype(str), labelled.labels["r0_cells"]
    with pytest.raises(ValueError, match="several values of obs"):
        build(labelled, split=Split({"train": masks}, by="patient"), image_key=["r0", "r0"], labels_key=masks)


def test_many_data_sets_share_a_store_of_the_same_settings(labelled, build):
    build(labelled)
    store = build(labelled, data_set="e", channels=["CD3"])
    assert store.data_sets == ["d", "e"] and store.strata == [("d", "DAPI"), ("d", "CD3"), ("e", "CD3")]
    number, _, channel = store.tiles("train")[-1]
    assert store.stratum(number) + channel == 2 and Store(store.path).described() == store.described()
    for name, size, message in (
        ("e", 16, "has data set 'e' already"),
        ("", 16, "give it a name"),
        ("f", 32, "tile_size: 16 then, 32 now"),
    ):
        with pytest.raises(ValueError, match=message):
            build(labelled, data_set=name, tile_size=(size, 4))
    with pytest.raises(ValueError, match="must be one of train, validation, test"):
        store.tiles("training")


@pytest.mark.parametrize("changed", ["images", "masks"])
def test_a_region_has_one_split_in_all_data_sets(labelled, build, make_sdata, changed):
    build(labelled)
    # The same tissue under other names.
    names = {"r0": "d", "r1": "c", "r2": "b", "r3": "a"}
    images = {new: labelled.images[old].to_numpy() for old, new in names.items()}
    masks = {f"{new}_cells": labelled.labels[f"{old}_cells"].to_numpy() for old, new in names.items()}
    other = with_silver(make_sdata(images, masks))
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
    store = build(other, data_set="e", split=(0.4, 0.3, 0.3))
    splits = store.to_frame().query("data_set == 'e'").set_index("region")["split"].to_dict()
    assert splits == {"d_cells": "train", "c_cells": "train", "b_cells": "validation", "a_cells": "test"}


def test_a_patient_has_one_split_in_all_data_sets(labelled, build):
    split = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells", "r3_cells"]}
    build(labelled, split=Split(split, by="patient"))
    for element in (*labelled.images.values(), *labelled.labels.values()):
        element.data[:] = element.data[..., ::-1].copy()
    other, given = with_silver(labelled), {"train": [f"r{i}_cells" for i in range(4)]}
    with pytest.raises(ValueError, match=r"'r2_cells' would be for train, .*of data set 'd', which is for validation"):
        build(other, data_set="e", split=Split(given, by="patient"))
    # Without it, names say nothing: every data set has a "fov1".
    build(other, data_set="e", split=given)


def test_equal_regions_of_a_data_set_stay_together(labelled, build):
    labelled.images["r3"].data[:] = labelled.images["r0"].data
    with pytest.raises(ValueError, match=r"tears apart .*same pixels\): \['r0'\]"):
        build(labelled)
    splits = build(labelled, split=(0.34, 0.33, 0.33)).to_frame().set_index("region")["split"]
    assert (splits["r0_cells"] == splits["r3_cells"].iloc[0]).all() and splits.nunique() == 3


@pytest.mark.parametrize("normalization", [None, {"DAPI": 100.0, "CD3": 100.0}])
def test_pixels_that_are_no_numbers_are_named_and_counted_once(labelled, build, normalization):
    image = labelled.images["r0"]
    values = image.to_numpy().astype(np.float32)
    values[1, 20:30, 20:30], values[0, 0, :3] = np.nan, -1
    labelled.images["r0"] = image.copy(data=da.from_array(values))
    with pytest.warns(UserWarning) as caught:
        build(labelled, normalization=normalization)
    texts = [str(one.message) for one in caught if "pixels" in str(one.message) and "channel" in str(one.message)]
    assert len(texts) == 2 and "NaN, infinite" in texts[0] and "negative" in texts[1]
    assert "channel(s) 'CD3' (100 pixels)" in texts[0] and "channel(s) 'DAPI' (3 pixels)" in texts[1]


def test_a_build_that_stopped_or_failed_leaves_nothing(labelled, build, monkeypatch):
    with pytest.raises(KeyError, match="silvr"):
        build(labelled, labels="silvr", tile_size=32)
    write = build_module.write_region

    def failing(group, region, *rest):
        if region.labels_key == "r2_cells":
            raise OSError("the disk is full")
        return write(group, region, *rest)

    monkeypatch.setattr(build_module, "write_region", failing)
    with pytest.raises(OSError, match="disk is full"):
        build(labelled)
    monkeypatch.undo()
    store = build(labelled)
    assert len(store.regions) == 4 and store.data_sets == ["d"] and store.settings.tile_size == 16


@pytest.mark.parametrize(
    "label, message", [(2, r"label\(s\) 2"), (np.inf, r"label\(s\) inf"), (np.nan, "No cell"), (0.5, "No cell")]
)
def test_labels_without_a_meaning_are_refused(labelled, build, label, message):
    labelled.tables["table"].layers["silver"][:] = label
    with pytest.raises(ValueError, match=message):
        build(labelled)


def test_a_layer_to_train_on_must_be_there_and_not_be_gold(labelled, build, caplog):
    adata = labelled.tables["table"]
    silver = adata.layers.pop("silver")
    with pytest.raises(KeyError, match="no labels to train on"):
        build(labelled)
    adata.layers["gold"] = silver
    with pytest.raises(KeyError, match=r"no layers\['silver'\].*belong into layers\['gold_training'\]"):
        build(labelled)
    with pytest.raises(ValueError, match="nothing is trained on it"):
        build(labelled, labels="gold")
    adata.layers["gold_training"] = adata.layers.pop("gold")
    with caplog.at_level("INFO", "nimbus_sd"):
        build(labelled)
    assert "layers['gold_training'] alone" in caplog.text


def test_something_else_is_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="no store of tiles"):
        Store(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="holds something else than tiles, and is left as it is"):
            open_store(path, StoreSettings(16, 4, 1.0, "otsu", None))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_store_that_goes_away_is_an_error(labelled, build):
    store = build(labelled)
    read_tile(store, *store.tiles("train")[0])
    store.path.rename(store.path.with_name("moved"))
    with pytest.raises(FileNotFoundError, match="was away while it was read"):
        read_tile(store, *store.tiles("train")[0])


TEN = {f"r{i}": f"r{i}" for i in range(10)}


def count(splits: dict[str, str]) -> list[int]:
    return [list(splits.values()).count(name) for name in ("train", "validation", "test")]


def test_shares_are_of_groups_and_follow_the_seed():
    drawn = [assign_splits(Split(rng=seed), TEN, set(), {}) for seed in (0, 0, 1)]
    assert count(drawn[0]) == [8, 1, 1] and drawn[0] == drawn[1] != drawn[2]
    groups = {f"r{i}": f"patient {i // 4}" for i in range(40)}
    splits = assign_splits(Split(), groups, {"r0", "r21"}, {})
    # A group is never torn; with a region for evaluation in it, it is for testing.
    assert count(splits) == [28, 4, 8]
    assert {groups[region] for region, split in splits.items() if split == "test"} == {"patient 0", "patient 5"}
    assert len({(groups[region], split) for region, split in splits.items()}) == 10


FOUR = {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
GROUPS = {name: name for name in "abcd"}
SHARES = (0.8, 0.1, 0.1)


@pytest.mark.parametrize(
    "split, groups, evaluation, message",
    [
        (FOUR | {"test": ["d", "a"]}, GROUPS, set(), "'a' is in 2 splits"),
        (FOUR | {"test": ["d", "e"]}, GROUPS, set(), "'e' is no region"),
        (FOUR | {"test": []}, GROUPS, set(), "'d' is in 0 splits"),
        (FOUR | {"testing": []}, GROUPS, set(), r"has \['testing'\]"),
        (FOUR | {"test": "d"}, GROUPS, set(), r"has \['test'\]; give lists"),
        (FOUR, GROUPS, {"a"}, r"\['a'\] are for evaluation"),
        (FOUR, GROUPS | {"c": "a"}, set(), r"tears apart .*\['a'\]"),
        (SHARES, {"a": "a", "b": "b"}, set(), "independent groups of regions"),
        (SHARES, {"a": "a", "b": "b", "c": "c"}, {"a", "b"}, "independent groups of regions"),
        *((shares, TEN, set(), "three shares above 0") for shares in ((0.8, 0.1, 0.2), (1, 0, 0), 0.8)),
    ],
)
def test_wrong_splits_are_refused(split, groups, evaluation, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(Split(split), groups, evaluation, {})


def test_what_is_in_the_store_keeps_its_split_and_its_group_follows():
    x, y = "region 'x' of data set 'd'", "region 'y' of data set 'e'"
    for seed in range(5):
        in_store = {"r3": {"validation": x}, "r7": {"train": y}}
        splits = assign_splits(Split(rng=seed), TEN | {"r4": "r3"}, set(), in_store)
        assert (splits["r3"], splits["r4"], splits["r7"]) == ("validation", "validation", "train")
        assert count(splits) == [7, 2, 1]
    # It is for evaluation now, or one patient of whom the store has regions in two splits.
    for groups, evaluation, places in ((GROUPS, {"c"}, {}), (GROUPS | {"b": "c"}, set(), {"b": {"test": y}})):
        with pytest.raises(ValueError, match=r"Region '[bc]' would be for .*region '[xy]' of data set '[de]', which"):
            assign_splits(Split(SHARES), groups, evaluation, {"c": {"train": x}} | places)
