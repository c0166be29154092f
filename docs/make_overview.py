"""Draws ``docs/images/overview.png``, the picture of the home page and the README, from the packaged example.

Run it after a change of the bundled model: ``python docs/make_overview.py``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import nimbus_sd as ns

CHANNEL, LABELS = "CD3", "fov1_labels"
CROP = (slice(140, 300), slice(140, 300))
HALF = 22
NAVY, ORANGE = "#1f2d4d", "#d55e00"


def main() -> None:
    """Score the example and draw it."""
    sdata = ns.datasets.example()
    adata = ns.predict(sdata, pixel_size=0.5, progress=False)
    figure = plt.figure(figsize=(13, 6.9), facecolor="white")
    top = figure.subplots(1, 4, gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.94, "bottom": 0.46, "wspace": 0.24})
    here = {"labels_key": LABELS, "crop": CROP}
    ns.pl.image(sdata, CHANNEL, outlines=False, ax=top[0], **here)
    ns.pl.image(sdata, CHANNEL, ax=top[1], **here)
    ns.pl.cells(sdata, CHANNEL, layer="nimbus", ax=top[2], **here)
    ns.pl.cells(sdata, CHANNEL, layer="integrated_expression", ax=top[3], **here)
    titles = (
        f"One channel ({CHANNEL})",
        "The mask of cells",
        "A score per cell: 0 to 1",
        "The mean, for comparison",
    )
    for ax, title in zip(top, titles, strict=True):
        ax.set_title(title, fontsize=13, color=NAVY, fontweight="bold", pad=8)
    for x, text, size in ((0.2455, "+", 26), (0.4985, "U-Net\n→", 14), (0.7515, "not", 15)):
        figure.text(x, 0.69, text, ha="center", va="center", fontsize=size, color=NAVY)

    figure.text(
        0.5,
        0.4,
        "Picked: the mean gets these cells wrong, the score right",
        ha="center",
        fontsize=14,
        color=NAVY,
        weight="bold",
    )
    bottom = figure.subplots(
        1, 6, gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.375, "bottom": 0.125, "wspace": 0.05}
    )
    examples = [*misled(adata, negative=True)[:3], *misled(adata, negative=False)[:3]]
    for ax, (row, channel) in zip(bottom, examples, strict=True):
        draw_cell(sdata, adata, row, channel, ax)
    for x, text in ((0.255, "spill-over and haze: bright, but negative"), (0.745, "dim or partly seen, but positive")):
        figure.text(x, 0.015, text, ha="center", fontsize=12, color=NAVY, style="italic")
    figure.savefig(Path(__file__).parent / "images" / "overview.png", dpi=110)


def misled(adata, *, negative: bool) -> list[tuple[int, str]]:
    """Cells whose mean is called wrong by Otsu's threshold and whose score is right, the clearest of each marker."""
    otsu = ns.metrics.marker_metrics(adata, "integrated_expression", threshold="otsu")["threshold"]
    whole = (adata.obs["area"] > adata.obs["area"].median() / 2).to_numpy()
    inside = ((adata.obsm["spatial"] > HALF) & (adata.obsm["spatial"] < 512 - HALF)).all(axis=1)
    found = []
    for channel in ("CD3", "CD20", "PanCK", "CD8", "CD45"):
        mean, score, gold = (
            adata.to_df(layer=name)[channel].to_numpy() for name in ("integrated_expression", "nimbus", "gold")
        )
        relative = mean / otsu[channel]
        wrong = (
            (relative > 1) & (score < 0.2) & (gold == 0) if negative else (relative < 1) & (score > 0.8) & (gold == 1)
        )
        rows = np.flatnonzero(wrong & whole & inside)
        if rows.size:
            best = rows[np.argmax(relative[rows] if negative else -relative[rows])]
            found.append((int(best), channel))
    return found


def draw_cell(sdata, adata, row: int, channel: str, ax) -> None:
    """Draw a cell's surroundings, its outline, and what mean, score and truth say of it."""
    cell = adata.obs.iloc[row]
    column, line = adata.obsm["spatial"][row].round().astype(int)
    crop = (slice(line - HALF, line + HALF), slice(column - HALF, column + HALF))
    ns.pl.image(sdata, channel, cell["region"], crop=crop, outlines=False, ax=ax)
    ax.contour(sdata[cell["region"]].to_numpy()[crop] == cell["instance_id"], [0.5], colors=ORANGE, linewidths=1.8)
    score = adata.to_df(layer="nimbus")[channel].iloc[row]
    positive = adata.to_df(layer="gold")[channel].iloc[row] == 1
    ax.set_title("")
    mean_says, truth = ("low", "positive") if positive else ("high", "negative")
    ax.set_xlabel(f"{channel}: mean {mean_says}\nscore {score:.2f}, truth {truth}", fontsize=11, color=NAVY)


if __name__ == "__main__":
    main()
