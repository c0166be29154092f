"""Development gold standard of real tissue, judged by eye: draw cells, show them, collect what was judged, evaluate.

``draw`` picks cells of each channel, half evenly over the range of intensities, half where the scores and Otsu's
threshold on the arcsinh of the mean disagree. ``sheets`` shows them, ``collect`` joins two passes of judgement into
``development_gold.csv``, ``evaluate`` compares a model and automatic thresholds with it. The tissue is not part of
this repository; its folder is given.

A state is 1 (plainly positive), 0.75 (likely), 0.5 (undetermined), 0.25 (likely negative) or 0 (plainly negative).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

GOLD = Path(__file__).with_suffix(".csv")
SEED, PER_CHANNEL, COLUMNS, ROWS = 4, 28, 4, 4
TISSUES = {
    "codex_lymphoid": (
        "labels.tif",
        0.5,
        ["CD3", "CD4", "CD8", "CD20", "PAX5", "Ki-67", "CD68", "CD21", "CD45RO", "HLA DR"],
    ),
    "codex_intestine": ("labels_expert1.tif", 0.38, ["CH_11", "CH_19", "CH_20", "CH_24", "CH_7"]),
    "vectra_lymphoid": ("labels.tif", 0.5, ["Alexa 594", "Cy3", "Cy5", "FITC"]),
}


def read(tissue: str, data: Path):
    """Open a tissue as a SpatialData."""
    import nimbus_sd as ns

    mask, pixel_size, _ = TISSUES[tissue]
    return ns.io.read_fovs(data / tissue / "image.ome.tif", data / tissue / mask, pixel_size=pixel_size)


def score(tissue: str, data: Path, model: str, erode: int = 0):
    """Score the judged channels of a tissue as a user would, on masks eroded by some pixels."""
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import get_transformation

    import nimbus_sd as ns

    sdata = read(tissue, data)
    if erode:
        (name,) = sdata.labels
        labels, places = sdata.labels[name], get_transformation(sdata.labels[name], get_all=True)
        values = labels.to_numpy()
        inner = erosion(values, erode)
        # A cell that would vanish stays as it is.
        inner = np.where(np.isin(values, np.unique(inner)), inner, values)
        sdata.labels[name] = Labels2DModel.parse(inner, dims=("y", "x"), transformations=places)
    return ns.predict(sdata, channels=TISSUES[tissue][2], model=model, progress=False)


def erosion(labels: np.ndarray, pixels: int) -> np.ndarray:
    """Take pixels off each cell's outline."""
    from skimage.segmentation import find_boundaries

    for _ in range(pixels):
        labels = np.where(find_boundaries(labels, mode="inner", connectivity=1), 0, labels)
    return labels


def baselines(adata) -> dict[str, np.ndarray]:
    """Automatic calls on integrated expression, each cells x channels, as ``metrics.compare_baselines`` makes them."""
    from nimbus_sd.metrics import find_threshold

    mean = adata.layers["integrated_expression"]
    scale = [np.median(column[column > 0]) for column in mean.T]
    arcsinh = np.arcsinh(mean / scale)
    values = {"mean": mean, "arcsinh": arcsinh}
    return {
        f"{name}, {rule}": np.stack([c >= find_threshold(c, rule) for c in layer.T], axis=1)
        for name, layer in values.items()
        for rule in ("otsu", "mixture")
    }


