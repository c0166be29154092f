"""Labels from and to CSV files, in a form of our own and in those of the paper's authors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._csv import columns_of
from nimbus_sd._disk import replacing
from nimbus_sd._table import check_table
from nimbus_sd._table import layer as read_layer
from nimbus_sd._text import with_formulas, without_formulas
from nimbus_sd.labels._place import PLACE, cells_of, check_states, put_labels
from nimbus_sd.labels._states import STATES, WORDS, listed
from nimbus_sd.labels._tables import GOLD_CODES, SILVER_CODES, has_label_columns, read_labels

if TYPE_CHECKING:
    from anndata import AnnData

_CODES = {"gold": GOLD_CODES, "silver": SILVER_CODES}


def from_csv(
    adata: AnnData,
    path: str | Path,
    *,
    key_added: str = keys.GOLD,
    codes: Literal["gold", "silver"] | None = None,
) -> None:
    """Read labels from a CSV file, one row for each cell and channel.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    path
        The file. Its columns tell its form:

        - ``region``, ``instance_id``, ``channel``, ``label``: ours. A label is a number (1, 0.75, 0.5, 0.25, 0) or
          a word (positive, likely positive, undetermined, likely negative, negative); empty is not judged.
        - ``fov``, ``cell_id`` (or ``labels``, ``label``), ``channel``, ``activity``, and possibly ``dataset``: that of
          the paper's authors. Fields of view are looked for in ``obs["fov"]``, or are regions with or without
          ``_labels``.
    key_added
        Name of the layer: ``"gold"`` for whole regions of :func:`draw_regions`, ``"gold_training"`` for cells of
        :func:`draw_cells`, any other for an annotator (see :func:`consensus`).
    codes
        What ``activity`` means. ``"gold"``: 0 negative, 1 positive, 2 and 3 uncertain, leaning positive and negative.
        ``"silver"``: 2 is undetermined. None goes by the file, and asks where a 2 could mean either.

    Returns
    -------
    None
        Sets ``layers[key_added]``: the labels of the file, those that were there elsewhere; NaN where not judged.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If a region or channel is not in the table.
    ValueError
        If the file cannot be read, or is in neither form; if a label is outside the code or a cell has two; if labels
        for training and for evaluation would be in one region.

    Warns
    -----
    UserWarning
        Says how many cells of the file are not in the table.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ns.labels.to_csv(adata, f"{folder}/gold.csv")
    ...     ns.labels.from_csv(adata, f"{folder}/gold.csv", key_added="again")
    >>> bool((adata.layers["again"] == adata.layers["gold"]).all())
    True
    """
    check_table(adata)
    path = Path(path)
    columns = columns_of(path)
    if {*PLACE, "label"} <= set(columns):
        table = _own(path)
    elif has_label_columns(columns):
        table = _theirs(adata, path, codes)
    else:
        raise ValueError(
            f"{path} has the columns {columns}; it must have {[*PLACE, 'label']}, or ['fov', 'cell_id', 'channel', "
            "'activity']."
        )
    put_labels(adata, table, key_added, str(path))


def to_csv(
    adata: AnnData,
    path: str | Path,
    *,
    layer: str = keys.GOLD,
    codes: Literal["gold", "silver"] | None = None,
) -> None:
    """Write the labels of a layer to a CSV file that :func:`from_csv` reads, one row for each that is judged.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    path
        A new file.
    layer
        Layer of labels.
    codes
        None writes our form, with labels as numbers. ``"gold"`` and ``"silver"`` write that of the paper's authors:
        ``fov``, ``cell_id``, ``channel``, ``activity``, in front ``dataset`` if ``obs`` has it.

    Raises
    ------
    FileExistsError
        If the file exists.
    KeyError
        If the layer does not exist.
    ValueError
        If the code has no number for a state: there is no undetermined in ``"gold"``, nothing likely in ``"silver"``.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists and is left as it is; choose another name, or delete it first.")
    if codes not in (None, *_CODES):
        raise ValueError(f"`codes` is {codes!r}; it must be 'gold', 'silver' or None.")
    labels = read_layer(adata, layer)
    check_states(labels.ravel(), f"layers[{layer!r}]")
    cells = cells_of(adata)
    rows, columns = np.nonzero(np.isfinite(labels))
    table = cells.iloc[rows].assign(channel=adata.var_names[columns], label=labels[rows, columns].astype(float))
    if codes is not None:
        number = {label: code for code, label in _CODES[codes].items()}
        if lacking := sorted(set(table["label"]) - set(number)):
            words = [WORDS[label] for label in lacking]
            raise ValueError(f"The code {codes!r} has no number for {listed(words)} of layers[{layer!r}].")
        fov = adata.obs["fov"].astype(str) if "fov" in adata.obs else cells["region"].str.removesuffix("_labels")
        table = table.assign(fov=fov.iloc[rows], activity=table["label"].map(number))
        table = table.rename(columns={"instance_id": "cell_id"})[["fov", "cell_id", "channel", "activity"]]
        if "dataset" in adata.obs:
            table.insert(0, "dataset", adata.obs["dataset"].iloc[rows])
    with replacing(path) as (file,):
        without_formulas(table).to_csv(file, index=False)


