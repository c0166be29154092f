"""One HTML file about a run, for somebody who was not there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from nimbus_sd import keys
from nimbus_sd.pl import _evidence, _sections
from nimbus_sd.pl._layers import check_channels
from nimbus_sd.pl._page import write_page
from nimbus_sd.pl._run import read_run

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def report(
    adata: AnnData,
    path: str | Path,
    sdata: SpatialData | None = None,
    *,
    layer: str = keys.NIMBUS,
    truth: str | None = None,
    channels: Sequence[str] | None = None,
) -> Path:
    """Write a run's markers, flags, distributions, examples and provenance into one HTML file.

    Calls are those that :func:`nimbus_sd.tl.call_positive` stored as ``"positive"`` if they are of this layer; else
    scores are called at 0.5 here, and other values are not called. Text from ``uns[layer]["model_description"]``, where
    there is one, is put at the top.

    Parameters
    ----------
    adata
        Table from :func:`nimbus_sd.predict`. It is not changed.
    path
        File to write; nothing else is needed to open it. An existing file is replaced.
    sdata
        Images and labels, one of whose tables ``adata`` is; with them the report shows crops.
    layer
        Layer of scores.
    truth
        Layer of labels for the evaluation. None takes ``"gold"`` where it exists and judges a cell.
    channels
        Channels of which crops are shown; the first four by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    KeyError
        If a layer or a channel does not exist.
    ValueError
        If ``adata`` is none of the tables in ``sdata``.
    FileNotFoundError
        If the folder of ``path`` does not exist.

    Examples
    --------
    >>> import nimbus_sd as ns, tempfile
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> ns.pl.report(adata, tempfile.mkdtemp() + "/run.html").suffix
    '.html'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {str(path.parent)!r} does not exist; create it first, or name another.")
    place = None if sdata is None else _table_key(adata, sdata)
    run = read_run(adata, layer, truth)
    channels = [channels] if isinstance(channels, str) else list(adata.var_names[:4] if channels is None else channels)
    check_channels(adata, channels)
    sections = chain(
        _sections.summary(run),
        _sections.markers(run),
        _sections.distributions(run),
        _evidence.evaluation(run),
        [] if sdata is None or place is None or not channels else _evidence.examples(run, sdata, place, channels),
        _sections.provenance(run),
    )
    return write_page(path, "nimbus-sd report", list(sections))


def _table_key(adata: AnnData, sdata: SpatialData) -> str:
    """Find the table among those of the SpatialData, from which crops are drawn."""
    for key, table in sdata.tables.items():
        if table is adata:
            return str(key)
    raise ValueError(
        f"`adata` is none of the tables in `sdata`, which has {sorted(sdata.tables)}. Pass one of them, such as "
        "sdata.tables['table'], or leave `sdata` out for a report without crops."
    )
