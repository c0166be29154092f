"""Compare a model with thresholds on integrated expression, automatic ones and the best one, on simulated images.

The 200 images, 40 of each platform's look, were fixed by seed and checksum before the last stage of the bundled model's
training, which never draws a platform's look:
``python benchmarks/bundled_model.py --check`` compares them with ``bundled_model_images.sha256``.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from looks import PLATFORMS, Look, draw_look

from nimbus_sd.simulate import draw_tissue, expose, segment, stain, truth

SEED, N_IMAGES, SHAPE = 20261124, 200, (400, 400)
CHECKSUMS = Path(__file__).with_name("bundled_model_images.sha256")


def simulated_image(number: int, mask: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, Look]:
    """Draw an image with at least 5 positive and 5 negative cells.

    Parameters
    ----------
    number
        Which one.
    mask
        What the mask shows (``Segmentation.target``), instead of what the platform's look says.

    Returns
    -------
    uint16 image and int32 labels (y, x), the truth per label (1, 0, 0.5 undetermined; row 0 unused) and the settings.
    """
    rng = np.random.default_rng([SEED, number])
    while True:
        look = draw_look(platform(number), rng)
        if mask:
            look = replace(look, segmentation=replace(look.segmentation, target=mask))
        tissue = draw_tissue(SHAPE, look.pixel_size, rng, radius=look.radius, density=look.density)
        labels, cells = segment(tissue, look.segmentation, rng)
        stained = stain(tissue, look.marker, rng)
        image = expose(stained.signal, tissue, look.detector, rng)
        known = truth(stained, tissue, look.detector, cells)
        if (known[1:] == 1).sum() >= 5 and (known[1:] == 0).sum() >= 5:
            levels = image * (look.detector.gain if look.detector.counting else 4000)
            return np.clip(np.rint(levels), 0, 65535).astype(np.uint16), labels, known, look


def platform(number: int) -> str:
    """Name the platform whose look an image has."""
    return list(PLATFORMS)[number % len(PLATFORMS)]


def checksum(number: int) -> str:
    """Digest of an image, its labels and its truth."""
    digest = hashlib.sha256()
    for array in simulated_image(number)[:3]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def f1(called: np.ndarray, positive: np.ndarray) -> float:
    """F1 score of calls; 0 where nothing is right."""
    return float(2 * (called & positive).sum() / (called.sum() + positive.sum()))


def best_f1(values: np.ndarray, positive: np.ndarray) -> float:
    """F1 score under the best threshold: the ceiling of thresholding these values."""
    order = np.argsort(-values, kind="stable")
    hits, calls = np.cumsum(positive[order]), np.arange(1, len(values) + 1)
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    return float((2 * hits / (calls + positive.sum()))[last_of_ties].max())


def evaluate(model: str, mask: str | None = None, images: int | None = None) -> pd.DataFrame:
    """Score all images, each on its own as a user would, and compare per image.

    ``mask`` is as for `simulated_image`; ``images`` takes the first ones only.
    """
    from sklearn.metrics import roc_auc_score
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    import nimbus_sd as ns
    from nimbus_sd.metrics import find_threshold

    rows = []
    for number in range(images or N_IMAGES):
        image, labels, known, look = simulated_image(number, mask)
        sdata = SpatialData(
            images={"image": Image2DModel.parse(image[None], dims=("c", "y", "x"), c_coords=["marker"])},
            labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
        )
        adata = ns.predict(sdata, model=model, pixel_size=look.pixel_size, progress=False)
        state = known[adata.obs["instance_id"].to_numpy()]
        adata.layers["gold"] = state[:, None]
        certain = state != 0.5
        positive = state[certain] == 1
        score = adata.layers["nimbus"][certain, 0]
        everybody = adata.layers["integrated_expression"][:, 0]
        expression = everybody[certain]
        # As metrics.compare_baselines does it.
        arcsinh = np.arcsinh(everybody / np.median(everybody[everybody > 0]))
        rows.append(
            {
                "image": number,
                "platform": platform(number),
                "mask": look.segmentation.target,
                "cells": int(certain.sum()),
                "share_positive": positive.mean(),
                "positives": int(positive.sum()),
                "called": int((score >= 0.5).sum()),
                "called_rightly": int((positive & (score >= 0.5)).sum()),
                "f1_score_0.5": f1(score >= 0.5, positive),
                "f1_score_best": best_f1(score, positive),
                "f1_expression_best": best_f1(expression, positive),
                "f1_expression_otsu": f1(expression >= find_threshold(everybody, "otsu"), positive),
                "f1_expression_mixture": f1(expression >= find_threshold(everybody, "mixture"), positive),
                "f1_arcsinh_otsu": f1(arcsinh[certain] >= find_threshold(arcsinh, "otsu"), positive),
                "ece_score": ns.metrics.calibration_error(adata).loc["marker", "ece_balanced"],
                "auroc_score": roc_auc_score(positive, score),
                "auroc_expression": roc_auc_score(positive, expression),
            }
        )
    return pd.DataFrame(rows).set_index("image")


def figures(table: pd.DataFrame) -> dict[str, float]:
    """Summarise the images: means over images, F1 at 0.5 per platform, and of all cells together."""
    means = table[[column for column in table if column.startswith(("f1", "ece", "auroc"))]].mean().to_dict()
    for name, value in table.groupby("platform")["f1_score_0.5"].mean().items():
        means[f"f1_score_0.5_{name}"] = value
    pooled = 2 * table["called_rightly"].sum() / (table["called"].sum() + table["positives"].sum())
    return {f"simulated_{name}": round(float(v), 3) for name, v in (means | {"f1_score_0.5_pooled": pooled}).items()}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact", help="name or path, as for nimbus_sd.predict")
    parser.add_argument(
        "--mask", choices=["cell", "nucleus", "grown"], help="masks of this kind instead of each look's"
    )
    parser.add_argument("--out", type=Path, help="write the table of images to this CSV file")
    parser.add_argument("--card", type=Path, help="write the figures into this card")
    parser.add_argument("--check", action="store_true", help="only compare the images with their checksums")
    parser.add_argument("--write-checksums", action="store_true", help="fix the images anew")
    options = parser.parse_args()
    if options.check or options.write_checksums:
        found = "".join(f"{checksum(i)}  {i}\n" for i in range(N_IMAGES))
        if options.write_checksums:
            CHECKSUMS.write_text(found)
        same = found == CHECKSUMS.read_text()
        print("all images as fixed" if same else "images differ from those that were fixed")
        raise SystemExit(0 if same else 1)
    table = evaluate(options.model, options.mask)
    if options.out:
        table.to_csv(options.out)
    kinds = table.select_dtypes("number").columns
    print(
        table.groupby("platform")[[c for c in kinds if c.startswith(("f1", "ece", "auroc"))]]
        .mean()
        .round(3)
        .T.to_string()
    )
    print(table.describe().loc[["mean", "std", "min", "50%", "max"]].round(3).T.to_string())
    print(figures(table))
    if options.card:
        from nimbus_sd.models import Card

        card = Card.read(options.card)
        replace(card, figures={**card.figures, **figures(table)}).write(options.card)


if __name__ == "__main__":
    main()
