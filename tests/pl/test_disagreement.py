"""Crops of cells about which score and mean disagree."""

import numpy as np
import pytest

import nimbus_sd as ns


@pytest.fixture
def uneven(make_sdata, annotate):
    """Eight cells in a row: two plainly positive, one dim positive, four negative, one of them bright."""
    labels = np.zeros((40, 90), np.int64)
    for i in range(8):
        labels[15:25, 2 + 11 * i : 12 + 11 * i] = i + 1
    means = np.array([100, 90, 30, 10, 12, 8, 11, 95], np.float32)
    image = np.concatenate([[0], means])[labels].astype(np.uint16)[None]
    sdata = make_sdata({"a": image}, {"a_cells": labels}, ("CD3",))
    scores = np.array([0.9, 0.95, 0.8, 0.1, 0.1, 0.1, np.nan, 0.2], np.float32)[:, None]
    table = annotate(range(1, 9), ["a_cells"] * 8, ("CD3",), nimbus=scores, integrated_expression=means[:, None])
    table.obsm["spatial"] = np.array([[7.0 + 11 * i, 20.0] for i in range(8)])
    sdata.tables["table"] = table
    return sdata


@pytest.mark.parametrize(
    ("kind", "first", "mean"), [("dim", "0.80", (30 - 11) / 79), ("bright", "0.20", (95 - 11) / 79)]
)
def test_only_cells_that_disagree_are_shown(uneven, kind, first, mean):
    # The medians of called negatives (10, 12, 8, 95) and positives (100, 90, 30) are 11 and 90.
    axes = ns.pl.disagreement(uneven, kind, width=20)
    assert [ax.get_title() for ax in axes] == [f"CD3: score {first}\nrelative mean {mean:.2f}"]


def test_the_most_extreme_cell_comes_first(uneven):
    uneven["table"].layers["integrated_expression"][4] = 80
    titles = [ax.get_title() for ax in ns.pl.disagreement(uneven, "bright", width=20)]
    # The median negative is (10 + 80) / 2 now.
    assert [text.split()[-1] for text in titles] == [f"{(95 - 45) / 45:.2f}", f"{(80 - 45) / 45:.2f}"]
    assert len(ns.pl.disagreement(uneven, "bright", n_cells=1, width=20)) == 1


def test_a_score_near_one_half_has_three_digits(uneven):
    uneven["table"].layers["nimbus"][7] = 0.497
    assert ns.pl.disagreement(uneven, "bright")[0].get_title().startswith("CD3: score 0.497\n")


def test_agreement_is_said(uneven):
    uneven["table"].layers["nimbus"][7] = 0.9
    with pytest.raises(ValueError, match=r"No cell called negative for CD3 has a relative mean above 0.5"):
        ns.pl.disagreement(uneven, "bright")


def test_slivers_are_left_out(uneven):
    # A third of the median is kept.
    uneven["table"].obs["area"] = [90.0, 90, 90, 90, 90, 90, 90, 30]
    assert len(ns.pl.disagreement(uneven, "bright")) == 1
    uneven["table"].obs.loc["cell7", "area"] = 29.9
    with pytest.raises(ValueError, match="nothing to show"):
        ns.pl.disagreement(uneven, "bright")


def outlined(ax) -> np.ndarray:
    """Vertices of the cell's outline."""
    (outline,) = [c for c in ax.collections if c.get_paths()]
    return outline.get_paths()[0].vertices


