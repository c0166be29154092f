"""The published weights, and models that users share, from a stand-in for the Hugging Face hub."""

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, constants, hf_hub_download
from standin_hub import FIRST, SECOND, Handler

from nimbus_sd.models import PUBLISHED, UNet, hub, load, push, save

REPOSITORY = hub.REPOSITORY


def checkpoint(root_filters):
    file = io.BytesIO()
    torch.save(UNet(root_filters, 2).state_dict(), file)
    return file.getvalue()


@pytest.fixture
def standin(serve_hub):
    files = {"README.md": b"#", "V2.pt": checkpoint(2), "V10.pt": checkpoint(3), "V11.pt.bak": b"", "xV99.pt": b""}
    return serve_hub("models", REPOSITORY, files)


def test_highest_number_is_taken_and_kept_until_an_update(standin, tmp_path):
    model = load("nimbus")
    assert (model.card.name, model.card.root_filters, model.card.depth) == ("nimbus", 3, 2)
    assert model.card.revision == f"V10.pt@{FIRST}"
    assert model.card.sha256 == hashlib.sha256(standin.server.commits[FIRST]["V10.pt"]).hexdigest()
    assert model.card.source == REPOSITORY

    # A newer version is for those who ask; the recorded one is downloaded again where the cache was emptied.
    standin.publish("V11.pt", checkpoint(4))
    assert load("nimbus").card == model.card
    (tmp_path / "hub").rename(tmp_path / "gone")
    assert load("nimbus").card == model.card
    newer = load("nimbus", update=True)
    assert (newer.card.root_filters, newer.card.revision) == (4, f"V11.pt@{SECOND}")

    # From now on no connection is needed but for an update.
    standin.stop()
    assert load("nimbus").card == newer.card
    with pytest.raises(ConnectionError, match="could not be fetched"):
        load("nimbus", update=True)
    assert load("nimbus").card == newer.card


def test_unreadable_record_is_looked_up_again(standin, tmp_path, caplog):
    first = load("nimbus")
    (record,) = (tmp_path / "assets").rglob("*.json")
    # A record without a sha256 gets one.
    record.write_text(json.dumps({"file": "V10.pt", "commit": FIRST}))
    assert load("nimbus").card == first.card and first.card.sha256 in record.read_text()
    assert "looked up again" not in caplog.text
    for text in ("", "[]", "7", '{"file": "V1.pt"}', '{"file": "../V1.pt", "commit": 3}', "[" * 10**5):
        record.write_text(text)
        assert load("nimbus").card == first.card
        assert "looked up again" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("stated", [True, False])
def test_a_cached_file_that_changed_is_refused_and_downloaded_again(standin, monkeypatch, stated):
    if not stated:
        # A mirror that says nothing of sha256: the file counts as it came first.
        version = {"file": "V10.pt", "commit": FIRST, "sha256": None}
        monkeypatch.setattr(hub, "_look_up", lambda *_, **__: version)
    first = load("nimbus")
    hub.fetch()[0].resolve().write_bytes(checkpoint(3))
    with pytest.raises(ValueError, match=rf"V10\.pt is damaged.* must be {first.card.sha256}.*call again"):
        load("nimbus")
    assert load("nimbus").card == first.card


def test_a_first_download_is_compared_with_what_the_hub_states_and_with_what_is_known(standin, monkeypatch):
    standin.server.changed["V10.pt"] = (changed := checkpoint(3))
    with pytest.raises(ValueError, match=r"V10\.pt is damaged"):
        load("nimbus")
    standin.server.changed.clear()
    monkeypatch.setattr(hub, "KNOWN", {"V10.pt": hashlib.sha256(changed).hexdigest()})
    with pytest.raises(ValueError, match=r"V10\.pt is damaged"):
        load("nimbus")


@pytest.mark.parametrize("offline", [False, True])
def test_no_hub(standin, monkeypatch, offline):
    standin.stop()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ConnectionError, match=f"^.*{standin.url}.*model='/path/V1.pt'.*model='compact'.*$"):
        load("nimbus")


