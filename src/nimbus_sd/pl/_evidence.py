"""Sections of the report that show how far its scores can be trusted: against labels, and on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

import numpy as np

from nimbus_sd import keys
from nimbus_sd.metrics import calibration_curve, compare_baselines, marker_metrics, threshold_curve
from nimbus_sd.pl import curves, tables
from nimbus_sd.pl._layers import regions_of
from nimbus_sd.pl._page import picture
from nimbus_sd.pl._panels import region_of
from nimbus_sd.pl._style import title
from nimbus_sd.pl.comparison import comparison
from nimbus_sd.pl.disagreement import disagreement

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from nimbus_sd.pl._run import Run

_CROP = 300
_N_BOOT = 200


def evaluation(run: Run) -> Iterator[str]:
    if run.truth is None:
        return
    adata, name, truth = run.adata, run.layer, run.truth
    yield f"<h2>Against the labels in layer {escape(truth)!r}</h2>"
    thresholds = {name: run.threshold} | ({keys.INTEGRATED: "otsu"} if run.intensities else {})
    metrics = marker_metrics(adata, list(thresholds), truth, threshold=thresholds)
    caption = f"F1 of {title(name)} at {run.rule}"
    caption += f", and of {title(keys.INTEGRATED)} at Otsu's threshold." if run.intensities else "."
    pictures = [picture(tables.marker_metrics(metrics).figure, caption)]
    if run.scores:
        pooled = threshold_curve(adata, name, truth, average="pooled")
        reliability = calibration_curve(adata, name, truth)
        pictures += [
            picture(curves.threshold_curve(pooled).figure, "What another threshold would give, all channels together."),
            picture(
                curves.calibration_curve(reliability).figure,
                "Share of positive cells among those of about the same score, all channels together. On the dotted "
                "line a score is that share.",
            ),
        ]
    yield f'<div class="row">{"".join(pictures)}</div>'
    if run.scores and run.intensities:
        table = compare_baselines(adata, truth, name, threshold=run.threshold, n_boot=_N_BOOT)
        yield picture(
            tables.compare_baselines(table).figure,
            f"F1 of the scores at {run.rule} minus that of thresholds on intensities, mean over channels, with 95 % "
            f"intervals from {_N_BOOT} resamples.",
        )


def examples(run: Run, sdata: SpatialData, place: str, channels: Sequence[str]) -> Iterator[str]:
    yield "<h2>Examples</h2>"
    adata, regions = run.adata, regions_of(run.adata)
    if regions is None or keys.SPATIAL not in adata.obsm:
        yield '<p class="note">The table does not say where its cells are.</p>'
        return
    region = str(regions.iloc[0])
    middle = np.nanmedian(np.asarray(adata.obsm[keys.SPATIAL])[regions == region, :2], axis=0)
    x, y = (middle * region_of(sdata, channels[0], region).image_repeat).astype(int)
    crop = (slice(max(0, y - _CROP // 2), y + _CROP // 2), slice(max(0, x - _CROP // 2), x + _CROP // 2))
    layers = [run.layer, *([run.truth] if run.truth else [])]
    axes = comparison(sdata, channels, region, layers=layers, crop=crop, table_key=place)
    yield picture(axes[0, 0].figure, f"The middle of region {region}.")
    if run.scores and keys.INTEGRATED in adata.layers:
        yield from _disagreements(run, sdata, place)


def _disagreements(run: Run, sdata: SpatialData, place: str) -> Iterator[str]:
    kinds: tuple[tuple[Literal["dim", "bright"], str], ...] = (
        ("dim", "Score of at least 0.5 though the mean is low: dim cells, or mistakes."),
        ("bright", "Score below 0.5 though the mean is high: spill-over and debris, or mistakes."),
    )
    for kind, text in kinds:
        scale = "Relative means: 0 is the median negative cell, 1 the median positive one."
        try:
            axes = disagreement(sdata, kind, layer=run.layer, table_key=place)
        except ValueError as nothing:
            yield f'<p>{text}</p><p class="note">{escape(str(nothing))}</p>'
        else:
            yield picture(axes[0].figure, f"{text} {scale}")
