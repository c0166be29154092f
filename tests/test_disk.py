"""Files that are written in place of others: a full disk leaves what was there."""

import contextlib
import dataclasses
import os
import stat
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest
import torch

from nimbus_sd import _disk, _hub
from nimbus_sd._disk import put_folder, replacing, settle
from nimbus_sd.models import PUBLISHED, UNet, save
from nimbus_sd.pl._page import write_page
from nimbus_sd.tl import Metaclusters

resource = pytest.importorskip("resource", reason="the size of files is limited on POSIX")


@contextlib.contextmanager
def full_disk(size=20):
    """No file grows beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _checkpoint(path, value):
    write_checkpoint = pytest.importorskip("nimbus_sd.train.run").write_checkpoint
    write_checkpoint(path, {"weights": torch.full((500,), float(value))}, {})


WRITERS = {
    "clusters.json": lambda path, value: Metaclusters.start([str(value), "x"]).save(path),
    "clusters.csv": lambda path, value: Metaclusters.start([str(value), "x"]).save(path),
    "card.json": lambda path, value: PUBLISHED.write(path) if value else path.write_text("an older card"),
    "page.html": lambda path, value: write_page(path, str(value), ["text"]),
    "record.json": lambda path, value: _hub.write_record(path, {"commit": str(value) * 40}),
    "last.ckpt": _checkpoint,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, 0)
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError) as error:
        WRITERS[name](path, 1)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]
    said = " ".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert said.endswith(f"Nothing was written to {path}.")
    WRITERS[name](path, 1)
    assert path.read_bytes() != before and os.listdir(tmp_path) == [name]


def test_weights_and_their_card_are_replaced_together(tmp_path):
    path = tmp_path / "model.safetensors"
    network = UNet(2, 3)
    card = dataclasses.replace(PUBLISHED, root_filters=2, depth=3, padding=network.padding, patch=network.patch)
    save(network, card, path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    torch.nn.init.constant_(network.final_conv.bias, 1.0)
    with pytest.raises(OSError), full_disk(len(before[path]) - 1):
        save(network, card, path)
    described = dataclasses.replace(card, description="long " * len(before[path]))
    with pytest.raises(OSError), full_disk(len(before[path])):
        save(network, described, path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before and len(before) == 2


def test_links_and_permissions_stay(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with replacing(link) as (file,):
        file.write_text("new")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_that_files_have(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file") as (file,):
        file.write_text("new")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def folder(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_takes_the_place_of_another(tmp_path):
    old, new, aside = folder(tmp_path / "here", "old"), folder(tmp_path / "new", "new"), tmp_path / "aside"
    put_folder(new, old, aside)
    assert (old / "file").read_text() == "new" and os.listdir(tmp_path) == ["here"]


@pytest.mark.parametrize("moved", [False, True], ids=["before", "after"])
def test_a_folder_is_put_back_after_a_kill(tmp_path, moved):
    path, new, aside = tmp_path / "here", folder(tmp_path / "new", "new"), folder(tmp_path / "aside", "old")
    if moved:
        new.rename(path)
    settle(new, path, aside)
    assert (path / "file").read_text() == ("new" if moved else "old") and os.listdir(tmp_path) == ["here"]


def test_a_folder_that_cannot_be_put_leaves_the_old_one(tmp_path, monkeypatch):
    old, new = folder(tmp_path / "here", "old"), folder(tmp_path / "new", "new")

    def fail(path):
        if path == new:
            raise OSError("No space left on device")

    monkeypatch.setattr(_disk, "sync", fail)
    with pytest.raises(OSError, match="No space"):
        put_folder(new, old, tmp_path / "aside")
    assert (old / "file").read_text() == "old"


FILL_THE_DISK = """
import resource, sys
import anndata as ad, numpy as np
from nimbus_sd._disk import replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    with replacing(sys.argv[1]) as (file,):
        ad.AnnData(np.ones((300, 20), np.float32)).write_h5ad(file)
except OSError as error:
    print(error, *getattr(error, "__notes__", []), flush=True)
"""


def test_tables_as_h5ad(tmp_path):
    path = tmp_path / "cells.h5ad"
    ad.AnnData(np.zeros((3, 2), np.float32)).write_h5ad(path)
    before = path.read_bytes()
    # In a process of its own: HDF5 may crash at its end over a file that it could not close.
    process = subprocess.run([sys.executable, "-c", FILL_THE_DISK, path], capture_output=True, text=True)
    assert "Nothing was written to" in process.stdout
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["cells.h5ad"]
