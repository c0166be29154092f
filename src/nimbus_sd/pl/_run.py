"""What a report is about: a table, its layers, and how its cells are called."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from nimbus_sd import keys
from nimbus_sd._table import judged, layer
from nimbus_sd.pl._layers import holds_scores
from nimbus_sd.tl import call_positive, source_of

_STORED = "positive"


@dataclass(frozen=True)
class Run:
    """A table and what is known of its calls.

    Attributes
    ----------
    adata, layer, truth
        The table, the layer of scores, and that of labels or None.
    scores
        Whether the layer holds scores; of other values there are no calls but stored ones.
    stored
        Whether the calls are those that `tl.call_positive` left in the table.
    calls
        Channels x (``share_positive``; of stored calls also ``threshold``, ``low`` and ``high``).
    flags
        Why to look at a channel's image, empty if nothing speaks against it.
    compared
        Whether the images were compared with those that the model was trained on.
    """

    adata: AnnData
    layer: str
    truth: str | None
    scores: bool
    stored: bool
    calls: pd.DataFrame
    flags: pd.Series
    compared: bool

    @property
    def threshold(self) -> float | str | dict[str, float]:
        """Threshold of the calls as metrics take it; Otsu's for a layer of other values that has no calls."""
        if self.stored:
            return {str(name): float(cut) for name, cut in self.calls["threshold"].items()}
        return 0.5 if self.scores else "otsu"

    @property
    def rule(self) -> str:
        """The same in words."""
        if self.stored:
            return "the stored thresholds"
        return "0.5" if self.scores else "Otsu's threshold"

    @property
    def intensities(self) -> bool:
        """Whether there is integrated expression beside the layer."""
        return keys.INTEGRATED in self.adata.layers and self.layer != keys.INTEGRATED


def read_run(adata: AnnData, name: str, truth: str | None) -> Run:
    """Gather what a report needs, with the stored calls where they are of this layer and all its channels."""
    if truth is None and keys.GOLD in adata.layers and judged(layer(adata, keys.GOLD)).any():
        truth = keys.GOLD
    elif truth is not None:
        layer(adata, truth)
    scores = holds_scores(name, layer(adata, name))
    entry = adata.uns.get(_STORED, {})
    params = entry.get("params", {}) if isinstance(entry, Mapping) else {}
    stored = (
        _STORED in adata.varm and params.get("layer") == name and bool(adata.varm[_STORED]["threshold"].notna().all())
    )
    called, key = (adata, _STORED) if stored else (_called(adata, name), f"{name}_called")
    columns = ["threshold", "low", "high", "share_positive"] if stored else ["share_positive"]
    flags = called.var.get(f"{key}_flag", pd.Series("", called.var_names))
    return Run(
        adata=adata,
        layer=name,
        truth=truth,
        scores=scores,
        stored=stored,
        calls=called.varm[key][columns],
        flags=flags.astype(object).fillna(""),
        compared=called.uns[key].get("trained_range") == "compared",
    )


def _called(adata: AnnData, name: str) -> AnnData:
    """Call a copy of what matters at 0.5, so that the table stays as it is."""
    names = {name, *({keys.INTEGRATED} & set(adata.layers))}
    copy = AnnData(
        obs=adata.obs[[]],
        var=adata.var[[]],
        layers={one: layer(adata, one) for one in names},
        varm={key: table for key, table in adata.varm.items() if str(key).endswith("_normalization")},
        uns={key: adata.uns[key] for key in {name, source_of(adata, name)} if key in adata.uns},
    )
    with warnings.catch_warnings():
        # The flags are in the report.
        warnings.simplefilter("ignore", UserWarning)
        call_positive(copy, layer=name, key_added=f"{name}_called", n_boot=0)
    return copy
