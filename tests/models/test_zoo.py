"""Loading and saving models, and files that must not load."""

import copy
import hashlib
import logging
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from nimbus_sd.models import PUBLISHED, load, save, zoo


def same_weights(network, other):
    weights, others = network.state_dict(), other.state_dict()
    return list(weights) == list(others) and all(torch.equal(weights[key], others[key]) for key in weights)


@pytest.fixture
def checkpoint(network, tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(network.state_dict(), path)
    return path


def test_save_and_load(model, tmp_path):
    path = tmp_path / "tuned.safetensors"
    network = copy.deepcopy(model.network).to(memory_format=torch.channels_last)
    written = save(network, model.card, str(path))
    loaded = load(path)
    assert loaded.card == written == replace(model.card, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert same_weights(loaded.network, model.network)
    assert not any(module.training for module in loaded.network.modules())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tuned.json", "tuned.safetensors"]
    save(model, model.card, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * path.stat().st_size
    half = load(tmp_path / "half.safetensors").network.state_dict()
    for key, value in model.network.state_dict().items():
        torch.testing.assert_close(half[key], value, rtol=1e-3, atol=1e-6)


def test_save_refuses(model, tmp_path):
    with pytest.raises(ValueError, match=r"end.* in \.safetensors"):
        save(model, model.card, tmp_path / "tuned.pt")
    with pytest.raises(ValueError, match=r"The network has .*reflect.*card says .*zeros"):
        save(model, replace(model.card, padding="zeros"), tmp_path / "tuned.safetensors")
    assert not list(tmp_path.iterdir())


def test_published_layout(network, checkpoint):
    loaded = load(checkpoint)
    assert same_weights(loaded.network, network)
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    unknown = {"license": "not stated", "trained_on": "not stated", "figures": {}, "source": "mine.pt"}
    card = replace(PUBLISHED, name="mine", root_filters=4, depth=3, sha256=sha256, **unknown)
    assert replace(loaded.card, description=card.description) == card


def test_compact_is_checked_against_its_card_and_named_in_the_log(model, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    card = save(model, replace(model.card, name="compact"), tmp_path / "compact-1.safetensors")
    with caplog.at_level(logging.INFO, logger="nimbus_sd"):
        assert same_weights(load("compact").network, model.network)
    assert "simulated tissue" in caplog.text and "not the published Nimbus model" in caplog.text
    replace(card, sha256="0" * 64).write(tmp_path / "compact-1.json")
    with pytest.raises(ValueError, match=f"sha256 is {card.sha256}, the card says 0000"):
        load("compact")


@pytest.mark.parametrize("name", ["nimbu", "model.onnx", "", "weights/compact", "V1.pth"])
def test_unknown_names(name):
    with pytest.raises(ValueError, match=r"'compact'.*'nimbus'.*\.safetensors.*\.pt"):
        load(name)
    with pytest.raises(ValueError, match="update=True is for model='nimbus' and 'hf:"):
        load(name, update=True)


def test_missing_files(model, tmp_path):
    save(model, model.card, tmp_path / "lone.safetensors")
    (tmp_path / "lone.json").unlink()
    for name, missing in (("none.pt", "none.pt"), ("none.safetensors", "none.saf"), ("lone.safetensors", "lone.json")):
        with pytest.raises(FileNotFoundError, match=f"{missing}.* does not exist"):
            load(tmp_path / name)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_in_a_pickle_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    torch.save({"contracting_layers.0.conv2d_0.weight": Hostile(mark)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    for name, said in (("zip.pt", "damaged or holds more than tensors"), ("bare.pt", "damaged or not a zip archive")):
        with pytest.raises(ValueError, match=said):
            load(tmp_path / name)
    assert not mark.exists()


def test_damaged_files_and_a_form_without_checksums(network, checkpoint):
    good = checkpoint.read_bytes()
    for data in (b"", b"\x80", bytes(range(256)) * 8, b"<html>not found</html>", good[: len(good) // 2], good[9:]):
        checkpoint.write_bytes(data)
        with pytest.raises(ValueError, match=r"mine\.pt is damaged"):
            load(checkpoint)
    torch.save(network.state_dict(), checkpoint, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"mine\.pt is damaged or not a zip archive.*save it anew"):
        load(checkpoint)


def test_no_flipped_bit_loads_other_weights(network, checkpoint):
    good = checkpoint.read_bytes()
    (start,) = (info.header_offset for info in zipfile.ZipFile(checkpoint).infolist() if info.filename.endswith("/0"))
    rng = np.random.default_rng(0)
    # Of the data, and of all else: names, offsets, the pickle.
    places = [*rng.integers(0, len(good), 100), *rng.integers(0, start, 100), *rng.integers(-6000, 0, 200)]
    refused = 0
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << rng.integers(8)
        checkpoint.write_bytes(data)
        try:
            assert same_weights(load(checkpoint).network, network)
        except ValueError as error:
            assert "mine.pt is damaged" in str(error)
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({1: torch.zeros(1)}, "entry 1 is not one"),
        ({"a": torch.eye(2).to_sparse()}, "entry 'a' is not one"),
        ({"a": torch.zeros(1)}, "is missing"),
    ],
    ids=str,
)
def test_other_contents(checkpoint, content, message):
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match=rf"mine\.pt.*{message}"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("final_conv.bias", torch.tensor([float("nan")]), "not finite"),
        *(
            ("final_conv.weight", torch.zeros((1, 4, 1, 1), dtype=dtype), f"is of {dtype}; weights must be of")
            for dtype in (torch.complex64, torch.int32, torch.float8_e5m2)
        ),
        ("final_conv.weight", torch.full((1, 4, 1, 1), 1e300, dtype=torch.float64), "not finite as float32"),
        ("bottle_neck.bn_1.running_var", torch.full((16,), -1.0), "negative variances"),
        ("final_conv.weight", torch.zeros(1, 4, 3, 3), "mismatch for final_conv.weight"),
        ("final_conv.scale", torch.zeros(1), 'Unexpected key.*"final_conv.scale"'),
        ("contracting_layers.0.conv2d_0.weight", torch.zeros(()), "no 2-D convolution"),
        ("contracting_layers.0.conv2d_0.weight", torch.zeros(4, 200, 1, 1), "patch is 10"),
        ("final_conv.bias", None, 'Missing key.*"final_conv.bias"'),
    ],
    ids=str,
)
def test_wrong_weights(network, checkpoint, key, value, message):
    state = network.state_dict() | {key: value}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, checkpoint)
    with pytest.raises(ValueError, match=rf"mine\.pt.*{message}"):
        load(checkpoint)


def test_safetensors_that_do_not_fit(model, tmp_path, caplog):
    path, card_path = tmp_path / "tuned.safetensors", tmp_path / "tuned.json"
    card = save(model, model.card, path)
    replace(card, root_filters=8).write(card_path)
    with pytest.raises(ValueError, match=r"root_filters.: 4.*card says .*root_filters.: 8"):
        load(path)
    path.write_bytes(path.read_bytes()[:-8])
    card.write(card_path)
    with pytest.raises(ValueError, match="not the file of its card"):
        load(path)
    replace(card, sha256=None).write(card_path)
    assert "names no sha256" not in caplog.text
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(path)
    assert "tuned.safetensors names no sha256 of its weights" in caplog.text
    card_path.write_text("{}")
    with pytest.raises(ValueError, match=r"tuned\.json: missing .* 'name'"):
        load(path)
