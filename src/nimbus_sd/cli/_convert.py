"""``nimbus-sd convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimbus_sd.cli._files import write_store
from nimbus_sd.cli._messages import plain_messages, say


def convert(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="OME-TIFF, folder of single-channel TIFFs, or folder of those.")
    ],
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="Label TIFF, or folder of them.")],
    out: Annotated[Path, typer.Option(help="SpatialData store to write (.zarr).")],
    pixel_size: Annotated[float | None, typer.Option(help="um per pixel, where the file does not say.")] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", metavar="NAME", help="Name of a channel; repeat for all of them.")
    ] = None,
    mask_pattern: Annotated[str | None, typer.Option(help='Which mask is whose, e.g. "{fov}_whole_cell.tiff".')] = None,
) -> None:
    """Turn images and masks into a SpatialData store."""
    with plain_messages():
        import nimbus_sd as ns

        if out.exists():
            raise FileExistsError(f"{out} exists already; name a new store.")
        if out.suffix != ".zarr":
            raise ValueError(f"--out {out} must end in .zarr.")
        sdata = ns.io.read_fovs(image, mask, pixel_size=pixel_size, channels=channels, mask_pattern=mask_pattern)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_store(sdata, out)
        say(f"Wrote {len(sdata.images)} image(s) and {len(sdata.labels)} mask(s) to {out}.")
