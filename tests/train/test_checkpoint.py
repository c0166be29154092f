"""The state of a training run: damaged and foreign files are one clear error."""

import re

import pytest
import torch

pytest.importorskip("tensorboard")

from nimbus_sd.train.checkpoint import read_checkpoint, write_checkpoint


def test_it_comes_back(tmp_path):
    path = tmp_path / "last.ckpt"
    assert read_checkpoint(path, {"seed": 1}) is None
    write_checkpoint(path, {"step": 3}, {"seed": 1})
    assert read_checkpoint(path, {"seed": 1})["step"] == 3
    with pytest.raises(ValueError, match="seed was 1, now 2"):
        read_checkpoint(path, {"seed": 2})


@pytest.mark.parametrize("content", [[1], {}, {"inputs": 3}, {"inputs": "{"}, {"inputs": "[1]"}], ids=str)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"last\.ckpt holds no state of a training run.*delete it"):
        read_checkpoint(path, {"seed": 1})


def test_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, {"network": torch.arange(1000.0)}, {"seed": 1})
    data = bytearray(path.read_bytes())
    data[re.search(torch.arange(500.0, 502.0).numpy().tobytes(), data).start()] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*delete it"):
        read_checkpoint(path, {"seed": 1})
