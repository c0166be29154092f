"""Files that are written in place of others: a full disk leaves what was there."""

import contextlib
import dataclasses
import os
import stat

import pytest
import torch
from command_line import raising

from nimbus_sd import _hub
from nimbus_sd._disk import put_folder, replacing, settle
from nimbus_sd.models import PUBLISHED, UNet, save
from nimbus_sd.pl.report import write_page
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


def test_links_and_permissions(tmp_path):
    """The file is put in place of the old one, never written into: that has another name, and its text."""
    target, other_name, link, plain = (tmp_path / name for name in ("target", "other_name", "link", "plain"))
    target.touch(0o640)
    plain.touch()
    link.symlink_to(target)
    os.link(target, other_name)
    with replacing(link, tmp_path / "new") as files:
        for file in files:
            file.write_text("new")
    assert link.is_symlink() and target.read_text() == "new" and stat.S_IMODE(target.stat().st_mode) == 0o640
    assert other_name.read_text() == "" and (tmp_path / "new").stat().st_mode == plain.stat().st_mode


def folder(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.parametrize("moved", [False, True], ids=["before", "after"])
def test_a_folder_is_put_back_after_a_kill(tmp_path, moved):
    path, new, aside = tmp_path / "here", folder(tmp_path / "new", "new"), folder(tmp_path / "aside", "old")
    if moved:
        new.rename(path)
    settle(new, path, aside)
    assert (path / "file").read_text() == ("new" if moved else "old") and os.listdir(tmp_path) == ["here"]


def test_a_folder_takes_the_place_of_another_or_leaves_it(tmp_path, monkeypatch):
    old, new = folder(tmp_path / "here", "old"), folder(tmp_path / "new", "new")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", raising(OSError("No space left on device")))
        put_folder(new, old, tmp_path / "aside")
    assert (old / "file").read_text() == "old"
    put_folder(new, old, tmp_path / "aside")
    assert (old / "file").read_text() == "new" and os.listdir(tmp_path) == ["here"]