def test_cells_are_found_where_the_labels_are_finer_than_the_image(uneven):
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Identity, Scale

    table = uneven["table"]
    # Far apart, so that a crop around the wrong place does not hold the cell.
    image = np.repeat(np.repeat(uneven["a"].values, 2, 1), 2, 2)
    fine = np.repeat(np.repeat(uneven["a_cells"].values, 4, 0), 4, 1)
    table.obsm["spatial"] = table.obsm["spatial"] * 2
    half = Scale([0.5, 0.5], axes=("y", "x"))
    sdata = SpatialData(
        images={"a": Image2DModel.parse(image, c_coords=["CD3"], transformations={"a": Identity()})},
        labels={"a_cells": Labels2DModel.parse(fine, dims=("y", "x"), transformations={"a": half})},
        tables={"table": table},
    )
    (crop,) = ns.pl.disagreement(sdata, "bright", width=60)
    pixels = np.asarray(crop.images[0].get_array())
    # The eighth cell, 40 pixels wide, is the only one that is as bright as this.
    inside = outlined(crop).round().astype(int)
    assert (pixels == 95).sum() == 40 * 40
    assert (np.ptp(inside, axis=0) >= 39).all()


def test_a_place_that_is_not_the_cells_is_an_error(uneven):
    uneven["table"].obsm["spatial"] = uneven["table"].obsm["spatial"] * 0.1
    with pytest.raises(ValueError, match=r"Cell 8 of 'a_cells' is not around its place"):
        ns.pl.disagreement(uneven, "bright", width=20)


def test_the_table_may_call_its_columns_as_it_likes(uneven):
    expected = outlined(ns.pl.disagreement(uneven, "bright", width=20)[0])
    table = uneven["table"].copy()
    table.obs = table.obs.rename(columns={"region": "fov", "instance_id": "label"})
    table.uns["spatialdata_attrs"] = {"region": ["a_cells"], "region_key": "fov", "instance_key": "label"}
    uneven.tables["table"] = table
    np.testing.assert_array_equal(outlined(ns.pl.disagreement(uneven, "bright", width=20)[0]), expected)


def test_sparse_layers_will_do(uneven):
    from scipy import sparse

    expected = ns.pl.disagreement(uneven, "bright")[0].get_title()
    layers = uneven["table"].layers
    layers["integrated_expression"] = sparse.csr_matrix(layers["integrated_expression"])
    assert ns.pl.disagreement(uneven, "bright")[0].get_title() == expected


def test_crops_stay_in_the_image_and_show_the_cell(uneven):
    for here in ns.pl.disagreement(uneven, "bright", n_cells=4, width=20):
        assert here.images[0].get_array().shape == (20, 20)
        assert outlined(here).size


def test_it_draws_on_given_axes(uneven):
    import matplotlib.pyplot as plt

    uneven["table"].layers["integrated_expression"][4] = 80
    assert len(ns.pl.disagreement(uneven, "bright")) == 2
    # As many cells as there are axes, and as many axes as there are cells.
    for n in (1, 3):
        axes = plt.subplots(1, n, squeeze=False)[1].ravel()
        drawn = ns.pl.disagreement(uneven, "bright", width=10, ax=axes)
        assert len(drawn) == min(n, 2) and all(a is b for a, b in zip(drawn, axes, strict=False))
        assert [ax.get_visible() for ax in axes] == [i < 2 for i in range(n)]


def test_what_is_not_there_is_named(uneven):
    with pytest.raises(ValueError, match="'dim' or 'bright'"):
        ns.pl.disagreement(uneven, "wrong")
    with pytest.raises(KeyError, match=r"no column \['CD4'\]; there are \['CD3'\]"):
        ns.pl.disagreement(uneven, channels=["CD4"])
    for n in (0, -3):
        with pytest.raises(ValueError, match="`n_cells`"):
            ns.pl.disagreement(uneven, n_cells=n)
    with pytest.raises(KeyError, match="no layer 'other'"):
        ns.pl.disagreement(uneven, layer="other")
    uneven.tables["table"].layers["nimbus"][:] = 0.1
    with pytest.raises(ValueError, match="None of CD3"):
        ns.pl.disagreement(uneven)
    del uneven.tables["table"].obsm["spatial"]
    with pytest.raises(KeyError, match=r"no obsm\['spatial'\]"):
        ns.pl.disagreement(uneven)