def test_hub_without_weights_repository_or_hub(standin, monkeypatch):
    standin.server.commits = {FIRST: {"README.md": b"#"}}
    with pytest.raises(ConnectionError, match=r"lists no file V<number>\.pt"):
        load("nimbus")
    with pytest.raises(ConnectionError, match=r"model 'hf:me/mine' could not be fetched.*404"):
        load("hf:me/mine")
    monkeypatch.setattr(Handler, "do_GET", lambda self: self.answer(b"<html>Please log in</html>"))
    with pytest.raises(ConnectionError, match="could not be fetched"):
        load("nimbus")


def test_environment_variables(standin, tmp_path):
    # In a process of its own, as huggingface_hub reads some of them when it is imported.
    command = [sys.executable, "-c", "from nimbus_sd.models import hub; print(*hub.fetch())"]
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE_"))}
    variables |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": standin.url}
    online = subprocess.check_output(command, env=variables, text=True, timeout=60)
    assert f"V10.pt@{FIRST}" in online and str(tmp_path / "home") in online
    standin.stop()
    assert subprocess.check_output(command, env=variables | {"HF_HUB_OFFLINE": "1"}, text=True, timeout=60) == online


CARD = replace(PUBLISHED, name="mine", root_filters=2, depth=2, training={"seed": 3}, boundary="cell")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.safetensors"
    return path, save(UNet(2, 2), CARD, path)


@pytest.fixture
def uploaded(monkeypatch):
    """The hub's side of an upload: the repository that it was asked for, and the files that it got."""
    calls, files = [], {}

    def commit(self, name, operations, commit_message):
        files.update((operation.path_in_repo, Path(operation.path_or_fileobj).read_bytes()) for operation in operations)
        return SimpleNamespace(oid=FIRST)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: calls.append((name, settings)))
    monkeypatch.setattr(HfApi, "create_commit", commit)
    return calls, files


def test_what_is_pushed_is_what_is_loaded_and_kept_until_an_update(mine, uploaded, serve_hub, tmp_path):
    (path, card), (calls, files) = mine, uploaded
    name = push(path, "me/mine")
    assert name == f"hf:me/mine@{FIRST}" and calls == [("me/mine", {"private": True, "exist_ok": True})]
    standin = serve_hub("models", "me/mine", files)
    for given in (name, "hf:me/mine"):
        loaded = load(given)
        assert loaded.card == replace(card, revision=name) and loaded.card.training == {"seed": 3}
        for key, value in load(path).network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[key], value)
    save(UNet(2, 2), replace(CARD, name="other"), tmp_path / "other.safetensors")
    push(tmp_path / "other.safetensors", "me/mine")
    standin.server.commits[SECOND] = files
    assert load("hf:me/mine").card == replace(card, revision=name)
    assert load("hf:me/mine@main").card.name == "other"
    newer = load("hf:me/mine", update=True).card
    assert (newer.name, newer.revision) == ("other", f"hf:me/mine@{SECOND}")
    standin.stop()
    assert load("hf:me/mine").card == newer and load(name).card == replace(card, revision=name)


def test_offline(mine, uploaded, serve_hub, monkeypatch, caplog):
    name = push(mine[0], "me/mine")
    standin = serve_hub("models", "me/mine", uploaded[1])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"'hf:me/mine' could not be .*HF_HUB_OFFLINE.*Give the path"):
        load("hf:me/mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for file in uploaded[1]:  # by another program
        hf_hub_download("me/mine", file, endpoint=standin.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("hf:me/mine").card == replace(mine[1], revision=name)
    assert "may not be the latest" in caplog.text


def test_a_refused_upload_and_a_missing_card(mine, monkeypatch):
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("401: who are you?")))
    with pytest.raises(ConnectionError, match=r"'me/mine' could not be written to .*who are you.*hf auth login"):
        push(mine[0], "me/mine")
    mine[0].with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"mine\.json does not exist"):
        push(mine[0], "me/mine")


@pytest.mark.parametrize("name", ["mine", "me/mine/too", "https://x/y", ""])
def test_names_that_are_none_are_refused(mine, name):
    for call in (lambda: push(mine[0], name), lambda: load(f"hf:{name}")):
        with pytest.raises(ValueError, match="no repository of the hub"):
            call()
