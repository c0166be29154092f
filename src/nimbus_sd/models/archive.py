"""Files of ``torch.save``, checked before anything in them is read."""

import io
import zipfile
from typing import Any

import torch

_FOLDER = 0x10


def read_archive(data: bytes, where: str) -> Any:
    """Read a file of ``torch.save``: its checksums first, then what torch's restricted unpickler lets pass.

    Parameters
    ----------
    data
        Content of the file.
    where
        What is read, for the message of an error.

    Returns
    -------
    Tensors on the CPU and plain values.

    Raises
    ------
    ValueError
        The file is damaged, holds no checksums, or more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch takes an entry that is marked as a folder for empty, whatever it holds.
            marked = (entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER)
            damaged = archive.testzip() or next(marked, None)
    except Exception as error:
        # Damaged and hostile files make zipfile and the unpickler raise almost anything.
        raise ValueError(
            f"{where} is damaged or not a zip archive, as torch.save writes it since torch 1.6. Older forms hold no "
            "checksums and are not read: load such a file with torch, and save it anew."
        ) from error
    if damaged:
        raise ValueError(f"{where} is damaged: {damaged!r} in it is not what was written. Get the file anew.")
    try:
        return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        raise ValueError(f"{where} is damaged or holds more than tensors; it was not loaded.") from error
