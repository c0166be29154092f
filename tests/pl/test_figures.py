"""Pictures of tables of figures: what is drawn is what the tables say."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

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


@pytest.mark.filterwarnings("ignore:Layer 'integrated_expression' has values outside")
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
    rules = [text.get_text() for text in ax.get_legend().get_texts()]
    assert rules == ["otsu", "mixture", "quantile", "best possible (knows the labels)"]
    better = {text.get_text().strip(): text.get_ha() for text in ax.texts}
    assert better == {"← intensity better": "right", "scores better →": "left"}
    assert {text.get_position()[0] for text in ax.texts} == {0}


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


def test_a_confounder_without_estimate_says_why():
    index = pd.MultiIndex.from_product([["nimbus"], ["cell_size", "spill_over"]], names=["layer", "confounder"])
    table = pd.DataFrame(
        {"information": [0.1, np.nan], "null_95": [0.01, np.nan], "reason": ["", "not measured; run it"]}, index=index
    )
    ax = ns.pl.confounder_information(table)
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("not measured; run it", -1)]


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


def test_reliability_of_channels_has_dots_in_the_lines_colours(judged):
    table = ns.metrics.calibration_curve(judged, n_bins=5, by_channel=True)
    ax = ns.pl.calibration_curve(table)
    for line, dots, (_, part) in zip(ax.lines, ax.collections, table.groupby("channel", sort=False), strict=False):
        colours = dots.get_facecolors()
        np.testing.assert_allclose(colours[:, :3], np.tile(to_rgb(line.get_color()), (len(colours), 1)))
        few = part.loc[part["observed"].notna(), "cells"].to_numpy() < 10
        assert few.any() and not few.all()
        faded = colours[:, 3][part["observed"].notna()]
        assert faded[few].max() < faded[~few].min()


def test_densities_have_one_area_per_class(judged):
    ax = ns.pl.score_shape(judged, truth="gold", channel="CD3")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    positives = int(judged.layers["gold"][:, 0].sum())
    assert labels == [f"negative ({60 - positives})", f"positive ({positives})"]
    assert len(ax.lines) == 2
    for line in ax.lines:
        x, y = line.get_data()
        assert (x[0], x[-1]) == (0, 1)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-9)
    assert ns.pl.score_shape(judged).get_legend().get_texts()[0].get_text() == "cells (120)"
    with pytest.raises(KeyError, match="no channel 'CD4'"):
        ns.pl.score_shape(judged, channel="CD4")


def test_densities_are_kernel_estimates_mirrored_at_the_ends(judged):
    from scipy.stats import norm

    ax = ns.pl.score_shape(judged, channel="CD3")
    x, y = ax.lines[0].get_data()
    values = judged.layers["nimbus"][:, 0].astype(float)
    width = values.std() * len(values) ** -0.2
    mirrored = np.concatenate([values, -values, 2 - values])
    expected = norm.pdf(x[:, None], mirrored, width).sum(axis=1) / len(values)
    # Values are counted in 256 bins first.
    np.testing.assert_allclose(y, expected, atol=0.02 * expected.max())


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
    with pytest.raises(ValueError, match="'auto', 'linear' or 'arcsinh'"):
        ns.pl.score_shape(judged, scale="log")


def test_densities_of_a_million_cells_are_quick():
    from time import perf_counter

    rng = np.random.default_rng(0)
    scores = rng.random((1_000_000, 1), np.float32)
    adata = AnnData(obs=pd.DataFrame(index=np.arange(len(scores)).astype(str)), layers={"nimbus": scores})
    start = perf_counter()
    ns.pl.score_shape(adata)
    # Exact kernels take minutes, this a fraction of a second.
    assert perf_counter() - start < 5


def test_a_layer_without_values_says_so(judged):
    judged.layers["nimbus"][:] = np.nan
    assert [text.get_text() for text in ns.pl.score_shape(judged).texts] == ["no scores"]


def many(n: int, layers=("nimbus",)) -> AnnData:
    rng = np.random.default_rng(0)
    gold = (rng.random((80, n)) < 0.4).astype(np.float32)
    gold[:, 1] = 0
    scores = {name: np.clip(gold * 0.4 + rng.random(gold.shape) * 0.6, 0, 1).astype(np.float32) for name in layers}
    names = pd.DataFrame(index=[f"CD{i}" for i in range(n)])
    return AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(80)]), var=names, layers={"gold": gold, **scores})


def looks(ax, n: int) -> list[tuple]:
    return [(line.get_color(), str(line._unscaled_dash_pattern), line.get_linewidth()) for line in ax.lines[:n]]


@pytest.mark.parametrize("layers", [("nimbus",), ("nimbus", "other")])
@pytest.mark.parametrize("name", ["roc_curve", "pr_curve", "threshold_curve"])
def test_many_channels_look_different(name, layers):
    adata = many(30, layers)
    table = getattr(ns.metrics, name)(adata, list(layers))
    ax = getattr(ns.pl, name)(table)
    value = {"roc_curve": "true_positive_rate", "pr_curve": "recall", "threshold_curve": "f1"}[name]
    known = table.dropna(subset=[value])
    drawn = known.groupby(["layer", "channel"], sort=False).ngroups
    assert drawn >= 29 * len(layers)
    assert len(set(looks(ax, drawn))) == drawn
    # The legend has the looks of the lines, and is outside of the axes.
    legend = ax.get_legend()
    entries = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    (first, *_) = known["channel"].unique()
    assert entries[first].get_color() == ax.lines[0].get_color()
    ax.figure.canvas.draw()
    assert legend.get_window_extent().x0 >= ax.get_window_extent().x1 - 1


def test_a_channel_without_a_curve_is_named_below_and_not_in_the_legend():
    ax = ns.pl.roc_curve(ns.metrics.roc_curve(many(9)))
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"CD{i}" for i in range(9) if i != 1]
    assert [text.get_text() for text in ax.texts] == ["no curve: CD1"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("roc_curve", "no channel has both classes"), ("pr_curve", "no channel has positive cells")],
)
def test_axes_without_a_curve_say_why(judged, name, why):
    judged.layers["gold"][:] = 0
    ax = getattr(ns.pl, name)(getattr(ns.metrics, name)(judged))
    assert [text.get_text() for text in ax.texts] == [why] and not ax.lines and ax.get_legend() is None


def test_reliability_without_scores_says_so(judged):
    judged.layers["nimbus"][:] = np.nan
    ax = ns.pl.calibration_curve(ns.metrics.calibration_curve(judged))
    assert [text.get_text() for text in ax.texts] == ["no scores"]


def test_thresholds_of_several_channels_show_the_last_metric(judged):
    table = ns.metrics.threshold_curve(judged)
    ax = ns.pl.threshold_curve(table)
    assert len(ax.lines) == 2 and ax.get_ylabel() == "F1"
    for line, (_, part) in zip(ax.lines, table.groupby("channel", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), part["f1"].dropna())
    assert ns.pl.threshold_curve(table, ["f1", "recall"]).get_ylabel() == "recall"
    assert ns.pl.threshold_curve(table, "recall").get_ylabel() == "recall"


def test_thresholds_in_different_units_are_refused(judged):
    judged.layers["integrated_expression"] *= 100
    table = ns.metrics.threshold_curve(judged, ["nimbus", "integrated_expression"])
    with pytest.raises(ValueError, match=r"\['nimbus'\] are in \[0, 1\].*one layer at a time"):
        ns.pl.threshold_curve(table)
    ns.pl.threshold_curve(table[table["layer"] == "integrated_expression"])
    with pytest.raises(ValueError, match="`metrics` is empty"):
        ns.pl.threshold_curve(table, [])


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
