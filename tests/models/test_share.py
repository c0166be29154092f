"""Models that users share on the hub: what is pushed is what is loaded."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, constants, hf_hub_download
from standin_hub import FIRST, SECOND

from nimbus_sd.models import PUBLISHED, UNet, load, push, save

CARD = replace(PUBLISHED, name="mine", root_filters=2, depth=2, training={"seed": 3}, boundary="cell")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "mine.safetensors"
    return path, save(UNet(2, 2), CARD, path)


@pytest.fixture
def hub_api(monkeypatch):
    """The hub's side of an upload: what it was asked for, and the files that it got."""
    got = {}
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: got.update(repository=name, **settings))

    def commit(self, name, operations, commit_message):
        got["files"] = {}
        for one in operations:
            with one.as_file() as file:
                got["files"][one.path_in_repo] = file.read()
        return SimpleNamespace(oid=FIRST)

    monkeypatch.setattr(HfApi, "create_commit", commit)
    return got


def test_what_is_pushed_is_what_is_loaded(model, hub_api, serve_hub):
    path, card = model
    name = push(path, "me/mine")
    assert name == f"hf:me/mine@{FIRST}"
    assert (hub_api["repository"], hub_api["private"], hub_api["exist_ok"]) == ("me/mine", True, True)
    standin = serve_hub("models", "me/mine", hub_api["files"])
    for given in (name, "hf:me/mine"):
        found = load(given)
        assert found.card == replace(card, revision=name) and found.card.training == {"seed": 3}
        for key, value in load(path).network.state_dict().items():
            assert torch.equal(found.network.state_dict()[key], value)
    standin.stop()
    assert load(name).card == load("hf:me/mine").card == replace(card, revision=name)


def test_without_a_revision_the_first_commit_is_kept_to(model, hub_api, serve_hub, tmp_path):
    path, card = model
    push(path, "me/mine")
    standin = serve_hub("models", "me/mine", hub_api["files"])
    assert load("hf:me/mine").card.revision == f"hf:me/mine@{FIRST}"
    save(UNet(2, 2), replace(CARD, name="other"), tmp_path / "other.safetensors")
    push(tmp_path / "other.safetensors", "me/mine")
    standin.server.commits[SECOND] = hub_api["files"]
    assert load("hf:me/mine").card == replace(card, revision=f"hf:me/mine@{FIRST}")
    assert load("hf:me/mine@main").card.name == "other"
    newer = load("hf:me/mine", update=True).card
    assert (newer.name, newer.revision) == ("other", f"hf:me/mine@{SECOND}")
    assert load("hf:me/mine").card == newer


@pytest.mark.parametrize("cached", [False, True])
def test_offline(model, hub_api, serve_hub, monkeypatch, caplog, cached):
    path, card = model
    name = push(path, "me/mine")
    standin = serve_hub("models", "me/mine", hub_api["files"])
    if cached:
        for file in ("model.safetensors", "model.json"):
            hf_hub_download("me/mine", file, endpoint=standin.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if cached:
        assert load("hf:me/mine").card == replace(card, revision=name)
        assert "may not be the latest" in caplog.text
    else:
        with pytest.raises(ConnectionError, match=r"'hf:me/mine' could not be .*HF_HUB_OFFLINE.*Give the path"):
            load("hf:me/mine")


def test_what_the_hub_does_not_hold_is_one_error(serve_hub):
    serve_hub("models", "me/mine", {"README.md": b"#"})
    with pytest.raises(ConnectionError, match=r"model 'hf:me/mine' could not be fetched"):
        load("hf:me/mine")


def test_an_upload_that_is_refused_is_one_error(model, monkeypatch):
    def refused(self, *_, **__):
        raise RuntimeError("401: who are you?")

    monkeypatch.setattr(HfApi, "create_repo", refused)
    with pytest.raises(ConnectionError, match=r"'me/mine' could not be written to .*who are you.*hf auth login"):
        push(model[0], "me/mine")


@pytest.mark.parametrize("name", ["mine", "me/mine/too", "https://x/y", ""])
def test_names_that_are_none_are_refused(model, name):
    with pytest.raises(ValueError, match="no repository of the hub"):
        push(model[0], name)
    with pytest.raises(ValueError, match="no repository of the hub"):
        load(f"hf:{name}")


def test_a_model_without_its_card_is_not_pushed(model):
    path, _ = model
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"mine\.json does not exist"):
        push(path, "me/mine")
