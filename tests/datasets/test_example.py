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
    assert share["DAPI"] == 1 and 0.02 < share["Ki67"] < 0.06
    assert share.drop("DAPI").between(0.02, 0.75).all() and share.nunique() == 8
    assert ((gold == 0.5).mean() < 0.15).all()
    # Ion counts beside grey levels.
    counts, grey = (example["fov1"].sel(c=name).values for name in ("CD68", "CD3"))
    assert counts.max() < 200 < grey.max()
    for name in gold.columns.drop("DAPI"):
        positive, negative = (table[gold[name] == state, name].X for state in (1, 0))
        assert np.median(positive) > 1.5 * np.median(negative), name


def test_cell_types_and_truth_agree(example):
    gold, kinds = example["table"].to_df("gold"), example["table"].obs["cell_type"]
    assert len(kinds.cat.categories) == 6
    for name, positive in (("CD4 T cell", {"CD3", "CD45"}), ("B cell", {"CD20", "CD45"}), ("epithelium", {"PanCK"})):
        of_type = gold.loc[kinds == name, ["CD45", "CD3", "CD8", "CD20", "CD68", "PanCK"]]
        # Merged cells have one type but the truth of two, and are undetermined.
        for marker, labels in of_type.items():
            assert (labels >= 0.5).all() if marker in positive else (labels <= 0.5).all(), (name, marker)
