"""Fields of view as files: one of many channels, or a folder of one for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dask.array as da

from nimbus_sd.io.tiff import Tiff, list_tiffs, open_tiff, stem


def find_fovs(path: Path) -> dict[str, Path]:
    """Find the fields of view: for each, a folder of channels or a file."""
    if path.is_file():
        return {stem(path): path}
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and list_tiffs(folder))
    files = list_tiffs(path)
    if folders and files:
        raise ValueError(
            f"{path} holds folders with TIFF files ({folders[0].name}, ...) and TIFF files "
            f"({files[0].name}, ...): put fields of view of one kind into a folder."
        )
    if folders:
        return {folder.name: folder for folder in folders}
    if not files:
        raise FileNotFoundError(f"{path} holds no TIFF files, and no folders with TIFF files in them.")
    single = [len(open_tiff(file, planes_are_channels=True).pixels) == 1 for file in files]
    if all(single):
        return {path.name: path}
    if any(single):
        raise ValueError(
            f"{path} holds files of one channel ({files[single.index(True)].name}, ...) and of several "
            f"({files[single.index(False)].name}, ...): either each file is a field of view with all "
            "channels, or each is a channel."
        )
    return _by_stem(files)


def read_image(path: Path, channels: Sequence[str] | None) -> Tiff:
    """Read a field of view, with the names of its channels."""
    if path.is_dir():
        return _read_folder(path, channels)
    image = open_tiff(path, planes_are_channels=channels is not None)
    names = image.channels or [str(index) for index in range(len(image.pixels))]
    if channels is not None:
        names = [str(name) for name in channels]
        if len(names) != len(image.pixels):
            raise ValueError(f"`channels` has {len(names)} names, but {path} has {len(image.pixels)} channels.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has several channels named {twice}; name all its channels with `channels`.")
    return replace(image, channels=names)


def _read_folder(folder: Path, channels: Sequence[str] | None) -> Tiff:
    """Read a folder of single-channel files as one image."""
    files = _by_stem(list_tiffs(folder))
    if len(files) == 1:
        (file,) = files.values()
        if len(open_tiff(file, planes_are_channels=True).pixels) > 1:
            return read_image(file, channels)
    names = [str(name) for name in channels or files]
    if missing := [name for name in names if name not in files]:
        raise ValueError(f"{folder} holds no channels {missing}; there is: {list(files)}.")
    planes = [open_tiff(files[name]) for name in names]
    for plane in planes:
        if plane.pixels.shape != (1, *planes[0].pixels.shape[1:]):
            raise ValueError(
                f"{plane.path} is of shape {plane.pixels.shape} (c, y, x) and {planes[0].path} of "
                f"{planes[0].pixels.shape}; files of one field of view must hold one channel each, of one "
                "size."
            )
    return replace(planes[0], path=folder, pixels=da.concatenate([plane.pixels for plane in planes]), channels=names)


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for file in files:
        if stem(file) in named:
            raise ValueError(f"{named[stem(file)]} and {file.name} beside it are of one name; remove one of them.")
        named[stem(file)] = file
    return named
