"""Groups of cells, averages over markers and groups, and pooled cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import metrics

from nimbus_sd.metrics import marker_metrics

CHANNELS = ["CD3", "CD8", "CD20"]
RATES = ["precision", "recall", "specificity", "f1", "accuracy", "auroc", "average_precision"]


def tissue(regions: int = 8, cells: int = 30, seed: int = 0) -> AnnData:
    """Three markers, the last never positive; two data sets of half the regions; two cell types in every region."""
    rng = np.random.default_rng(seed)
    n = regions * cells
    gold = rng.choice([0, 0.25, 0.5, 0.75, 1], (n, 3), p=[0.5, 0.1, 0.1, 0.1, 0.2]).astype(np.float32)
    gold[:, 2] = np.minimum(gold[:, 2], 0.25)
    ability = rng.normal(1.5, 0.7, regions).repeat(cells)[:, None]
    scores = 1 / (1 + np.exp(-((gold - 0.5) * 2 * ability + rng.normal(size=(n, 3)))))
    scores[rng.random((n, 3)) < 0.02] = np.nan
    number = np.arange(regions).repeat(cells)
    obs = pd.DataFrame(
        {
            "region": [f"fov{i}" for i in number],
            "dataset": pd.Categorical(np.where(number < regions / 2, "colon", "breast"), ["colon", "breast", "none"]),
            "cell_type": rng.choice(["T", "B"], n),
        },
        index=[str(i) for i in range(n)],
    )
    layers = {"nimbus": scores.astype(np.float32), "gold": gold}
    return AnnData(np.zeros((n, 3), np.float32), obs=obs, var=pd.DataFrame(index=CHANNELS), layers=layers)


def test_a_group_is_a_table_of_its_own():
    adata = tissue()
    found = marker_metrics(adata, by=["dataset", "cell_type"])
    assert found.index.names == ["dataset", "cell_type", "channel"]
    # In the order of the categories, without those that no cell has.
    assert list(found.index.droplevel("channel").unique()) == [
        ("colon", "B"), ("colon", "T"), ("breast", "B"), ("breast", "T"),
    ]  # fmt: skip
    for (dataset, kind), part in found.groupby(level=[0, 1], observed=True):
        alone = adata[(adata.obs["dataset"] == dataset) & (adata.obs["cell_type"] == kind)]
        pd.testing.assert_frame_equal(part.droplevel([0, 1]), marker_metrics(alone), check_names=False)


def test_a_rule_sees_the_whole_table():
    adata = tissue()
    found = marker_metrics(adata, by="region", threshold="otsu")
    assert found["threshold"].groupby(level="channel").nunique().tolist() == [1, 1, 1]
    assert found.loc["fov0", "threshold"].tolist() == marker_metrics(adata, threshold="otsu")["threshold"].tolist()


def test_the_papers_average_is_over_markers_and_then_over_groups():
    adata = tissue()
    each = marker_metrics(adata, by="dataset")
    found = marker_metrics(adata, by="dataset", average="macro")
    assert found.index.name == "dataset" and list(found.index) == ["colon", "breast", "mean"]
    for name in ("colon", "breast"):
        expected = each.loc[name]
        # The marker without positives counts for specificity and accuracy only.
        np.testing.assert_allclose(found.loc[name, RATES].astype(float), np.nanmean(expected[RATES], axis=0))
        assert expected.loc["CD20", "f1":"f1"].isna().all() and found.loc[name, "f1"] > 0
        assert found.loc[name, "cells"] == expected["cells"].sum()
        assert found.loc[name, "positives"] == expected["positives"].sum()
    np.testing.assert_allclose(found.loc["mean", RATES], found.loc[["colon", "breast"], RATES].mean())
    assert found["cells"].dtype.kind == "i" and found.loc["mean", "cells"] == each["cells"].sum()
    assert (found["threshold"] == 0.5).all()
    assert np.isnan(marker_metrics(adata, threshold="otsu", average="macro")["threshold"].item())


def test_pooled_puts_all_markers_together():
    adata = tissue()
    found = marker_metrics(adata, by="dataset", average="pooled")
    assert list(found.index) == ["colon", "breast", "all"]
    for name, part in (("colon", adata[adata.obs["dataset"] == "colon"]), ("all", adata)):
        values, gold = part.layers["nimbus"].ravel(), part.layers["gold"].ravel()
        keep = np.isfinite(values) & (gold != 0.5)
        y, score = gold[keep] > 0.5, values[keep]
        assert found.loc[name, "cells"] == keep.sum()
        assert found.loc[name, "f1"] == pytest.approx(metrics.f1_score(y, score >= 0.5))
        assert found.loc[name, "auroc"] == pytest.approx(metrics.roc_auc_score(y, score))
        assert found.loc[name, "average_precision"] == pytest.approx(metrics.average_precision_score(y, score))


def test_rows_of_averages():
    adata = tissue()
    assert list(marker_metrics(adata, average="macro").index) == ["mean"]
    assert list(marker_metrics(adata, average="pooled").index) == ["all"]
    found = marker_metrics(adata, ["nimbus", "gold"], by=["dataset", "cell_type"], average="macro")
    assert found.index.names == ["layer", "dataset", "cell_type"] and len(found) == 2 * 5
    assert list(found.index[[4, 9]]) == [("nimbus", "mean", "mean"), ("gold", "mean", "mean")]
    assert marker_metrics(adata, by=["dataset", "cell_type"], average="pooled").index[-1] == ("all", "all")


def test_cells_without_a_group_are_left_out():
    adata = tissue()
    adata.obs.loc[adata.obs["cell_type"] == "B", "cell_type"] = None
    found = marker_metrics(adata, by="cell_type", average="pooled")
    alone = marker_metrics(adata[adata.obs["cell_type"] == "T"], average="pooled")
    assert list(found.index) == ["T", "all"]
    assert (found["cells"] == alone["cells"].item()).all() and (found["f1"] == alone["f1"].item()).all()
    adata.obs["cell_type"] = None
    with pytest.raises(ValueError, match="No cell has a value in `obs` 'cell_type'"):
        marker_metrics(adata, by="cell_type")


def test_a_group_of_three_cells():
    adata = tissue()
    adata.obs["tiny"] = "rest"
    adata.obs.iloc[[0, 1, 2], -1] = "three"
    adata.layers["gold"][:3] = [[1, 0, np.nan], [0, 0, np.nan], [1, 0, np.nan]]
    adata.layers["nimbus"][:3] = [[0.9, 0.1, 0.1], [0.2, 0.1, 0.1], [0.3, 0.1, 0.1]]
    found = marker_metrics(adata, by="tiny", n_boot=200).loc["three"]
    assert found.loc["CD3", ["cells", "recall", "specificity", "auroc"]].tolist() == [3, 0.5, 1, 1]
    assert found.loc["CD3", "resampled"] == "cells" and found.loc["CD3", "n_regions"] == 1
    assert found.loc["CD3", "recall_low"] < 0.1 and found.loc["CD3", "recall_high"] > 0.9
    assert found.loc["CD20", "cells"] == 0
    assert found.loc["CD20", [*RATES, "f1_low", "f1_high"]].isna().all()


def test_columns_and_options_that_do_not_exist():
    adata = tissue()
    with pytest.raises(KeyError, match=r"no column 'tissue', 'sex'; it has \['region', 'dataset', 'cell_type'\]"):
        marker_metrics(adata, by=["tissue", "dataset", "sex"])
    with pytest.raises(KeyError, match="no column 'fov'; it has"):
        marker_metrics(adata, n_boot=10, region_key="fov")
    with pytest.raises(ValueError, match="`average` is 'micro'"):
        marker_metrics(adata, average="micro")
    with pytest.raises(ValueError, match="`n_boot` is -1"):
        marker_metrics(adata, n_boot=-1)
