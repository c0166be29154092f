"""Show simulated tissue beside real tissue, platform by platform: ``python benchmarks/contact_sheet.py --data FOLDER``.

Odd rows are real where a tissue of the platform is in the folder, even rows are simulated as that platform. All windows
are 80 um wide, each divided by the 0.999 quantile of its channel as ``predict`` does it, with masks outlined.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from nimbus_sd.simulate import PLATFORMS, draw_look, draw_tissue, expose, segment, stain

REAL = {
    "CODEX": [("codex_lymphoid", "labels.tif", 0.5), ("codex_intestine", "labels_expert1.tif", 0.38)],
    "MIBI": [("mibi_dcis", None, 0.49)],
    "Vectra": [("vectra_lymphoid", "labels.tif", 0.5)],
}
WIDTH, COLUMNS = 80.0, 8


def simulated(platform: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Draw one window and its mask."""
    look = draw_look(platform, rng)
    side = round(WIDTH / look.pixel_size)
    tissue = draw_tissue((side, side), look.pixel_size, rng, radius=look.radius, density=look.density)
    labels, _ = segment(tissue, look.segmentation, rng)
    stained = stain(tissue, look.marker, rng)
    image = expose(stained.own + stained.rest, tissue, look.detector, rng)
    title = f"{look.marker.localization}, {look.marker.prevalence:.0%}, {look.segmentation.target}"
    return image / max(float(np.quantile(image, 0.999)), 1e-9), labels, title


def real(platform: str, data: Path | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Cut the brightest of some windows of a random channel, and its mask (none: zeros)."""
    import tifffile

    from nimbus_sd.io import read_fovs

    present = [tissue for tissue in REAL.get(platform, []) if data and (data / tissue[0]).is_dir()]
    if data is None or not present:
        return None
    folder, mask, pixel_size = present[rng.integers(len(present))]
    path = data / folder / "image.ome.tif"
    if mask:
        sdata = read_fovs(path, data / folder / mask, pixel_size=pixel_size)
        image, labels = (next(iter(e.values())) for e in (sdata.images, sdata.labels))
        names, image, labels = list(image.c.values), image.to_numpy(), labels.to_numpy()
    else:
        image = tifffile.imread(path)
        names, labels = [str(i) for i in range(len(image))], np.zeros(image.shape[1:], int)
    channel = int(rng.integers(len(image)))
    side = round(WIDTH / pixel_size)
    places = [[int(rng.integers(0, max(1, n - side))) for n in labels.shape] for _ in range(6)]
    windows = [np.s_[y : y + side, x : x + side] for y, x in places]
    window = max(windows, key=lambda w: float(image[channel][w].mean()))
    top = max(float(np.quantile(image[channel], 0.999)), 1e-9)
    return image[channel][window] / top, labels[window], f"{folder} {names[channel]}"


def main() -> None:
    """Run from the command line."""
    import matplotlib.pyplot as plt
    from skimage.segmentation import find_boundaries

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real tissues")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    figure, grid = plt.subplots(
        2 * len(PLATFORMS), COLUMNS, figsize=(2.6 * COLUMNS, 5.6 * len(PLATFORMS)), layout="constrained"
    )
    for row, axes_of_row in enumerate(grid):
        platform = list(PLATFORMS)[row // 2]
        for column, axes in enumerate(axes_of_row):
            rng = np.random.default_rng([options.seed, row, column])
            axes.axis("off")
            shown = simulated(platform, rng) if row % 2 else real(platform, options.data, rng)
            if shown is None:
                continue
            image, labels, title = shown
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            if labels.any():
                axes.contour(find_boundaries(labels, mode="inner"), [0.5], colors="deepskyblue", linewidths=0.3)
            axes.set_title(f"{platform}: {title}" if row % 2 else title, fontsize=7)
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
