"""Pictures of tables of figures: what is drawn is what the tables say."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nimbus_sd as ns


@pytest.fixture
def judged() -> AnnData:
    """Sixty cells of six regions, two markers: scores that are nearly right, and worse intensities."""
    rng = np.random.default_rng(0)
    gold = (rng.random((60, 2)) < 0.4).astype(np.float32)
    scores = np.clip(gold * 0.7 + 0.15 + rng.normal(0, 0.15, gold.shape), 0, 1).astype(np.float32)
    expression = (gold + rng.normal(0, 0.6, gold.shape)).astype(np.float32)
    obs = pd.DataFrame(
        {"region": pd.Categorical(np.repeat([f"r{i}" for i in range(6)], 10)), "instance_id": np.arange(60)},
        index=[f"c{i}" for i in range(60)],
    )
    return AnnData(
        obs=obs,
        var=pd.DataFrame(index=["CD3", "CD20"]),
        layers={"nimbus": scores, "gold": gold, "integrated_expression": expression},
    )


def points(ax) -> np.ndarray:
    """All dots as x, y, from the left."""
    dots = [line.get_xydata() for line in ax.lines if line.get_marker() == "o"]
    return np.concatenate(dots)


def test_metrics_of_markers_lie_where_the_table_says(judged):
    table = ns.metrics.marker_metrics(judged, ["nimbus", "integrated_expression"], n_boot=20)
    ax = ns.pl.marker_metrics(table, "recall")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["CD3", "CD20"]
    np.testing.assert_allclose(points(ax)[:, 0], table["recall"])
    # The first marker is on top, and one interval a dot.
    assert points(ax)[0, 1] > points(ax)[1, 1]
    ends = np.concatenate([np.array(lines.get_segments())[:, :, 0] for lines in ax.collections])
    np.testing.assert_allclose(ends, table[["recall_low", "recall_high"]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["scores", "integrated expression"]


def test_groups_and_averages_become_rows(judged):
    ax = ns.pl.marker_metrics(ns.metrics.marker_metrics(judged, by="region"))
    assert [tick.get_text() for tick in ax.get_yticklabels()][:3] == ["r0, CD3", "r0, CD20", "r1, CD3"]
    ax = ns.pl.marker_metrics(ns.metrics.marker_metrics(judged, by="region", average="macro"))
    assert [tick.get_text() for tick in ax.get_yticklabels()][-1] == "mean"


def test_baselines_are_differences_of_f1(judged):
    table = ns.metrics.compare_baselines(judged, n_boot=10)
    ax = ns.pl.compare_baselines(table)
    assert sorted(points(ax)[:, 0]) == pytest.approx(sorted(table["difference"]))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["integrated expression", "arcsinh expression"]


def test_confounders_show_information_and_null():
    index = pd.MultiIndex.from_product([["nimbus", "silver"], ["cell_size", "density"]], names=["layer", "confounder"])
    table = pd.DataFrame(
        {
            "information": [0.1, 0.2, 0.3, np.nan],
            "information_low": [0.05, 0.1, 0.2, np.nan],
            "information_high": [0.15, 0.3, 0.4, np.nan],
            "null_95": [0.01, 0.02, 0.03, np.nan],
        },
        index=index,
    )
    ax = ns.pl.confounder_information(table)
    np.testing.assert_allclose(points(ax)[:, 0], [0.1, 0.2, 0.3, np.nan])
    nulls = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "|"])
    np.testing.assert_allclose(nulls, [0.01, 0.02, 0.03, np.nan])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["cell size", "density"]


def test_nothing_to_show_says_so(judged):
    judged.layers["nimbus"][:] = np.nan
    ax = ns.pl.marker_metrics(ns.metrics.marker_metrics(judged))
    assert "nothing could be computed" in [text.get_text() for text in ax.texts]


def test_curves_are_those_of_the_tables(judged):
    table = ns.metrics.threshold_curve(judged, average="pooled")
    ax = ns.pl.threshold_curve(table, metrics=("precision", "recall"))
    for line, metric in zip(ax.lines, ("precision", "recall"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), table[metric])
        assert line.get_label() == metric
    roc = ns.metrics.roc_curve(judged, ["nimbus", "integrated_expression"])
    ax = ns.pl.roc_curve(roc)
    drawn = [line for line in ax.lines if line.get_xydata().shape != (2, 2) or line.get_linestyle() != ":"]
    # Two layers by two markers: a colour per marker, a style per layer.
    assert len({line.get_color() for line in drawn}) == 2 and len({line.get_linestyle() for line in drawn}) == 2
    first = roc[(roc["layer"] == "nimbus") & (roc["channel"] == "CD3")]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), first[["false_positive_rate", "true_positive_rate"]])
    assert ns.pl.pr_curve(ns.metrics.pr_curve(judged)).get_xlabel() == "recall"


def test_reliability_shows_bins_by_their_cells(judged):
    table = ns.metrics.calibration_curve(judged, n_bins=5)
    ax = ns.pl.calibration_curve(table)
    (dots,) = ax.collections
    sizes = dots.get_sizes()
    assert np.argmax(sizes) == table["cells"].argmax()
    known = table.dropna()
    np.testing.assert_allclose(ax.lines[0].get_xydata(), known[["score", "observed"]])


def test_densities_have_one_area_per_class(judged):
    ax = ns.pl.score_shape(judged, truth="gold", channel="CD3")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    positives = int(judged.layers["gold"][:, 0].sum())
    assert labels == [f"negative ({60 - positives})", f"positive ({positives})"]
    for outline in ax.patches[1::2]:
        xy = outline.get_path().vertices
        # Steps come as corners; the area under them is 1.
        assert abs(np.trapezoid(xy[:, 1], xy[:, 0])) == pytest.approx(1, abs=1e-6)
    assert ns.pl.score_shape(judged).get_legend().get_texts()[0].get_text() == "cells (120)"
    with pytest.raises(KeyError, match="no channel 'CD4'"):
        ns.pl.score_shape(judged, channel="CD4")


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("marker_metrics", "metrics.marker_metrics"),
        ("compare_baselines", "metrics.compare_baselines"),
        ("confounder_information", "metrics.confounder_information"),
        ("threshold_curve", "metrics.threshold_curve"),
        ("roc_curve", "metrics.roc_curve"),
        ("pr_curve", "metrics.pr_curve"),
        ("calibration_curve", "metrics.calibration_curve"),
    ],
)
def test_another_table_is_refused(name, source):
    with pytest.raises(ValueError, match=f"must be the result of `{source}`"):
        getattr(ns.pl, name)(pd.DataFrame({"a": [1]}))


def test_every_picture_draws_on_the_axes_given(judged):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert ns.pl.score_shape(judged, ax=ax) is ax
    assert ns.pl.marker_metrics(ns.metrics.marker_metrics(judged), ax=ax) is ax
    assert ns.pl.roc_curve(ns.metrics.roc_curve(judged), ax=ax) is ax
