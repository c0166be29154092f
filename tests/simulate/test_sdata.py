"""The simulated SpatialData: elements, cell types and their truth."""

import numpy as np
import pytest
import spatialdata as sd

from nimbus_sd.simulate import Detector, Marker, Segmentation, simulate
from nimbus_sd.spatial import find_regions

PANEL = {
    "CD3": (Marker("membrane", 0.0, spread=0.2, dim_share=0.0), Detector()),
    "CD20": (Marker("membrane", 0.0, spread=0.2, dim_share=0.0), Detector()),
    "CD68": (Marker("granules", 0.0, patchiness=0.5, unspecific=0.1, fibres=0.3), Detector(counting=True, gain=5.0)),
    "Ki67": (Marker("nucleus", 0.3, spread=0.2, dim_share=0.0), Detector()),
}
TYPES = {"T cell": (1.0, ("CD3",)), "B cell": (2.0, ("CD20",)), "macrophage": (0.5, ("CD68",)), "other": (1.0, ())}


def draw(**settings) -> sd.SpatialData:
    return simulate(PANEL, TYPES, **{"n_regions": 2, "shape": (140, 160), "rng": 3, **settings})


@pytest.fixture(scope="module")
def sdata() -> sd.SpatialData:
    return draw()


def test_the_same_seed_gives_the_same_data_and_another_seed_other_data():
    errors = {"segmentation": Segmentation("grown", merged=0.1, split=0.1, missing=0.1, shift=(0.5, 0.5))}
    first, again, generator, other = (draw(rng=rng, **errors) for rng in (3, 3, np.random.default_rng(3), 4))
    for same in (again, generator):
        for name in ("fov1", "fov2", "fov1_labels", "fov2_labels"):
            np.testing.assert_array_equal(same[name], first[name])
        assert same["table"].obs.equals(first["table"].obs)
        np.testing.assert_array_equal(same["table"].layers["gold"], first["table"].layers["gold"])
    assert not np.array_equal(other["fov1"], first["fov1"])
    assert not np.array_equal(other["fov1_labels"], first["fov1_labels"])


@pytest.mark.parametrize("pixel_size", [0.5, 0.8])
def test_elements_and_regions_with_their_pixel_size(pixel_size, no_warning):
    sdata = draw(pixel_size=pixel_size)
    regions = find_regions(sdata)
    pairs = [(region.image_key, region.labels_key) for region in regions]
    assert pairs == [("fov1", "fov1_labels"), ("fov2", "fov2_labels")]
    assert [region.pixel_size for region in regions] == pytest.approx([pixel_size] * 2)
    assert sorted(sdata.coordinate_systems) == ["fov1", "fov1_um", "fov2", "fov2_um"]
    for image, labels in pairs:
        assert sdata[image].shape == (4, 140, 160) and sdata[image].dtype == np.uint16
        assert list(sdata[image].coords["c"].values) == list(PANEL)
        assert sdata[labels].shape == (140, 160)
    assert not np.array_equal(sdata["fov1"], sdata["fov2"])


def test_each_segmented_cell_has_a_row_with_its_mean_intensity(sdata):
    table = sdata["table"]
    assert list(table.var_names) == list(PANEL)
    assert table.uns["spatialdata_attrs"]["region"] == ["fov1_labels", "fov2_labels"]
    for name in sdata.labels:
        rows = table[table.obs["region"] == name]
        image, labels, ids = sdata[name.removesuffix("_labels")].values, sdata[name].values, rows.obs["instance_id"]
        np.testing.assert_array_equal(ids, np.unique(labels)[1:])
        assert list(rows.obs_names) == [f"{name}_{i}" for i in ids]
        np.testing.assert_allclose(rows.X[6], image[:, labels == 7].mean(axis=1), rtol=1e-6)
    # CD68 is counted.
    counts, grey = sdata["fov1"].sel(c="CD68").values, sdata["fov1"].sel(c="CD3").values
    assert counts.max() < 100 and (counts == 0).mean() > 0.2 and grey.max() > 1000


def test_gold_follows_the_cell_types(sdata):
    table = sdata["table"]
    gold = table.to_df(layer="gold")
    assert set(np.unique(gold)) <= {0, 0.5, 1}
    kinds = table.obs["cell_type"]
    assert set(kinds.cat.categories) == set(TYPES)
    assert (kinds == "B cell").sum() > 2 * (kinds == "macrophage").sum(), "frequencies of 2 and 0.5"
    for name, (_, markers) in TYPES.items():
        assert (kinds == name).sum() > 5
        for marker in ("CD3", "CD20", "CD68"):
            states = gold.loc[kinds == name, marker]
            assert set(states) <= ({1, 0.5} if marker in markers else {0}), (name, marker)
    # A marker of no type has a prevalence of its own.
    assert 0.2 < (gold["Ki67"] > 0).mean() < 0.4
    # Bright markers of well segmented cells can be seen.
    for name, marker in (("T cell", "CD3"), ("B cell", "CD20")):
        assert (gold.loc[kinds == name, marker] == 1).mean() > 0.9
        assert np.median(table[kinds == name, marker].X) > 3 * np.median(table[kinds == "other", marker].X)


def test_what_cannot_be_drawn_is_an_error():
    for panel, types, n_regions in (({}, TYPES, 1), (PANEL, {}, 1), (PANEL, TYPES, 0)):
        with pytest.raises(ValueError, match="At least one marker, one cell type and one region"):
            simulate(panel, types, n_regions=n_regions)
    with pytest.raises(KeyError, match=r"'CD33'.*'CD3', 'CD20'"):
        simulate(PANEL, {"T cell": (1.0, ("CD3", "CD33"))}, n_regions=1)
    # Nothing may be segmented.
    assert draw(segmentation=Segmentation(missing=1.0))["table"].shape == (0, 4)
