"""The packaged example."""

import numpy as np
import pytest

import nimbus_sd as ns
from nimbus_sd.spatial import find_regions


@pytest.fixture(scope="module")
def example():
    return ns.datasets.example()


def test_it_is_what_its_documentation_says(example, no_warning):
    assert sorted(example.images) == ["fov1", "fov2"]
    assert sorted(example.labels) == ["fov1_labels", "fov2_labels"]
    for name in example.images:
        assert example[name].shape == (8, 512, 512)
    table = example["table"]
    # "About 2,000 cells".
    assert 1550 < table.n_obs < 1650
    assert list(table.var_names) == ["DAPI", "CD45", "CD3", "CD8", "CD20", "CD68", "PanCK", "Ki67"]
    regions = find_regions(example)
    assert [(region.image_key, region.pixel_size) for region in regions] == [("fov1", 0.5), ("fov2", 0.5)]


def test_markers_differ_in_prevalence_noise_and_place(example):
    gold = example["table"].to_df(layer="gold")
    share = (gold == 1).sum() / (gold != 0.5).sum()
    assert share["DAPI"] == 1
    assert 0.02 < share["Ki67"] < 0.06
    assert share.drop("DAPI").between(0.02, 0.75).all() and share.nunique() == 8
    assert ((gold == 0.5).mean() < 0.15).all()
    # Ion counts beside grey levels.
    counts, grey = (example["fov1"].sel(c=name).values for name in ("CD68", "CD3"))
    assert counts.max() < 200 < grey.max()


def test_cell_types_and_truth_agree(example):
    table = example["table"]
    gold, kinds = table.to_df(layer="gold"), table.obs["cell_type"]
    assert len(kinds.cat.categories) == 6
    # Merged cells have one type but the truth of two, and are undetermined.
    for name, positive, negative in (
        ("CD4 T cell", {"CD3", "CD45"}, {"CD8", "CD20", "CD68", "PanCK"}),
        ("CD8 T cell", {"CD3", "CD8", "CD45"}, {"CD20", "CD68", "PanCK"}),
        ("B cell", {"CD20", "CD45"}, {"CD3", "CD8", "CD68", "PanCK"}),
        ("epithelium", {"PanCK"}, {"CD45", "CD3", "CD8", "CD20", "CD68"}),
    ):
        own = gold[kinds == name]
        assert (own[sorted(positive)] >= 0.5).all(axis=None), name
        assert (own[sorted(negative)] <= 0.5).all(axis=None), name


def test_positive_cells_are_brighter(example):
    table = example["table"]
    gold = table.layers["gold"]
    for i, name in enumerate(table.var_names):
        if (gold[:, i] == 0).any():
            positive, negative = (table.X[gold[:, i] == state, i] for state in (1, 0))
            assert np.median(positive) > 1.5 * np.median(negative), name


def test_it_is_the_same_each_time(example):
    again = ns.datasets.example()
    for name in (*example.images, *example.labels):
        assert example[name].values.tobytes() == again[name].values.tobytes()
    np.testing.assert_array_equal(example["table"].layers["gold"], again["table"].layers["gold"])
    assert example["table"].obs.equals(again["table"].obs)
