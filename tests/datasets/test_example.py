"""The packaged example."""

import numpy as np
import pytest

import nimbus_sd as ns
from nimbus_sd.spatial import find_regions


@pytest.fixture(scope="module")
def example():
    return ns.datasets.example()


def test_it_is_what_its_documentation_says_each_time(example, no_warning):
    table = example["table"]
    assert sorted(example.labels) == ["fov1_labels", "fov2_labels"] and 1550 < table.n_obs < 1650
    assert list(table.var_names) == ["DAPI", "CD45", "CD3", "CD8", "CD20", "CD68", "PanCK", "Ki67"]
    regions = find_regions(example)
    assert [(region.image_key, region.pixel_size) for region in regions] == [("fov1", 0.5), ("fov2", 0.5)]
    again = ns.datasets.example()
    for name in (*example.images, *example.labels):
        assert example[name].shape[-2:] == (512, 512)
        assert example[name].values.tobytes() == again[name].values.tobytes()
    np.testing.assert_array_equal(table.layers["gold"], again["table"].layers["gold"])
    assert table.obs.equals(again["table"].obs)


def test_markers_differ_in_prevalence_and_noise_and_positive_cells_are_brighter(example):
    table = example["table"]
    gold = table.to_df("gold")
    share = (gold == 1).sum() / (gold != 0.5).sum()
    assert share["DAPI"] == 1 and share.drop("DAPI").between(0.02, 0.75).all() and share.nunique() == 8
    assert ((gold == 0.5).mean() < 0.15).all()
    for name in gold.columns.drop("DAPI"):
        positive, negative = (table[gold[name] == state, name].X for state in (1, 0))
        assert np.median(positive) > 1.5 * np.median(negative), name
