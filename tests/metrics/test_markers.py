"""Agreement of a layer with the truth: as scikit-learn has it, in groups and averaged."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_tables import judged, metrics_of_sklearn, table
from scipy import sparse

from nimbus_sd.metrics import find_threshold, marker_metrics

NAN = float("nan")
RATES = ["precision", "recall", "specificity", "f1", "accuracy", "auroc", "average_precision"]


def row(pred, gold, **options) -> pd.Series:
    return marker_metrics(table(nimbus=pred, gold=gold), **options).loc["CD3"]


def tissue(regions: int = 8, cells: int = 30, seed: int = 0) -> AnnData:
    """Three markers, the last never positive; two data sets of half the regions; two cell types in every region."""
    rng = np.random.default_rng(seed)
    n = regions * cells
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1], (n, 3), p=[0.5, 0.1, 0.1, 0.1, 0.2]).astype(np.float32)
    gold[:, 2] = np.minimum(gold[:, 2], 0.25)
    ability = rng.normal(1.5, 0.7, regions).repeat(cells)[:, None]
    scores = 1 / (1 + np.exp(-((gold - 0.5) * 2 * ability + rng.normal(size=(n, 3)))))
    scores[rng.random((n, 3)) < 0.02] = NAN
    adata = table(nimbus=scores, gold=gold)
    number = np.arange(regions).repeat(cells)
    adata.obs["region"] = [f"fov{i}" for i in number]
    dataset = np.where(number < regions / 2, "colon", "breast")
    adata.obs["dataset"] = pd.Categorical(dataset, ["colon", "breast", "none"])
    adata.obs["cell_type"] = rng.choice(["T", "B"], n)
    return adata


@pytest.mark.filterwarnings("ignore:Layer 'nimbus' has values outside")
@pytest.mark.parametrize(
    ("pred", "gold", "options", "expected"),
    [
        # Undetermined and missing cells are left out.
        ([0.9, 0.9, 0.9, NAN, 0.1, np.inf], [1, 0.5, NAN, 1, 0, 1], {}, {"cells": 2, "f1": 1, "specificity": 1}),
        ([0.9, 0.9, 0.1, 0.1], [0.75, 0.25, 0.25, 1], {}, {"cells": 4, "share_positive": 0.5, "precision": 0.5}),
        ([0.9, 0.1, 0.1, 0.9], [1, 0.75, 0, 0.25], {"likely": False}, {"cells": 2, "positives": 1, "f1": 1}),
        # Without positive cells there is only specificity, without negative cells none; nor AUROC.
        ([0.9, 0.1, 0.2, 0.3], [0, 0, 0, 0], {}, {**dict.fromkeys(RATES, NAN), "specificity": 0.75, "positives": 0}),
        ([0.9, 0.1], [1, 1], {}, {"specificity": NAN, "auroc": NAN, "precision": 1, "recall": 0.5, "f1": 2 / 3}),
        # Who calls nobody has no precision to boast of.
        ([0.1, 0.2], [0, 1], {}, {"precision": 0, "recall": 0, "f1": 0}),
        ([NAN, NAN, NAN], [0, 1, 1], {"n_boot": 10}, {"cells": 0, **dict.fromkeys([*RATES, "f1_low", "f1_high"], NAN)}),
        ([0.3, 0.29], [1, 0], {"threshold": 0.3}, {"f1": 1}),
        ([5.0, 5.0], [1, 0], {"threshold": "otsu"}, {"f1": 0, "specificity": 1}),
        ([NAN, NAN], [1, 0], {"threshold": "otsu"}, {"cells": 0, "threshold": np.inf}),
    ],
)
def test_which_cells_count(pred, gold, options, expected):
    assert row(pred, gold, **options)[list(expected)].to_dict() == pytest.approx(expected, nan_ok=True)


def test_otsu_splits_all_values_of_the_channel():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 1, 300), rng.normal(60, 5, 100)])
    # The threshold is the lab's: it does not depend on who was judged.
    few = np.full(400, NAN)
    few[[0, 1, 300, 301]] = [0, 0, 1, 1]
    found = row(values, few, threshold="otsu")
    assert found["threshold"] == find_threshold(np.float32(values), "otsu") and found["f1"] == 1


def test_layers_by_name_and_kind():
    adata = table(nimbus=[0.0, 1.0], gold=[1, 0], integrated_expression=[9.0, 2.0], silver=[0.0, 1.0])
    assert marker_metrics(adata)["f1"].item() == 0
    assert marker_metrics(adata, "integrated_expression", threshold="otsu")["f1"].item() == 1
    assert marker_metrics(adata, truth="silver")["f1"].item() == 1
    adata.layers["sparse"] = sparse.csr_matrix(1 - adata.layers["nimbus"])
    adata.layers["called"] = adata.layers["nimbus"] < 0.5
    for name in ("sparse", "called"):
        assert marker_metrics(adata, name)["f1"].item() == 1
    # Undetermined cells of silver are no answer.
    adata = table(nimbus=[0.9, 0.5, 0.1], gold=[1, 0, 0], silver=[1, 0.5, 0.25])
    found = marker_metrics(adata, ["nimbus", "silver"])
    assert found[["cells", "specificity"]].to_numpy().tolist() == [[3, 0.5], [2, 1]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pred": "nimbos"}, KeyError, r"no layer 'nimbos'; there are \['gold', 'nimbus', 'words'\]"),
        ({"pred": "words"}, TypeError, "Layer 'words' holds <U1; it must hold numbers"),
        ({"pred": []}, ValueError, "names no layer"),
        ({"threshold": "triangle"}, ValueError, r"'triangle'; it must be a number, .*'otsu', 'mixture'"),
        *(({"threshold": cut}, ValueError, "`threshold` is") for cut in (NAN, {"CD3": NAN}, None, True, "0.5")),
        ({"by": ["tissue", "region", "sex"]}, KeyError, r"no column 'tissue', 'sex'; it has \['region'\]"),
        ({"n_boot": 10, "region_key": "fov"}, KeyError, "no column 'fov'"),
        ({"average": "micro"}, ValueError, "`average` is 'micro'"),
        ({"n_boot": -1}, ValueError, "`n_boot` is -1"),
    ],
)
def test_bad_options(options, error, message):
    adata = table(nimbus=[1.0, 0.0], gold=[1, 0])
    adata.layers["words"] = np.array([["a"], ["b"]])
    with pytest.raises(error, match=message):
        marker_metrics(adata, **options)


def test_bad_tables():
    with pytest.raises(TypeError, match=r"a table of cells \(AnnData\) and was given dict"):
        marker_metrics({})
    for gold, options in (([NAN, 0.5], {}), ([0.75, 0.25], {"likely": False})):
        with pytest.raises(ValueError, match="'gold' labels no cell as positive or negative"):
            row([0.1, 0.9], gold, **options)
    for label in (-1.0, 2.0, np.inf):
        with pytest.raises(ValueError, match=r"'gold' holds labels from .*; they must be in \[0, 1\]"):
            row([0.1, 0.9, 0.2], [0, NAN, label])


@pytest.fixture
def two_channels() -> AnnData:
    return table(
        nimbus=[[0.9, 0.4], [0.6, 0.3], [0.2, 0.2], [0.1, 0.1]],
        gold=[[1, 1], [0, 1], [0, 0], [0, 0]],
        expression=[[90, 1], [20, 2], [30, 30], [10, 40]],
    )


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_a_threshold_for_each_channel(two_channels, kind):
    found = marker_metrics(two_channels, threshold=kind({"CD8": 0.25, "CD3": 0.7}))
    assert found["f1"].tolist() == [1, 1] and found["threshold"].tolist() == [0.7, 0.25]
    # Those that are not named.
    assert marker_metrics(two_channels, threshold=kind({"CD3": 0.7}))["threshold"].tolist() == [0.7, 0.5]
    found = marker_metrics(two_channels, threshold=kind({"CD3": 0.7, "*": "oracle"}))
    oracle = marker_metrics(two_channels, threshold="oracle")
    assert found["threshold"].tolist() == [0.7, oracle.loc["CD8", "threshold"]]
    with pytest.raises(KeyError, match=r"names 'CD4'; the channels are 'CD3', 'CD8', and '\*' is for all that are not"):
        marker_metrics(two_channels, threshold=kind({"CD3": 0.5, "CD4": 0.5}))
    with pytest.warns(UserWarning, match="'expression' has values outside .* threshold 0.5 is hardly meant"):
        marker_metrics(two_channels, "expression", threshold=kind({"CD3": 30}))


def test_a_threshold_for_each_layer(two_channels):
    thresholds = {"expression": {"CD3": 50, "CD8": 0}, "nimbus": "oracle"}
    found = marker_metrics(two_channels, ["nimbus", "expression"], threshold=thresholds)
    assert list(found.index) == [("nimbus", "CD3"), ("nimbus", "CD8"), ("expression", "CD3"), ("expression", "CD8")]
    assert found["f1"].tolist() == pytest.approx([1, 1, 1, 2 / 3])
    with pytest.raises(KeyError, match=r"layers \['expression'\] and lacks \['nimbus'\]"):
        marker_metrics(two_channels, ["nimbus", "expression"], threshold={"expression": "otsu"})


numbers = st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.7, 1.0, NAN])
labels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN])


@given(st.lists(st.tuples(numbers, labels), min_size=3, max_size=40), st.sampled_from([0.0, 0.2, 1.0]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_as_sklearn_has_it(cells, threshold, likely):
    values, gold = np.array([*cells, (0.4, 0), (0.6, 1)]).T
    adata = table(np.float64, nimbus=values, gold=gold)
    found = marker_metrics(adata, threshold=threshold, likely=likely).loc["CD3"]
    y, score = judged(adata, "nimbus", 0, likely)
    assert list(found.index) == ["cells", "positives", "share_positive", *RATES, "threshold"]
    assert (found["cells"], found["positives"], found["threshold"]) == (len(y), y.sum(), threshold)
    assert found[RATES].to_dict() == pytest.approx(metrics_of_sklearn(y, score, score >= threshold), nan_ok=True)


def test_warnings():
    with pytest.warns(UserWarning, match=r"Layer 'nimbus' has values outside \[0, 1\]") as caught:
        marker_metrics(table(nimbus=[50.0, 2.0], gold=[1, 0]))
    assert caught[0].filename == __file__
    adata = table(nimbus=[0.9, 0.1], gold=[1, 0])
    adata.obs["region"], adata.obs["nimbus_fitted"] = ["a", "b"], [True, True]
    # Calibrated from a layer that was adapted from itself.
    adata.uns["nimbus"] = {"fitted_on": ["a"], "params": {"region_key": "region", "layer": "raw"}}
    adata.uns["raw"] = {"fitted_cells": "nimbus_fitted", "params": {"layer": "raw"}}
    with pytest.warns(UserWarning) as caught:
        marker_metrics(adata)
    texts = [str(one.message) for one in caught]
    assert "fitted on the truth of region(s) 'a', and 50%" in texts[0] and "obs['nimbus_fitted'], and 100%" in texts[1]


def test_a_group_is_a_table_of_its_own():
    adata = tissue()
    adata.obs["fov"] = adata.obs["region"]
    found = marker_metrics(adata, by=["dataset", "cell_type"])
    assert found.index.names == ["dataset", "cell_type", "channel"]
    # In the order of the categories, without those that no cell has.
    groups = [("colon", "B"), ("colon", "T"), ("breast", "B"), ("breast", "T")]
    assert list(found.index.droplevel("channel").unique()) == groups
    for dataset, kind in groups:
        alone = adata[(adata.obs["dataset"] == dataset) & (adata.obs["cell_type"] == kind)]
        part = found.xs((dataset, kind), level=[0, 1])
        pd.testing.assert_frame_equal(part, marker_metrics(alone))
    # But a rule sees the whole table, and regions are those that it is annotated with.
    adata.uns["spatialdata_attrs"] = {"region_key": "fov"}
    del adata.obs["region"]
    found = marker_metrics(adata, by="fov", threshold="otsu")["threshold"]
    assert found.tolist() == marker_metrics(adata, threshold="otsu")["threshold"].tolist() * 8
    assert (marker_metrics(adata, n_boot=5)["n_regions"] == 8).all()


def test_the_papers_average_is_over_markers_and_then_over_groups():
    adata = tissue()
    each = marker_metrics(adata, by="dataset")
    found = marker_metrics(adata, by="dataset", average="macro")
    assert found.index.name == "dataset" and list(found.index) == ["colon", "breast", "mean"]
    for name in ("colon", "breast"):
        expected = each.loc[name]
        # The marker without positives counts for specificity and accuracy only.
        np.testing.assert_allclose(found.loc[name, RATES].astype(float), np.nanmean(expected[RATES], axis=0))
        assert np.isnan(expected.loc["CD20", "f1"]) and found.loc[name, "f1"] > 0
        assert found.loc[name, ["cells", "positives"]].tolist() == expected[["cells", "positives"]].sum().tolist()
    np.testing.assert_allclose(found.loc["mean", RATES], found.loc[["colon", "breast"], RATES].mean())
    assert found["cells"].dtype.kind == "i" and found.loc["mean", "cells"] == each["cells"].sum()
    assert (found["threshold"] == 0.5).all()
    assert np.isnan(marker_metrics(adata, threshold="otsu", average="macro")["threshold"].item())


def test_pooled_puts_all_markers_together():
    adata = tissue()
    found = marker_metrics(adata, by="dataset", average="pooled")
    assert list(found.index) == ["colon", "breast", "all"]
    for name, part in (("colon", adata[adata.obs["dataset"] == "colon"]), ("all", adata)):
        y, score = judged(part, "nimbus", slice(None))
        assert found.loc[name, "cells"] == len(y)
        assert found.loc[name, RATES].to_dict() == pytest.approx(metrics_of_sklearn(y, score, score >= 0.5))


def test_rows_of_averages():
    adata = tissue()
    assert [marker_metrics(adata, average=average).index.item() for average in ("macro", "pooled")] == ["mean", "all"]
    found = marker_metrics(adata, ["nimbus", "gold"], by=["dataset", "cell_type"], average="macro")
    assert found.index.names == ["layer", "dataset", "cell_type"] and len(found) == 2 * 5
    assert list(found.index[[4, 9]]) == [("nimbus", "mean", "mean"), ("gold", "mean", "mean")]
    assert marker_metrics(adata, by=["dataset", "cell_type"], average="pooled").index[-1] == ("all", "all")
    # Keys of groups keep their types.
    adata.obs["batch"], adata.obs["age"] = 1, 0.5
    key = marker_metrics(adata, by=["batch", "age"]).index[0]
    assert key == (1, 0.5, "CD3") and isinstance(key[0], int | np.integer)


def test_cells_without_a_group_are_left_out():
    adata = tissue()
    adata.obs.loc[adata.obs["cell_type"] == "B", "cell_type"] = None
    found = marker_metrics(adata, by="cell_type", average="pooled")
    alone = marker_metrics(adata[adata.obs["cell_type"] == "T"], average="pooled")
    assert list(found.index) == ["T", "all"]
    assert (found[["cells", "f1"]] == alone[["cells", "f1"]].to_numpy()).all(axis=None)
    adata.obs["cell_type"] = None
    with pytest.raises(ValueError, match="No cell has a value in `obs` 'cell_type'"):
        marker_metrics(adata, by="cell_type")


@pytest.mark.parametrize("average", [None, "macro", "pooled"])
def test_a_group_that_nobody_judged_has_no_figures_nor_intervals(average):
    rng = np.random.default_rng(0)
    adata = table(nimbus=rng.random(60), gold=[*rng.integers(0, 2, 30), *[NAN] * 30])
    adata.obs["type"] = ["T"] * 30 + ["B"] * 30
    found = marker_metrics(adata, by="type", average=average, n_boot=5).reset_index().set_index("type")
    assert found.loc["B", "cells"] == 0 and found.loc["B", ["f1", "f1_low"]].isna().all()
    assert found.loc["T", "cells"] == 30 and found.loc["T", "f1_low"] < found.loc["T", "f1"]
