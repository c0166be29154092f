"""Where a model's scores lie: F1 over thresholds, and what shifting and stretching their logits does to calibration.

``python benchmarks/score_level.py --model FILE`` scores the images of ``bundled_model.py``. Scale and shift are fitted
on simulated tissue of the training's kind (class-balanced cross-entropy), never on the benchmark, and reported on both.
"""

from __future__ import annotations

import argparse

import bundled_model
import numpy as np
import pandas as pd

SEED, N_TISSUES = 77_000_000, 40
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)

Cells = tuple[np.ndarray, np.ndarray]


def benchmark_cells(model: str, images: int) -> list[Cells]:
    """Scores and states (bool) of each image's determined cells."""
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel

    import nimbus_sd as ns

    found = []
    for number in range(images):
        image, labels, known, look = bundled_model.simulated_image(number)
        sdata = SpatialData(
            images={"image": Image2DModel.parse(image[None], dims=("c", "y", "x"), c_coords=["marker"])},
            labels={"cells": Labels2DModel.parse(labels, dims=("y", "x"))},
        )
        adata = ns.predict(sdata, model=model, pixel_size=look.pixel_size, progress=False)
        state = known[adata.obs["instance_id"].to_numpy()]
        found.append((adata.layers["nimbus"][state != 0.5, 0], state[state != 0.5] == 1))
    return found


def training_cells(model: str, tissues: int = N_TISSUES) -> list[Cells]:
    """Scores and states of tiles of the training's kind that it has not seen, those with 5 cells of each state."""
    from nimbus_sd.models import Scorer, load
    from nimbus_sd.simulate import training_tiles
    from nimbus_sd.train.compact import COUNTERSTAIN, SIZE

    scorer, found = Scorer(load(model), tta=False), []
    for number in range(tissues):
        rng = np.random.default_rng(SEED + number)
        for tile in training_tiles(rng, SIZE, markers=2, regions=3, counterstain=COUNTERSTAIN):
            scores = scorer(tile.image[None], tile.interior)[0]
            area = np.bincount(tile.cells.ravel(), minlength=len(tile.labels))
            mean = np.bincount(tile.cells.ravel(), scores.ravel(), minlength=len(tile.labels)) / np.maximum(area, 1)
            known = (area > 15) & (tile.labels != 0.5)
            known[0] = False
            positive = tile.labels[known] == 1
            if positive.sum() >= 5 and (~positive).sum() >= 5:
                found.append((mean[known], positive))
    return found


def calibration_errors(scores: np.ndarray, positive: np.ndarray) -> pd.Series:
    """``ece`` and ``ece_balanced`` of an image's cells (:func:`nimbus_sd.metrics.calibration_error`)."""
    from anndata import AnnData

    import nimbus_sd as ns

    layers = {"nimbus": scores[:, None], "gold": positive[:, None].astype(float)}
    return ns.metrics.calibration_error(AnnData(layers=layers)).iloc[0]


def moved(scores: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Scores whose logits are stretched and shifted."""
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    return 1 / (1 + np.exp(-(scale * np.log(clipped / (1 - clipped)) + shift)))


def fit(cells: list[Cells]) -> tuple[float, float]:
    """Scale and shift of least class-balanced cross-entropy, each image counting the same."""
    from scipy.optimize import minimize

    def cost(parameters: np.ndarray) -> float:
        losses = []
        for scores, positive in cells:
            p = np.clip(moved(scores, *parameters), 1e-6, 1 - 1e-6)
            losses.append(-(np.log(p[positive]).mean() + np.log(1 - p[~positive]).mean()) / 2)
        return float(np.mean(losses))

    scale, shift = minimize(cost, [1.0, 0.0], method="Nelder-Mead").x
    return float(scale), float(shift)


def table(cells: list[Cells], corrections: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Means over images: calibration errors, and F1 at each threshold."""
    rows = {}
    for name, (scale, shift) in corrections.items():
        images = [(moved(s, scale, shift), p) for s, p in cells]
        ece = pd.DataFrame([calibration_errors(*image) for image in images])[["ece_balanced", "ece"]].mean()
        errors = {"ECE, balanced": ece["ece_balanced"], "ECE": ece["ece"]}
        f1 = {f"F1 at {t}": np.mean([bundled_model.f1(s >= t, p) for s, p in images]) for t in THRESHOLDS}
        rows[name] = errors | f1
    return pd.DataFrame(rows).T.round(3)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--images", type=int, default=bundled_model.N_IMAGES)
    options = parser.parse_args()
    own = training_cells(options.model)
    scale, shift = fit(own)
    corrections = {"as it is": (1.0, 0.0), f"logits x {scale:.2f} + {shift:.2f}": (scale, shift)}
    print(f"{len(own)} held-out tiles of the training's kind")
    print(table(own, corrections).to_string())
    print(f"the first {options.images} images of the frozen benchmark")
    print(table(benchmark_cells(options.model, options.images), corrections).to_string())


if __name__ == "__main__":
    main()
