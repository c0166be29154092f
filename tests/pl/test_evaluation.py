"""Pictures of tables of metrics, and densities: what is drawn is what the tables say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb
from scipy.stats import norm

import nimbus_sd as ns


@pytest.fixture
def judged() -> AnnData:
    """Sixty cells of six regions, two markers: scores that are nearly right, and worse intensities."""
    rng = np.random.default_rng(0)
    gold = (rng.random((60, 2)) < 0.4).astype(np.float32)
    scores = np.clip(gold * 0.7 + 0.15 + rng.normal(0, 0.15, gold.shape), 0, 1).astype(np.float32)
    expression = (gold + rng.normal(0, 0.6, gold.shape)).astype(np.float32)
    obs = pd.DataFrame({"region": np.repeat([f"r{i}" for i in range(6)], 10)}, [f"c{i}" for i in range(60)])
    layers = {"nimbus": scores, "gold": gold, "integrated_expression": expression}
    return AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD20"]), layers=layers)


def points(ax) -> np.ndarray:
    """All dots as x, y, from the left."""
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == "o"])


def rows(ax) -> list[str]:
    return [tick.get_text() for tick in ax.get_yticklabels()]


def texts(artists) -> list[str]:
    return [text.get_text() for text in artists]


@pytest.mark.filterwarnings("ignore:Layer 'integrated_expression' has values outside")
def test_metrics_of_markers_lie_where_the_table_says(judged):
    table = ns.metrics.marker_metrics(judged, ["nimbus", "integrated_expression"], n_boot=20)
    ax = ns.pl.metrics(table, metric="recall")
    assert rows(ax) == ["CD3", "CD20"] and ax.get_xlabel() == "recall"
    np.testing.assert_allclose(points(ax)[:, 0], table["recall"])
    # The first marker is on top, and one interval a dot.
    assert points(ax)[0, 1] > points(ax)[1, 1]
    ends = np.concatenate([np.array(lines.get_segments())[:, :, 0] for lines in ax.collections])
    np.testing.assert_allclose(ends, table[["recall_low", "recall_high"]])
    assert texts(ax.get_legend().get_texts()) == ["scores", "integrated expression"]


def test_groups_and_averages_become_rows(judged):
    ax = plt.subplots()[1]
    assert ns.pl.metrics(ns.metrics.marker_metrics(judged, by="region"), ax=ax) is ax
    assert rows(ax)[:3] == ["r0, CD3", "r0, CD20", "r1, CD3"] and ax.get_xlabel() == "F1"
    assert rows(ns.pl.metrics(ns.metrics.marker_metrics(judged, by="region", average="macro")))[-1] == "mean"


def test_baselines_are_differences_of_f1(judged):
    table = ns.metrics.compare_baselines(judged, n_boot=10)
    ax = ns.pl.metrics(table)
    assert sorted(points(ax)[:, 0]) == pytest.approx(sorted(table["difference"]))
    assert rows(ax) == ["integrated expression", "arcsinh expression"]
    better = {text.get_text().strip(): (text.get_ha(), text.get_position()[0]) for text in ax.texts}
    assert better == {"← intensity better": ("right", 0), "scores better →": ("left", 0)}


def test_confounders_show_information_and_null_or_why_not():
    names = pd.MultiIndex.from_product([["nimbus", "silver"], ["cell_size", "density"]], names=["layer", "confounder"])
    values = {"information": [0.1, np.nan, 0.3, np.nan], "null_95": [0.01, 0.02, 0.03, np.nan]}
    table = pd.DataFrame(values, names).assign(reason=["", "not measured"] * 2)
    ax = ns.pl.metrics(table)
    np.testing.assert_allclose(points(ax)[:, 0], table["information"])
    nulls = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "|"])
    np.testing.assert_allclose(nulls, table["null_95"])
    assert rows(ax) == ["cell size", "density"]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("not measured", -1)]


def test_curves_are_those_of_the_tables(judged):
    table = ns.metrics.threshold_curve(judged, average="pooled")
    ax = ns.pl.curve(table, metrics=("precision", "recall"))
    for line, metric in zip(ax.lines, ("precision", "recall"), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), table[metric].dropna())
    assert texts(ax.get_legend().get_texts()) == ["precision", "recall"]
    roc = ns.metrics.roc_curve(judged, ["nimbus", "integrated_expression"])
    ax = ns.pl.curve(roc)
    # Two layers by two markers: a colour per marker, a style per layer. The last line is the diagonal.
    assert len({line.get_color() for line in ax.lines[:4]}) == 2 == len({line.get_linestyle() for line in ax.lines[:4]})
    first = roc[(roc["layer"] == "nimbus") & (roc["channel"] == "CD3")]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), first[["false_positive_rate", "true_positive_rate"]])
    pr = ns.metrics.pr_curve(judged, average="pooled")
    np.testing.assert_array_equal(ns.pl.curve(pr).lines[0].get_xydata(), pr[["recall", "precision"]])


def test_thresholds_of_several_channels_show_the_last_metric_and_one_unit(judged):
    table = ns.metrics.threshold_curve(judged)
    ax = ns.pl.curve(table)
    assert len(ax.lines) == 2 and ax.get_ylabel() == "F1"
    for line, (_, part) in zip(ax.lines, table.groupby("channel", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), part["f1"].dropna())
    for metrics in (["f1", "recall"], "recall"):
        assert ns.pl.curve(table, metrics=metrics).get_ylabel() == "recall"
    with pytest.raises(ValueError, match="`metrics` is empty"):
        ns.pl.curve(table, metrics=[])
    judged.layers["integrated_expression"] *= 100
    table = ns.metrics.threshold_curve(judged, ["nimbus", "integrated_expression"])
    with pytest.raises(ValueError, match=r"\['nimbus'\] are in \[0, 1\].*one layer at a time"):
        ns.pl.curve(table)
    ns.pl.curve(table[table["layer"] == "integrated_expression"])


def test_reliability_has_dots_as_large_as_their_bins_in_the_lines_colours(judged):
    table = ns.metrics.calibration_curve(judged, n_bins=5)
    ax = ns.pl.curve(table)
    (dots,) = ax.collections
    assert np.argmax(dots.get_sizes()) == table["cells"].argmax()
    np.testing.assert_allclose(ax.lines[0].get_xydata(), table.dropna()[["score", "observed"]])
    table = ns.metrics.calibration_curve(judged, n_bins=5, by_channel=True)
    ax = ns.pl.curve(table)
    for line, dots, (_, part) in zip(ax.lines, ax.collections, table.groupby("channel", sort=False), strict=False):
        colours = dots.get_facecolors()
        np.testing.assert_allclose(colours[:, :3], np.tile(to_rgb(line.get_color()), (len(colours), 1)))
        few = part.loc[part["observed"].notna(), "cells"].to_numpy() < 10
        assert few.any() and not few.all()
        faded = colours[:, 3]
        assert faded[few].max() < faded[~few].min()


def many(n: int, layers=("nimbus",)) -> AnnData:
    rng = np.random.default_rng(0)
    gold = (rng.random((80, n)) < 0.4).astype(np.float32)
    gold[:, 1] = 0
    scores = {name: np.clip(gold * 0.4 + rng.random(gold.shape) * 0.6, 0, 1).astype(np.float32) for name in layers}
    names = pd.DataFrame(index=[f"CD{i}" for i in range(n)])
    return AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(80)]), var=names, layers={"gold": gold, **scores})


@pytest.mark.parametrize("layers", [("nimbus",), ("nimbus", "other")])
def test_many_channels_look_different_and_those_without_a_curve_are_named(layers):
    ax = plt.subplots()[1]
    assert ns.pl.curve(ns.metrics.roc_curve(many(30, layers), list(layers)), ax=ax) is ax
    # The second channel has no positive cell.
    drawn = 29 * len(layers)
    looks = {(line.get_color(), str(line._unscaled_dash_pattern), line.get_linewidth()) for line in ax.lines[:drawn]}
    assert len(looks) == drawn and texts(ax.texts) == ["no curve: CD1"]
    # The legend has the looks of the lines.
    legend = ax.get_legend()
    entries = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    assert "CD1" not in entries and entries["CD0"].get_color() == ax.lines[0].get_color()


def test_where_there_is_nothing_to_show_it_is_said(judged):
    gold = judged.copy()
    gold.layers["gold"][:], judged.layers["nimbus"][:] = 0, np.nan
    for ax, why in (
        (ns.pl.curve(ns.metrics.roc_curve(gold)), "no channel has both classes"),
        (ns.pl.curve(ns.metrics.pr_curve(gold)), "no channel has positive cells"),
        (ns.pl.curve(ns.metrics.calibration_curve(judged)), "no scores"),
        (ns.pl.metrics(ns.metrics.marker_metrics(judged)), "nothing could be computed"),
        (ns.pl.score_shape(judged), "no scores"),
    ):
        assert texts(ax.texts) == [why]


def test_another_table_is_refused():
    for draw, column, source in (
        (ns.pl.metrics, "a", "`metrics.marker_metrics`, `compare_baselines` or `confounder_information`"),
        (ns.pl.metrics, "baseline", "`metrics.compare_baselines`"),
        (ns.pl.metrics, "confounder", "`metrics.confounder_information`"),
        (ns.pl.curve, "a", "`metrics.roc_curve`, `pr_curve`, `threshold_curve` or `calibration_curve`"),
    ):
        with pytest.raises(ValueError, match=f"must be the result of {source}"):
            draw(pd.DataFrame({column: [1]}))


def test_densities_are_kernel_estimates_mirrored_at_the_ends(judged):
    ax = ns.pl.score_shape(judged, truth="gold", channel="CD3")
    positive = judged.layers["gold"][:, 0] == 1
    names = [f"negative ({(~positive).sum()})", f"positive ({positive.sum()})"]
    assert texts(ax.get_legend().get_texts()) == names
    for line, state in zip(ax.lines, (~positive, positive), strict=True):
        x, y = line.get_data()
        assert (x[0], x[-1]) == (0, 1) and np.trapezoid(y, x) == pytest.approx(1, abs=1e-9)
        values = judged.layers["nimbus"][state, 0].astype(float)
        width = values.std() * len(values) ** -0.2
        mirrored = np.concatenate([values, -values, 2 - values])
        expected = norm.pdf(x[:, None], mirrored, width).sum(axis=1) / len(values)
        # Values are counted in 256 bins first.
        np.testing.assert_allclose(y, expected, atol=0.02 * expected.max())
    given = plt.subplots()[1]
    assert ns.pl.score_shape(judged, ax=given) is given
    assert texts(given.get_legend().get_texts()) == ["cells (120)"]
    with pytest.raises(KeyError, match="no channel 'CD4'"):
        ns.pl.score_shape(judged, channel="CD4")
    with pytest.raises(ValueError, match="'auto', 'linear' or 'arcsinh'"):
        ns.pl.score_shape(judged, scale="log")


def test_expression_is_drawn_as_arcsinh_of_a_multiple_of_the_channels_median(judged):
    expression = np.abs(judged.layers["integrated_expression"]) * [1, 1000]
    judged.layers["integrated_expression"] = expression
    ax = ns.pl.score_shape(judged, "integrated_expression", "gold")
    scaled = np.arcsinh(expression / np.median(expression, axis=0))
    x = ax.lines[0].get_xdata()
    assert (x[0], x[-1]) == (pytest.approx(scaled.min()), pytest.approx(scaled.max()))
    assert ax.get_xlabel() == "arcsinh(integrated expression / c)"
    linear = ns.pl.score_shape(judged, "integrated_expression", channel="CD20", scale="linear")
    assert linear.lines[0].get_xdata()[-1] == pytest.approx(expression[:, 1].max())