def draw(data: Path, model: str) -> pd.DataFrame:
    """Pick the cells to judge: tissue, channel, instance_id and how each was drawn."""
    rng = np.random.default_rng(SEED)
    rows = []
    for tissue in TISSUES:
        adata = score(tissue, data, model)
        arcsinh = baselines(adata)["arcsinh, otsu"]
        mean = adata.layers["integrated_expression"]
        for i, channel in enumerate(adata.var_names):
            level = np.log(mean[:, i] + 1e-3 * mean[:, i].max())
            slot = np.digitize(level, np.linspace(level.min(), level.max(), PER_CHANNEL // 2 + 1)[1:-1])
            even = [rng.choice(np.flatnonzero(slot == s)) for s in np.unique(slot)]
            rest = np.setdiff1d(np.arange(adata.n_obs), even)
            even += list(rng.choice(rest, PER_CHANNEL // 2 - len(even), replace=False))
            doubt = np.setdiff1d(np.flatnonzero((adata.layers["nimbus"][:, i] >= 0.5) != arcsinh[:, i]), even)
            others = np.setdiff1d(np.arange(adata.n_obs), [*even, *doubt])
            wanted = PER_CHANNEL - len(even)
            disputed = list(rng.permutation(doubt)[:wanted])
            rank = np.argsort(np.argsort(mean[:, i])) / adata.n_obs
            apart = np.argsort(-np.abs(adata.layers["nimbus"][others, i] - rank[others]))
            disputed += list(others[apart[: wanted - len(disputed)]])
            for how, chosen in (("even", even), ("disputed", disputed)):
                ids = adata.obs["instance_id"].to_numpy()[chosen]
                rows += [{"tissue": tissue, "channel": channel, "instance_id": int(k), "draw": how} for k in ids]
    return pd.DataFrame(rows)


def sheets(cells: pd.DataFrame, data: Path, out: Path, seed: int) -> None:
    """Draw contact sheets in an order of their own, and ``index.csv`` that says which panel shows which cell."""
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    index = []
    for (tissue, channel), group in cells.groupby(["tissue", "channel"], sort=False):
        sdata = read(str(tissue), data)
        image = next(iter(sdata.images.values())).sel(c=channel).to_numpy().astype(float)
        labels = next(iter(sdata.labels.values())).to_numpy()
        top = max(float(np.quantile(image, 0.998)), 1e-9)
        ids = rng.permutation(group["instance_id"].to_numpy())
        half = round(16 / TISSUES[str(tissue)][1])
        _overview(image / top, f"{tissue} {channel}", out / f"{tissue} {channel}.png".replace(" ", "_"))
        for start in range(0, len(ids), COLUMNS * ROWS):
            number = f"{len({row['sheet'] for row in index}):03d}"
            part = ids[start : start + COLUMNS * ROWS]
            _sheet(image / top, labels, part, half, f"{tissue} {channel}", out / f"{number}.png")
            index += [
                {"sheet": number, "panel": i + 1, "tissue": tissue, "channel": channel, "instance_id": int(cell)}
                for i, cell in enumerate(part)
            ]
    pd.DataFrame(index).to_csv(out / "index.csv", index=False)


def _sheet(image: np.ndarray, labels: np.ndarray, ids: np.ndarray, half: int, title: str, path: Path) -> None:
    """Show each cell twice: outlined as it is, and brightened without the outlines of neighbours."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(ROWS, 2 * COLUMNS, figsize=(20, 10.6), facecolor="black", layout="constrained")
    figure.suptitle(title, color="white")
    image, labels = (np.pad(array, half) for array in (image, labels))
    for i, cell in enumerate(ids):
        window = tuple(slice(c - half, c + half) for c in np.argwhere(labels == cell).mean(axis=0).round().astype(int))
        for k, values in enumerate((image[window], np.sqrt(np.clip(image[window], 0, 1)))):
            axes = grid[i // COLUMNS, 2 * (i % COLUMNS) + k]
            axes.imshow(values, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.contour(labels[window] == cell, [0.5], colors="yellow", linewidths=1.2 if k == 0 else 0.4)
            if k == 0:
                for other in np.setdiff1d(np.unique(labels[window]), [0, cell]):
                    axes.contour(labels[window] == other, [0.5], colors="deepskyblue", linewidths=0.4, alpha=0.5)
                axes.text(1, 1, str(i + 1), color="yellow", fontsize=15, va="top", weight="bold")
    for axes in grid.flat:
        axes.axis("off")
    figure.savefig(path, dpi=95, facecolor="black")
    plt.close(figure)


def _overview(image: np.ndarray, title: str, path: Path) -> None:
    """Show a whole channel, as it is and brightened."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(18, 9.4), layout="constrained")
    figure.suptitle(title)
    for ax, values in zip(axes, (image, np.sqrt(np.clip(image, 0, 1))), strict=True):
        ax.imshow(values, cmap="gray", vmin=0, vmax=1)
        ax.axis("off")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def collect(index: list[Path], judged: list[list[Path]], cells: pd.DataFrame) -> pd.DataFrame:
    """Join two passes of judgement, each sheets' ``index.csv`` and CSV files of sheet, panel and state."""
    key = ["tissue", "channel", "instance_id"]
    for number, (sheet, files) in enumerate(zip(index, judged, strict=True), start=1):
        states = pd.concat([pd.read_csv(file) for file in files])
        shown = pd.read_csv(sheet).merge(states, on=["sheet", "panel"], validate="one_to_one")
        cells = cells.merge(shown.set_index(key)["state"].rename(f"pass{number}").reset_index(), on=key)
    return cells


def agreement(gold: pd.DataFrame) -> pd.Series:
    """How far the two passes agree on cells that both call positive or negative."""
    from sklearn.metrics import cohen_kappa_score

    both = gold[(gold["pass1"] != 0.5) & (gold["pass2"] != 0.5)]
    first, second = both["pass1"] > 0.5, both["pass2"] > 0.5
    return pd.Series(
        {
            "states": len(gold),
            "determined by both": len(both),
            "same": (first == second).mean(),
            "kappa": cohen_kappa_score(first, second),
            "plain in both": len(both[both[["pass1", "pass2"]].isin([0, 1]).all(axis=1)]),
        }
    )


def evaluate(gold: pd.DataFrame, data: Path, models: list[str], erode: int = 0) -> pd.DataFrame:
    """F1 of models at 0.5 and of automatic thresholds, mean over channels with a positive cell, with 95 % intervals.

    ``plain`` holds the cells that both passes call 0 or 1, ``determined`` all that they call alike.
    """
    calls = []
    for tissue in TISSUES:
        part = gold[gold["tissue"] == tissue]
        tables = {model: score(tissue, data, model, erode) for model in models}
        adata = tables[models[0]]
        rows = pd.Series(np.arange(adata.n_obs), adata.obs["instance_id"].to_numpy())[part["instance_id"]].to_numpy()
        columns = adata.var_names.get_indexer(part["channel"])
        found = {name: table.layers["nimbus"][rows, columns] >= 0.5 for name, table in tables.items()}
        found |= {name: values[rows, columns] for name, values in baselines(adata).items()}
        calls.append(part.assign(**found))
    table = pd.concat(calls)
    table["positive"] = table["pass1"] > 0.5
    determined = table[((table[["pass1", "pass2"]] - 0.5).prod(axis=1) > 0)]
    plain = determined[determined[["pass1", "pass2"]].isin([0, 1]).all(axis=1)]
    names = list(found)
    results = {
        (group, tissue): _mean_f1(part if tissue == "all" else part[part["tissue"] == tissue], names)
        for group, part in (("plain", plain), ("determined", determined))
        for tissue in ("all", *TISSUES)
    }
    return pd.DataFrame(results)


def _mean_f1(table: pd.DataFrame, names: list[str], draws: int = 500) -> pd.Series:
    """Format mean F1 over channels with the interval of a bootstrap over cells within channels."""
    rng = np.random.default_rng(0)
    channels = [part for _, part in table.groupby(["tissue", "channel"]) if part["positive"].any()]
    arrays = [(part["positive"].to_numpy(), part[names].to_numpy(bool)) for part in channels]

    def mean(resample: bool) -> np.ndarray:
        values = []
        for positive, called in arrays:
            rows = rng.integers(len(positive), size=len(positive)) if resample else np.arange(len(positive))
            hit, total = (called[rows] & positive[rows, None]).sum(0), called[rows].sum(0) + positive[rows].sum()
            values.append(np.where(total > 0, 2 * hit / np.maximum(total, 1), np.nan))
        return np.nanmean(values, axis=0)

    low, high = np.nanquantile([mean(True) for _ in range(draws)], [0.025, 0.975], axis=0)
    return pd.Series(
        [f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(mean(False), low, high, strict=True)], index=names
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("draw", help="pick cells and draw two sets of sheets")
    one.add_argument("data", type=Path)
    one.add_argument("out", type=Path)
    two = commands.add_parser("collect", help="join what was judged, pass1*.csv and pass2*.csv beside the sheets")
    two.add_argument("out", type=Path)
    three = commands.add_parser("evaluate", help="compare models and automatic thresholds with the judgement")
    three.add_argument("data", type=Path)
    three.add_argument("--erode", type=int, default=0, help="pixels taken off all masks: as if they showed nuclei")
    three.add_argument("--model", nargs="+", default=["compact"])
    options = parser.parse_args()
    if options.command == "draw":
        cells = draw(options.data, "compact")
        options.out.mkdir(parents=True, exist_ok=True)
        cells.to_csv(options.out / "cells.csv", index=False)
        for number in (1, 2):
            sheets(cells, options.data, options.out / f"pass{number}", seed=101 * number)
    elif options.command == "collect":
        files = [sorted(options.out.glob(f"pass{number}*.csv")) for number in (1, 2)]
        index = [options.out / f"pass{number}" / "index.csv" for number in (1, 2)]
        gold = collect(index, files, pd.read_csv(options.out / "cells.csv"))
        gold.to_csv(GOLD, index=False)
        print(agreement(gold).round(3).to_string())
    else:
        print(evaluate(pd.read_csv(GOLD), options.data, options.model, options.erode).T.to_string())


if __name__ == "__main__":
    main()
