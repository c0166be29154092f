"""Write the bundled model's card for the documentation, from figures measured now.

``python benchmarks/model_card.py --data FOLDER`` writes ``docs/model_card.md`` and its picture of failures. FOLDER holds real
tissue; it is not part of this repository. The figures on gold labels are those of ``tools/compact/figures.csv``.
"""

# ruff: noqa: E501 (lines of Markdown)

from __future__ import annotations

import argparse
import platform as machine
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import bundled_model
import label_free
import numpy as np
import pandas as pd
import torch

import nimbus_sd as ns

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = DOCS.parent / "tools" / "compact" / "figures.csv"
REAL = {
    "channels": "channels",
    "left out: F1": "**scores at 0.5, data set left out**",
    "known: F1": "scores at 0.5, data set known",
    "version 4: F1": "version 4, scores at 0.5",
    "mean: otsu": "mean, Otsu",
    "mean: li": "mean, Li",
    "mean: yen": "mean, Yen",
    "mean: mixture": "mean, mixture",
    "mean: otsu of arcsinh": "arcsinh of mean, Otsu",
    "mean: li of arcsinh": "arcsinh of mean, Li",
    "mean: yen of arcsinh": "arcsinh of mean, Yen",
    "mean: mixture of arcsinh": "arcsinh of mean, mixture",
    "left out: best F1": "scores, best threshold per channel (needs the truth), left out",
    "mean: best F1": "mean, best threshold per channel (needs the truth)",
    "left out: AUROC": "AUROC of the scores, left out",
    "mean: AUROC": "AUROC of the mean",
}
NAMES = {
    "f1_score_0.5": "scores at 0.5",
    "f1_score_best": "scores, best threshold per image (needs the truth)",
    "f1_expression_otsu": "integrated expression, Otsu",
    "f1_arcsinh_otsu": "integrated expression, Otsu on arcsinh",
    "f1_expression_mixture": "integrated expression, mixture",
    "f1_expression_best": "integrated expression, best threshold per image (needs the truth)",
    "ece_score": "calibration error of the scores (class-balanced)",
    "auroc_score": "AUROC of the scores",
    "auroc_expression": "AUROC of integrated expression",
}


def markdown(table: pd.DataFrame) -> str:
    """Table in Markdown, without a dependency for it."""
    rows = [["", *map(str, table.columns)], ["---"] * (table.shape[1] + 1)]
    rows += [[str(name), *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row)] for name, row in
             zip(table.index, table.to_numpy(dtype=object), strict=True)]  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def of_real(figures: pd.DataFrame, drawn: str) -> pd.DataFrame:
    """Mean over the channels of each data set, and over all channels."""
    own = figures[figures["drawn"] == drawn].assign(channels=1)
    rules = {name: "sum" if name == "channels" else "mean" for name in REAL}
    table = own.groupby("dataset").agg(rules)
    table.loc["all channels"] = own.agg(rules)
    table = table.T.rename(REAL).astype(object)
    table.loc["channels"] = table.loc["channels"].astype(int)
    return table


def cells(figures: pd.DataFrame) -> str:
    """Count the judged cells of the first table."""
    own = figures[figures["drawn"] == "even"]
    return f"{own['cells'].sum():,} sure states in {len(own)} channels"


def seconds_per_forward(model: str, side: int = 512, repeats: int = 20) -> float:
    """Median time of the network alone on an image of 512 x 512 model pixels, float32."""
    network = ns.models.load(model).network.to(memory_format=torch.channels_last)
    tile = torch.rand(1, 2, side, side).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            network(tile)
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def bfloat16_differences(model: str) -> tuple[float, float]:
    """Largest difference of a score on the packaged example from float32, and the share of calls that change."""
    sdata = ns.datasets.example()
    full, half = (
        ns.predict(sdata, model=model, pixel_size=0.5, precision=one, progress=False).layers["nimbus"].copy()
        for one in ("float32", "bfloat16")
    )
    return float(np.nanmax(np.abs(full - half))), float(np.mean((full >= 0.5) != (half >= 0.5)))


def by_rarity(table: pd.DataFrame) -> pd.DataFrame:
    """Count false positives and misses of calls at 0.5 by the share of an image's cells that are positive."""
    names = ["up to 2 % of cells positive", "2 to 5 %", "5 to 10 %", "above 10 %"]
    shares = pd.cut(table["share_positive"], [0, 0.02, 0.05, 0.1, 1], labels=names)
    counts = pd.DataFrame(
        {
            "images": 1,
            "positive cells": table["positives"],
            "called positive": table["called"],
            "false positives": table["called"] - table["called_rightly"],
            "misses": table["positives"] - table["called_rightly"],
        }
    )
    grouped = counts.groupby(shares, observed=True).sum()
    grouped["F1"] = table["f1_score_0.5"].groupby(shares, observed=True).mean()
    return grouped