def _own(path: Path) -> pd.DataFrame:
    text = pd.read_csv(path, usecols=[*PLACE, "label"], dtype=str, keep_default_na=False)
    text = text.assign(region=with_formulas(text["region"]), channel=with_formulas(text["channel"]))
    label = text["label"].str.strip().str.casefold()
    words = {word: str(value) for word, value in STATES.items()} | dict.fromkeys(("", "nan", "na"), "nan")
    values = pd.to_numeric(label.replace(words), errors="coerce")
    if unknown := sorted(set(text["label"][values.isna() & ~label.isin(["", "nan", "na"])])):
        raise ValueError(f"{path} has the label(s) {listed(unknown)}; a label is a number or one of {list(STATES)}.")
    ids = pd.to_numeric(text["instance_id"], errors="coerce")
    if (ids % 1 != 0).any():
        raise ValueError(f"{path} has values of instance_id that are not whole numbers.")
    return text.assign(label=values.astype(np.float32), instance_id=text["instance_id"].map(_whole))


def _whole(text: str) -> int:
    # Ids of 64 bit do not fit into floats.
    return int(text) if text.strip().isdecimal() else int(float(text))


def _theirs(adata: AnnData, path: Path, codes: Literal["gold", "silver"] | None) -> pd.DataFrame:
    if codes not in (None, *_CODES):
        raise ValueError(f"`codes` is {codes!r}; it must be 'gold', 'silver' or None.")
    if codes is None:
        seen = set(pd.read_csv(path, usecols=["activity"])["activity"].dropna())
        if 2 in seen and 3 not in seen:
            raise ValueError(
                f"{path} has the activity 2, which is 'leaning positive' in a gold standard and 'undetermined' in "
                "other tables. Pass `codes='gold'` or `codes='silver'`."
            )
        codes = "gold"
    own = list(adata.obs["dataset"].unique()) if "dataset" in adata.obs else []
    table = read_labels(path, str(own[0]) if len(own) == 1 else None, _CODES[codes])
    named = _regions_of(adata, table, path)
    return pd.DataFrame(
        {
            "region": named,
            "instance_id": table["cell_id"],
            "channel": table["channel"].astype(str),
            "label": table["label"],
        }
    )


def _regions_of(adata: AnnData, table: pd.DataFrame, path: Path) -> pd.Series:
    """Region of each row: by field of view, and by data set where both sides say it."""
    region = cells_of(adata)["region"]
    fov = adata.obs["fov"].astype(str) if "fov" in adata.obs else region.str.removesuffix("_labels")
    places = pd.DataFrame({"fov": fov, "region": region})
    by = ["fov"]
    if "dataset" in table and "dataset" in adata.obs:
        by.insert(0, "dataset")
        places["dataset"] = adata.obs["dataset"].astype(str)
        table.drop(table.index[~table["dataset"].isin(places["dataset"])], inplace=True)
        if table.empty:
            raise ValueError(f"{path} has no labels for the data sets {listed(places['dataset'].unique())}.")
    elif "dataset" in table and table["dataset"].nunique() > 1:
        raise ValueError(
            f"{path} has labels of several data sets, {sorted(table['dataset'].unique())}; `obs['dataset']` must say "
            "of which one the cells are."
        )
    given = table[by].astype(str)
    places = places.drop_duplicates().merge(given.drop_duplicates(), on=by)
    if len(twice := places[places.duplicated(by, keep=False)]):
        one = twice["fov"].iloc[0]
        raise ValueError(
            f"{path} has labels of field of view {one!r}, which the regions "
            f"{listed(sorted(twice.loc[twice['fov'] == one, 'region'].unique()))} share. Add a column 'dataset' to the "
            "file and to `obs`, or use the columns region, instance_id, channel, label."
        )
    found = given.merge(places, on=by, how="left")["region"].set_axis(table.index)
    # A field of view may also be named as its region.
    return found.fillna(given["fov"])
