"""Checks of clusters: numbers that can be told by hand, and simulated tissue whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import ndimage, sparse

import nimbus_sd as ns

LEAK = 0.4
LIGHT = 100.0


def touching(clusters, shares, scores, light, region=None) -> AnnData:
    """Cells of one marker, each with a bright positive neighbour of its own in cluster "source".

    They share ``shares`` of the perimeter. To ``light``, the cells' own, the neighbour adds its part; background is 10.
    """
    n, shares = len(clusters), np.array(shares, float)
    background = 10 + 1000 * np.array(region or [0] * n)
    signal = [light + LEAK * shares * LIGHT + background, LIGHT + background]
    shared = sparse.diags_array(20 * shares)
    obs = {"cluster": pd.Categorical([*clusters, *["source"] * n]), "perimeter": 20.0}
    if region:
        obs["region"] = [f"r{i}" for i in region] * 2
    return AnnData(
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(2 * n)]),
        var=pd.DataFrame(index=["CD3"]),
        layers={
            "nimbus": np.array([*scores, *[0.9] * n], np.float32)[:, None],
            "integrated_expression": np.concatenate(signal).astype(np.float32)[:, None],
        },
        obsp={"boundary": sparse.csr_matrix(sparse.block_array([[None, shared], [shared, None]]), dtype=np.float32)},
    )


def spilled() -> AnnData:
    """Cluster "none": negative, 30 without and 30 with contact. "made": positive by contact only. "real": own light."""
    return touching(
        ["none"] * 60 + ["made"] * 10 + ["real"] * 10,
        [0] * 30 + [0.5] * 30 + [0.75] * 10 + [0.5] * 10,
        [0.1] * 60 + [0.8] * 20,
        [0] * 70 + [80] * 10,
    )


def check(adata, *checks, **given) -> pd.DataFrame:
    return ns.tl.cluster_checks(adata, "cluster", checks=checks, **given)


def test_signal_that_neighbours_explain_is_spill_over():
    adata = spilled()
    table = check(adata, "spill_over")
    (row,) = table.itertuples(index=False)
    assert (row.cluster, row.check, row.markers, row.cells, row.concern) == ("made", "spill_over", "CD3", 10, 1)
    assert row.value == pytest.approx(1)
    # Light of 80 sources; the real ones' 80 + 20, of which 20 comes over; and the made ones' 30. Both are positive and
    # shine back on ten sources each.
    explained = 10 * (20 + 30) + 10 * LEAK * (0.5 * 100 + 0.75 * 30)
    assert row.expected == pytest.approx(explained / (80 * 100 + 10 * 100 + 10 * 30), rel=1e-5)
    assert row.reason.startswith("10 of the 10 cells positive for CD3 owe more than half of its signal to positive")
    assert adata.uns["cluster_checks"]["leak"].loc["CD3", "leak"] == pytest.approx(LEAK, rel=1e-5)


def test_each_region_has_its_own_background():
    clusters = ["none"] * 60 + ["made"] * 10
    shares, scores, light = [0] * 30 + [0.5] * 30 + [0.75] * 10, [0.1] * 60 + [0.8] * 10, [0] * 70
    adata = touching(clusters * 2, shares * 2, scores * 2, light * 2, [0] * 70 + [1] * 70)
    table = check(adata, "spill_over")
    assert table["value"].tolist() == [pytest.approx(1)] and table["cells"].tolist() == [20]
    assert adata.uns["cluster_checks"]["leak"].loc["CD3", "leak"] == pytest.approx(LEAK, rel=1e-4)


def test_the_worst_comes_first_and_stays_so_on_disk(from_disk):
    adata = spilled()
    # Without a finding, too.
    assert check(adata, "contradiction").empty and from_disk(adata).uns["cluster_checks"]["table"].empty
    adata.obs["other"] = np.random.default_rng(0).permutation(adata.obs["cluster"].astype(str))
    first = ns.tl.cluster_checks(adata, "cluster", others="other")
    assert first["concern"].is_monotonic_decreasing and set(first["check"]) == {"spill_over", "stability"}
    read = from_disk(adata)
    assert read.uns["cluster_checks"]["table"]["reason"].tolist() == first["reason"].tolist()
    # What was read is still known as ours, and the same call gives the same.
    pd.testing.assert_frame_equal(ns.tl.cluster_checks(read, "cluster", others="other"), first)


def test_only_cells_outside_the_cluster_spill_over_into_it():
    joined, unassigned = spilled(), spilled()
    joined.obs["cluster"] = joined.obs["cluster"].replace("source", "made")
    # Those without contact are real, and their neighbours are of another cluster.
    assert "made" not in set(check(joined, "spill_over")["cluster"])
    unassigned.obs["cluster"] = unassigned.obs["cluster"].cat.remove_categories("source")
    assert check(unassigned, "spill_over")[["cluster", "cells"]].to_numpy().tolist() == [["made", 10]]


def test_dim_cells_without_contact_are_listed_as_dim():
    adata = touching(
        ["none"] * 60 + ["dim"] * 8 + ["bright"] * 12,
        [0] * 30 + [0.5] * 30 + [0] * 20,
        [0.1] * 60 + [0.8] * 20,
        [0] * 60 + [20] * 8 + [100] * 12,
    )
    table = check(adata, "dim", "spill_over")
    (row,) = table.itertuples(index=False)
    assert (row.cluster, row.check, row.markers, row.cells, row.value) == ("dim", "dim", "CD3", 8, 1)
    # All positive cells: 8, 12, and 80 sources.
    assert row.expected == pytest.approx(8 / 100)
    # The same cells with a positive neighbour at a tenth of the perimeter are no longer without contact.
    boundary = adata.obsp["boundary"].tolil()
    boundary[60:68] = boundary[30:38]
    adata.obsp["boundary"] = boundary.tocsr()
    assert check(adata, "dim").empty


def calls(**markers) -> AnnData:
    """Cells of cluster "a" (the first 20) and "b" (the next 80), positive for a marker where its text has a 1."""
    scores = np.array([[float(letter) for letter in text] for text in markers.values()], np.float32).T
    return AnnData(
        obs=pd.DataFrame({"cluster": ["a"] * 20 + ["b"] * 80}, index=[f"c{i}" for i in range(100)]),
        var=pd.DataFrame(index=list(markers)),
        layers={"nimbus": scores},
    )


def test_markers_that_exclude_each_other_in_a_cell_or_in_a_cluster():
    adata = calls(CD3="1" * 20 + "0" * 80, CD20="1" * 8 + "0" * 12 + "1" * 80, CD31="0" * 100)
    (row,) = check(adata, "contradiction").itertuples(index=False)
    assert check(adata, "contradiction", exclusive=("CD3", "CD20"))["cells"].to_list() == [8]
    assert check(adata, "contradiction", exclusive=[("CD3", "CD31")]).empty
    assert row[:-1] == ("a", "contradiction", "CD3, CD20", 0.4, 0.08, 8, 0.4)
    assert row.reason.startswith("8 of 20 cells (40%) are positive for both CD3 and CD20, which exclude each other; 8%")
    adata = calls(CD4="1" * 10 + "0" * 90, CD8="0" * 10 + "1" * 10 + "0" * 80)
    (row,) = check(adata, "contradiction").itertuples(index=False)
    # Half have the one, half the other: a quarter would have each alone by chance.
    assert row[:-1] == ("a", "mixture", "CD4, CD8", 0.5, 0.25, 10, 0.5)


def test_cells_that_are_not_scored_are_not_counted():
    adata = calls(CD3="1" * 20 + "0" * 80, CD20="1" * 8 + "0" * 92, CD31="0" * 100)
    adata.layers["nimbus"][:4, 1] = adata.layers["nimbus"][:, 2] = np.nan
    for given, expected in (
        ({"min_cells": 4}, [[4, 0.25]]),
        ({"min_cells": 5}, []),
        ({"min_cells": 1, "min_share": 0.3}, []),
    ):
        with pytest.warns(UserWarning, match="not judged; of 100 cells: CD20 4, CD31 100") as caught:
            table = check(adata, "contradiction", **given)
        assert len(caught) == 1 and caught[0].filename == __file__
        assert table[["cells", "value"]].to_numpy().tolist() == expected


def test_known_pairs_are_found_under_their_names():
    names = ("CD8a", "cd4", "x", "kappa", "Lambda light chain", "CD45RA", "CD3ε", "MS4A1", "PTPRC")
    adata = calls(**dict.fromkeys(names, "0" * 100))
    check(adata, "contradiction")
    pairs = ["CD3ε, MS4A1", "cd4, CD8a", "kappa, Lambda light chain"]
    assert adata.uns["cluster_checks"]["params"]["exclusive"] == pairs


def test_stability_is_the_best_jaccard_index():
    adata = calls(CD3="0" * 100)
    # No scores are asked for.
    adata.layers["nimbus"][:] = np.nan
    adata.obs["same"] = adata.obs["cluster"].map({"a": "x", "b": "y"})
    adata.obs["split"] = ["x"] * 12 + ["y"] * 10 + ["z"] * 78
    adata.obs["coarse"] = ["x"] * 60 + ["y"] * 40
    (row,) = check(adata, "stability", others="split").itertuples(index=False)
    # "b" has 78 of its 80 cells in "z".
    assert (row.cluster, row.check, row.markers, row.cells) == ("a", "stability", "", 8)
    assert (row.value, row.concern) == (0.6, 0.4)
    # A shuffled "z", 78 of 100 cells, has about 15.6 of the 20.
    assert row.expected == pytest.approx(15.6 / (20 + 78 - 15.6), abs=0.02)
    assert "the best match, 'x', has 12 of the 20 cells and 0 of other clusters (Jaccard index 0.60)" in row.reason
    table = check(adata, "stability", others=["same", "split", "coarse"]).set_index("cluster")
    assert table.loc["a", "value"] == pytest.approx((1 + 0.6 + 20 / 60) / 3)
    assert "in obs['coarse'] the best match, 'x', has 20 of the 20 cells and 40 of" in table.loc["a", "reason"]
    # Cells that one of the two lacks do not count.
    adata.obs["partly"] = ["x"] * 10 + [None] * 60 + ["y"] * 30
    for stable in ("same", "partly"):
        assert check(adata, "stability", others=stable).empty


def test_few_cells_in_contact_leave_a_marker_unchecked(caplog):
    adata = touching(["none"] * 40, [0.5] * 19 + [0] * 21, [0.1] * 40, [0] * 40)
    assert check(adata, "spill_over", "dim").empty
    assert adata.uns["cluster_checks"]["not_checked"] == ["CD3"]
    assert "no spill-over is known of CD3" in caplog.text


@pytest.mark.parametrize(("slot", "key"), [("obsp", "boundary"), ("obs", "perimeter")])
def test_checks_of_contact_need_the_features_of_cells(slot, key):
    adata = spilled()
    del getattr(adata, slot)[key]
    with pytest.raises(KeyError, match=rf"{slot}\['{key}'\].*tl.cell_features\(sdata\)"):
        ns.tl.cluster_checks(adata, "cluster")
    assert check(adata, "contradiction").empty


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"checks": ["spill"]}, ValueError, r"`checks` has \['spill'\]; there are \['spill_over'"),
        ({"threshold": 0}, ValueError, "`threshold` is 0"),
        ({"min_share": 1.5}, ValueError, "`min_share` is 1.5; it must be a number in"),
        ({"min_cells": 0}, ValueError, "`min_cells` is 0"),
        ({"rng": "0"}, ValueError, "`rng` is '0'; it must be a seed"),
        ({"others": "cluster"}, ValueError, r"`others` names obs\['cluster'\] itself"),
        ({"exclusive": "CD3"}, ValueError, "`exclusive` has 'CD3'; each must be two different markers"),
        ({"exclusive": [("CD3", "CD4")]}, KeyError, "no channel 'CD4'.*Did you mean 'CD3'"),
        ({"key_added": "mine"}, ValueError, "did not make"),
        ({"groupby": "my/clusters"}, ValueError, "'my/clusters_checks', which cannot be written"),
        ({"groupby": "none"}, ValueError, "no cluster"),
        # A layer without scores is no clean bill of health.
        ({"layer": "unscored", "checks": ["contradiction"]}, ValueError, "'unscored' has no score of any cell"),
    ],
)
def test_wrong_arguments(given, error, message):
    adata = spilled()
    adata.uns["mine"], adata.layers["unscored"] = {"tool": "another"}, np.full(adata.shape, np.nan)
    adata.obs["none"], adata.obs["my/clusters"] = np.nan, "x"
    with pytest.raises(error, match=message):
        ns.tl.cluster_checks(adata, **{"groupby": "cluster"} | given)
    assert list(adata.uns) == ["mine"]


def test_on_tissue_the_cells_made_positive_by_neighbours_are_found():
    """Calls by brightness alone: where no cell of a type has the marker, positive ones are spill-over."""
    sdata = ns.datasets.example()
    adata = ns.tl.cell_features(sdata, channels=["CD45", "CD20"], progress=False)
    means, bright = (np.full(adata.shape, np.nan, np.float32) for _ in range(2))
    for name in ("CD45", "CD20"):
        i = adata.var_names.get_loc(name)
        for fov in ("fov1", "fov2"):
            here = (adata.obs["region"] == f"{fov}_labels").to_numpy()
            pixels, labels = sdata[fov].sel(c=name).to_numpy(), sdata[f"{fov}_labels"].to_numpy()
            means[here, i] = ndimage.mean(pixels.astype(float), labels, adata.obs["instance_id"][here])
        gold = adata.layers["gold"][:, i]
        bright[:, i] = means[:, i] > (np.median(means[gold > 0.5, i]) + np.median(means[gold < 0.5, i])) / 4
    adata.layers["integrated_expression"], adata.layers["bright"] = means, bright

    with pytest.warns(UserWarning, match="not judged; of 1,600 cells: DAPI 1,600, CD3"):
        table = ns.tl.cluster_checks(adata, "cell_type", layer="bright", checks=["spill_over"])
    found = table.set_index(["cluster", "markers"])
    for cell_type in ("CD4 T cell", "CD8 T cell"):
        assert found.loc[(cell_type, "CD20"), "value"] > 2 * found.loc[(cell_type, "CD20"), "expected"]
    # Those that express it do not owe it to others, though they touch each other.
    assert ("B cell", "CD20") not in found.index
    entry = adata.uns["cell_type_checks"]
    assert 0.1 < entry["leak"].loc["CD20", "leak"] < 0.9
    assert set(entry["not_checked"]) == set(adata.var_names) - {"CD45", "CD20"}
