"""Put trained weights into the package: ``python bundle.py WORK`` writes ``compact-5`` and its card.

The card names what was measured by ``report.py`` (``figures.csv``). ``benchmarks/model_card.py`` adds the figures on
simulated images and writes the documentation's page.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from corpus import PIXEL_SIZE
from ranges import ranges, statistics
from score import read_states
from silver import read_gates
from train import trained

from nimbus_sd.models import save

HERE = Path(__file__).parent
WEIGHTS = HERE.parents[1] / "src" / "nimbus_sd" / "models" / "weights"
REVISION = "5"
DESCRIPTION = (
    "Small residual U-Net for a laptop, trained on seven data sets of real tissue and on simulation. It is not "
    "the published Nimbus model. {sentence} It was judged by eyes of a vision-language model on cells that are "
    "plain, not by pathologists. Its order of cells is better than its line: where it calls too many or too few "
    "cells of a marker, a few labels (nimbus_sd.tl.adapt) move the line. It misses membranes that lie outside of "
    "nuclear masks. Look at the pictures before using its calls."
)
TRAINED_ON = (
    "{steps} steps of 8 tiles of 96 x 96 um at 0.5 um per pixel, from the weights of version 4 (simulated tissue "
    "only). About two thirds of the tiles show real tissue: {channels} channels of seven data sets (CODEX twice, "
    "MIBI twice, IMC, Vectra, immunofluorescence; lymphoid tissue, spleen, intestine, breast), labelled by gates "
    "and by {judged} cells judged one by one, with noise-robust selection; the others are simulated "
    "(nimbus_sd.simulate). Sources and licences: tools/compact/README.md; one of the seven, MIBI of breast (Risom"
    " et al., Cell 2022), is openly published, its licence not stated where its files were found. The weights are"
    " averaged over the last steps and stored in 16 bits."
)


def main() -> None:
    """Write the weights and the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    model = trained(work, "final", HERE / "start.safetensors")
    steps = torch.load(work / "runs" / "final" / "last.pt", weights_only=True)["step"]
    figures = pd.read_csv(HERE / "figures.csv")
    even = figures[figures["drawn"] == "even"]
    by_name = {
        "left_out_f1": even["left out: F1"].mean(),
        "left_out_auroc": even["left out: AUROC"].mean(),
        "known_f1": even["known: F1"].mean(),
        "mean_otsu_f1": even["mean: otsu"].mean(),
        "mean_best_f1": even["mean: best F1"].mean(),
        **{f"left_out_f1_{d}": even.loc[even["dataset"] == d, "left out: F1"].mean() for d in PIXEL_SIZE},
    }
    gates, states = read_gates(), read_states()
    sentence = (
        "On data sets that were left out of training, its calls at 0.5 have an F1 of {left_out_f1:.2f} (mean over "
        "{channels} channels; {lowest:.2f} to {highest:.2f} by data set), where Otsu's threshold on the mean has "
        "{mean_otsu_f1:.2f} and the best possible one {mean_best_f1:.2f}."
    ).format(
        **by_name,
        channels=len(even),
        lowest=min(by_name[f"left_out_f1_{d}"] for d in PIXEL_SIZE),
        highest=max(by_name[f"left_out_f1_{d}"] for d in PIXEL_SIZE),
    )
    judged = (~states["gold"] & (states["state"] != "u")).sum()
    card = replace(
        model.card,
        description=DESCRIPTION.format(sentence=sentence),
        trained_on=TRAINED_ON.format(steps=steps, channels=(gates["quality"] != "exclude").sum(), judged=f"{judged:,}"),
        source="tools/compact",
        figures={name: round(float(value), 3) for name, value in by_name.items()},
        ranges=ranges(statistics(work)),
        revision=REVISION,
    )
    for old in WEIGHTS.glob("compact-*"):
        old.unlink()
    save(model.network, card, WEIGHTS / f"compact-{REVISION}.safetensors", half=True)


if __name__ == "__main__":
    main()