def failures(model: str, table: pd.DataFrame, out: Path, images: int = 4) -> None:
    """Draw the images with the lowest F1 at 0.5: the image, the truth and the scores."""
    import matplotlib.pyplot as plt
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    worst = table.sort_values("f1_score_0.5").index[:images]
    figure, grid = plt.subplots(images, 3, figsize=(11, 3.7 * images), layout="constrained")
    for row, number in zip(grid, worst, strict=True):
        image, labels, known, look = bundled_model.simulated_image(int(number))
        sdata = SpatialData(
            images={"image": Image2DModel.parse(image[None], dims=("c", "y", "x"), c_coords=["marker"])},
            labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
        )
        adata = ns.predict(sdata, model=model, pixel_size=look.pixel_size, progress=False)
        scores = np.full(len(known), np.nan)
        scores[adata.obs["instance_id"].to_numpy()] = adata.layers["nimbus"][:, 0]
        row[0].imshow(image, cmap="gray", vmax=np.quantile(image, 0.999))
        for axes, values in zip(row[1:], (known, scores), strict=True):
            shown = np.where(labels > 0, values[labels], np.nan)
            axes.imshow(shown, cmap="coolwarm", vmin=0, vmax=1, interpolation="nearest")
        found = table.loc[number]
        kind = f"{found['platform']}, {look.marker.localization} marker, {found['mask']} masks"
        row[0].set_title(f"image {number}: {kind}", fontsize=9)
        row[1].set_title("truth (grey: undetermined)", fontsize=9)
        best = found["f1_expression_best"]
        row[2].set_title(
            f"scores, F1 {found['f1_score_0.5']:.2f} (mean with its best threshold {best:.2f})", fontsize=9
        )
        for axes in row:
            axes.axis("off")
    figure.savefig(out, dpi=70)
    plt.close(figure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--card", type=Path, help="write the figures on simulated images into this card, too")
    parser.add_argument("--data", type=Path, required=True, help="folder of real tissues")
    options = parser.parse_args()
    card = ns.models.load(options.model).card
    table = bundled_model.evaluate(options.model)
    if options.card:
        told = ns.models.Card.read(options.card)
        replace(told, figures={**told.figures, **bundled_model.figures(table)}).write(options.card)
    (DOCS / "images").mkdir(exist_ok=True)
    failures(options.model, table, DOCS / "images" / "model_card_failures.png")
    of_platform = table.groupby("platform")[list(NAMES)].mean().T.rename(NAMES)
    of_platform["all"] = table[list(NAMES)].mean().to_numpy()
    masks = {m: bundled_model.evaluate(options.model, m)["f1_score_0.5"].mean() for m in ("cell", "nucleus")}
    real = pd.read_csv(FIGURES)
    image, labels = label_free.read(options.data / "codex_lymphoid")
    stable = pd.DataFrame({m: label_free.checks(m, image, labels) for m in (options.model, "arcsinh, otsu")}).round(3)
    stable.index = [": ".join(name) for name in stable.index]
    stable = stable.astype(object).where(stable.notna(), "no cell called")
    counts = [name for name in stable.index if name.endswith("cells of the rarer")]
    stable.loc[counts] = stable.loc[counts].astype(int)
    rounding, changed = bfloat16_differences(options.model)
    text = f"""# Model card: {card.name}, version {card.revision}

{card.description}

| | |
| --- | --- |
| network | residual U-Net, {card.root_filters} root filters, depth {card.depth}, patches of {card.patch} x {card.patch} |
| pixel size | {card.pixel_size} um |
| normalisation | {"five times Otsu's threshold of cells' intensities" if card.quantile is None else f"{card.quantile} quantile of positive pixels"} ({card.rule}) |
| licence | {card.license} |

sha256 of the weights:

```
{card.sha256}
```

**Trained on.** {card.trained_on}

**Not for** H&E, immunohistochemistry in brightfield, transcriptomics, or tissue cleared and imaged in three dimensions.

Measured on {date.today()}, {machine.processor() or machine.machine()}, {torch.get_num_threads()} thread(s), by
`python benchmarks/model_card.py --data FOLDER`. All figures on simulated images are means over images.

## Real tissue: what a new data set can expect

Each of seven data sets was left out of training once, and judged with the network that had not seen it. The cells ({cells(real)})
lie in fields that no training ever saw, spread evenly over brightness, and were judged twice by eye, by two independent
runs of a vision-language model, not by pathologists; only states that both passes give count. F1 at 0.5 and AUROC, mean over the
channels with a positive cell; Otsu, Li, Yen and the mixture are thresholds on the mean intensity of a cell.

{markdown(of_real(real, "even"))}

Where Otsu's threshold on the mean and version 4 of this model disagree (a handicap for both):

{markdown(of_real(real, "disputed"))}

"known": the bundled weights, which saw other fields of the same data set. Version 4 was chosen with sight of parts of
`codex_lymphoid`, `codex_intestine` and `vectra_lymphoid`, and all networks start from its weights. `tools/compact` holds the labels, per channel
figures and the command that makes them.

## Simulated images

{len(table)} images, {len(table) // table["platform"].nunique()} of each platform's look, fixed by checksum before the last stage of the training,
which never draws these looks.

{markdown(of_platform.round(3))}

Calls at 0.5 by how rare the marker is, cells of all images together; F1 is the mean over images:

{markdown(by_rarity(table))}

The same tissues, all drawn with masks of whole cells: F1 at 0.5 {masks["cell"]:.3f}; all with masks of nuclei: {masks["nucleus"]:.3f}.
In the tables above each image has a mask of the kind that its platform's look has.

## Real tissue, without labels

CODEX, lymphoid tissue. Markers of one lineage should be called together (phi near 1), those of two apart (shares near 0),
and calls should not change with the mask, the pixel size or the factor. Integrated expression does not use the latter two.
A share of the rarer marker means little where that has a handful of cells; phi needs cells of both.

{markdown(stable)}

## Speed

The network alone takes {seconds_per_forward(options.model):.2f} s on an image of 512 x 512 model pixels, float32. In
bfloat16 the scores of the packaged example differ by at most {rounding:.3f}, and {changed:.2%} of the calls change.

## Where it fails

The images of the benchmark with the lowest F1. A marker that few cells have is called in crowds of cells that lack it:

![Image, truth and scores of the images with the lowest F1](images/model_card_failures.png)
"""
    (DOCS / "model_card.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
