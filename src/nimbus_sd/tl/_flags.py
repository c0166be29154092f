"""Markers whose images need a look before their calls are used: how bad it is, and why in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import at_or_above, outside_unit_interval
from nimbus_sd._table import layer as read_layer
from nimbus_sd.metrics import describe, outside, relative_expression
from nimbus_sd.tl._markers import simplified
from nimbus_sd.tl.auto_threshold import ChannelThreshold, auto_threshold

if TYPE_CHECKING:
    from anndata import AnnData

#: From the worst: scores mean nothing; look at the image first; good to know.
SEVERITIES = ("stop", "look", "note")

# Scores between these are neither clearly negative nor clearly positive.
_LOW, _HIGH = 0.25, 0.75
# Shares of cells above which a channel is flagged.
_UNCLEAR, _VERY_UNCLEAR, _SATURATED, _UNSTABLE = 0.15, 0.3, 0.01, 0.1
_NEARLY_ALL, _NEARLY_NONE = 0.9, 0.005
# Cells so near to the brightest one are as bright, where they are some.
_SAME, _SOME = 0.98, 5
# Stains of every cell.
_COUNTERSTAINS = ("dapi", "hoechst", "draq", "sytox", "dna", "dsdna", "nuc", "histone", "hh3", "h3", "iridium")
_PHOTOGRAPHS = ({"red", "green", "blue"}, {"r", "g", "b"})
_ALIKE = 0.9
_FEWEST = 20
_WORDS = {
    ("cv", "low"): ("look", "hardly any cell stands out from the others"),
    ("cv", "high"): ("note", "nearly all of its signal is in very few cells"),
    ("zeros", "high"): ("note", "more cells are without any signal"),
    ("zeros", "low"): ("note", "fewer cells are without any signal"),
    ("q99", "low"): ("look", "even the brightest cells are dim"),
}


def flags_of(
    adata: AnnData,
    layer: str,
    cuts: Sequence[float] | None = None,
    estimates: Sequence[ChannelThreshold] | None = None,
) -> list[str]:
    """Say of each channel why its calls need a look, ``"look: nearly all cells are positive (95 %)"``, or ``""``.

    ``cuts`` are the thresholds in use, 0.5 by default, and ``estimates`` those of :func:`auto_threshold`. What is worst
    comes first.
    """
    scores = read_layer(adata, layer)
    source = source_of(adata, layer)
    ranges = ranges_of(adata, layer) or {}
    measured = keys.INTEGRATED in adata.layers and f"{source}_normalization" in adata.varm
    relative = relative_expression(adata, source) if measured else np.full(scores.shape, np.nan)
    everywhere = [("stop", "the three channels look like one photograph (H&E?), not like markers")]
    shared = everywhere if _is_photograph([str(name) for name in adata.var_names], relative) else []
    flags = []
    for i, column in enumerate(scores.T):
        cut = 0.5 if cuts is None else cuts[i]
        fits = not outside_unit_interval(column).any()
        unknown = ChannelThreshold(np.nan, np.nan, np.nan)
        estimate = estimates[i] if estimates else auto_threshold(column, n_boot=0) if fits else unknown
        found = [*shared, *_flags(str(adata.var_names[i]), column, relative[:, i], cut, estimate, ranges)]
        found = sorted(found, key=lambda flag: SEVERITIES.index(flag[0]))
        flags.append("; ".join(f"{severity}: {text}" for severity, text in found))
    return flags


def need_a_look(names: Sequence[Any], flags: Sequence[str], most: int | None = None) -> str:
    """List the channels that are flagged as more than a note, the worst first; "" without any."""
    worst = sorted(
        (SEVERITIES.index(flag.split(":")[0]), f"{str(name)!r} ({flag})")
        for name, flag in zip(names, flags, strict=True)
        if flag and not flag.startswith(SEVERITIES[-1])
    )
    return ", ".join(text for _, text in worst[:most])


def source_of(adata: AnnData, layer: str) -> str:
    """Name the layer of :func:`nimbus_sd.predict` that this one was calibrated from; else the layer itself."""
    entry = adata.uns.get(layer, {})
    source = entry.get("params", {}).get("layer") if isinstance(entry, Mapping) else None
    return layer if source is None else str(source)


def ranges_of(adata: AnnData, layer: str) -> Mapping[str, Any] | None:
    """Return the ranges of the images that the layer's model was trained on; None where they are not known."""
    entry = adata.uns.get(source_of(adata, layer), {})
    return entry.get("ranges") if isinstance(entry, Mapping) else None


def _is_photograph(names: Sequence[str], relative: NDArray) -> bool:
    """Whether three channels are the colours of one picture: by name, or because all are bright in the same cells."""
    if len(names) != 3:
        return False
    full = relative[np.isfinite(relative).all(axis=1)]
    varied = len(full) >= _FEWEST and (full.std(axis=0) > 1e-6).all()
    alike = varied and all(np.corrcoef(full[:, a], full[:, b])[0, 1] > _ALIKE for a, b in combinations(range(3), 2))
    return alike or {simplified(name) for name in names} in _PHOTOGRAPHS


def _flags(
    name: str,
    scores: NDArray,
    relative: NDArray,
    cut: float,
    estimate: ChannelThreshold,
    ranges: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    """Say why a channel should not be called without a look at its image."""
    scores, relative = scores[np.isfinite(scores)], relative[np.isfinite(relative)]
    if not scores.size:
        yield "stop", "empty, no cell has a score"
        return
    # An estimate without an interval is never unstable.
    fewest, most = (scores >= estimate.high).mean(), (scores >= estimate.low).mean()
    if most - fewest > _UNSTABLE:
        yield "look", f"unstable, from {fewest:.0%} to {most:.0%} of the cells are positive"
    if relative.size and not (relative > 0).any():
        yield "stop", "empty, no cell has any signal"
        return
    of_every_cell = simplified(name).startswith(_COUNTERSTAINS)
    positive = at_or_above(scores, cut)
    if scores.size >= _FEWEST and positive.mean() > _NEARLY_ALL and not of_every_cell:
        yield "look", f"nearly all cells are positive ({positive.mean():.0%})"
    if scores.size >= _FEWEST and positive.mean() < _NEARLY_NONE:
        severity = "look" if of_every_cell else "note"
        yield severity, f"nearly none, {positive.sum():,} of {scores.size:,} cells are positive"
    low, high = (scores < _LOW).sum(), (scores > _HIGH).sum()
    unclear = scores.size - low - high
    vague = not estimate.two_groups and unclear > max(min(low, high), _UNCLEAR * scores.size)
    if not outside_unit_interval(scores).any() and (vague or unclear > _VERY_UNCLEAR * scores.size):
        yield "look", f"no separation, {unclear / scores.size:.0%} of the scores are between {_LOW} and {_HIGH}"
    if relative.size >= _FEWEST and relative.max() > np.median(relative):
        bright = relative >= min(_SAME * relative.max(), 1)
        if bright.mean() > _SATURATED and bright.sum() >= _SOME:
            yield "look", f"saturated, {bright.mean():.0%} of the cells are as bright as it gets"
    far: dict[str, list[str]] = {}
    for key in outside(describe(relative), ranges) if not of_every_cell else []:
        severity, text = _WORDS.get(key, ("look", f"the cells are {'dimmer' if key[1] == 'low' else 'brighter'}"))
        far.setdefault(severity, []).append(text)
    for severity, texts in far.items():
        yield severity, f"far from the training images, {' and '.join(dict.fromkeys(texts))}"
