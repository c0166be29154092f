"""``nimbus-sd benchmark`` on the gold standard's stand-in."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from command_line import done, refused
from sklearn.metrics import precision_recall_fscore_support, recall_score
from standin_pan_m import LAYOUT, gold_standard

import nimbus_sd as ns
from nimbus_sd.datasets.pan_m import GOLD_STANDARD
from nimbus_sd.models import PUBLISHED

METRICS = ["precision", "recall", "specificity", "f1"]
pytestmark = pytest.mark.filterwarnings("ignore:With a pixel size")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gold") / "gold_standard_labelled.zip"
    path.write_bytes(gold_standard().zip())
    return path


@pytest.fixture(scope="module")
def scored(archive, small, tmp_path_factory) -> dict[str, AnnData]:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(archive).extractall(folder)
    found = ns.datasets.pan_m_gold_standard(folder=folder, progress=False).items()
    return {name: ns.predict(sdata, model=small, pixel_size=0.5, progress=False) for name, sdata in found}


def by_hand(adata: AnnData, likely: bool) -> tuple[list[float], list[float], int]:
    """Precision, recall, specificity and F1 of one data set by sklearn: pooled, and the mean over markers."""
    labels = adata.layers["gold"]
    judged = np.isfinite(labels) if likely else np.isin(labels, (0, 1))

    def measured(truth, called):
        # Without positive cells there is nothing but specificity; without calls the precision is 0.
        division = 0 if truth.any() else np.nan
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, called, average="binary", zero_division=division
        )
        if not truth.any():
            precision = f1 = np.nan
        return [precision, recall, recall_score(~truth, ~called), f1]

    truth, called = labels > 0.5, adata.layers["nimbus"] >= 0.5
    each = [measured(truth[rows, i], called[rows, i]) for i, rows in enumerate(judged.T)]
    return measured(truth[judged], called[judged]), np.nanmean(each, axis=0).tolist(), int(judged.sum())


@pytest.mark.parametrize("likely", [False, True])
def test_whole_protocol(serve_hub, archive, scored, small, tmp_path, likely):
    hub = serve_hub("datasets", GOLD_STANDARD, {"gold_standard_labelled.zip": archive.read_bytes()})
    options = ["--out", tmp_path / "x.csv", *(["--likely"] if likely else [])]
    out, _ = done("benchmark", "--model", small, *options, "--no-progress")
    first, lines = out.splitlines()[0], [line.split() for line in out.splitlines()]
    assert "at least 0.5" in first and "5 data sets" in first and ("counted" if likely else "left out") in first
    table = pd.read_csv(tmp_path / "x.csv", index_col="dataset")
    assert list(table.index) == [*LAYOUT, "mean", "published"]
    pooled = table[[f"{metric} (markers pooled)" for metric in METRICS]]
    macro = table[[f"{metric} (mean over markers)" for metric in METRICS]]
    cells = 0
    for dataset, adata in scored.items():
        expected, mean, n = by_hand(adata, likely)
        np.testing.assert_allclose(pooled.loc[dataset], expected, rtol=1e-6)
        np.testing.assert_allclose(macro.loc[dataset], mean, rtol=1e-6)
        assert table.loc[dataset, "cells"] == n
        cells += n
        (line,) = (line for line in lines if line[:1] == [dataset])
        np.testing.assert_allclose([float(x) for x in line[3:7]], expected, atol=6e-4)
    np.testing.assert_allclose(pooled.loc["mean"], pooled.iloc[:5].mean(), rtol=1e-6)
    np.testing.assert_allclose(macro.loc["mean"], macro.iloc[:5].mean(), rtol=1e-6)
    assert table.loc["mean", "cells"] == cells
    published = [PUBLISHED.figures[f"gold_standard_{metric}"] for metric in METRICS]
    assert pooled.loc["published"].tolist() == macro.loc["published"].tolist() == published
    assert any("resolve" in request for request in hub.server.requests)


def test_data_sets_by_name_and_a_copy_by_hand(serve_hub, archive, small):
    hub = serve_hub("datasets", GOLD_STANDARD, {})
    hub.stop()
    said = refused("benchmark", "--model", small)
    assert f"download the zip archive from {hub.url}/datasets/{GOLD_STANDARD}" in said and "(--folder)" in said
    options = ("--dataset", "vectra_pancreas", "--folder", archive, "--no-progress")
    out, messages = done("benchmark", "--model", small, *options)
    names = [line.split()[0] for line in out.splitlines()[4:] if line.strip()]
    assert names == ["vectra_pancreas", "mean", "published"]
    assert "1 data set," in out
    assert messages.count("Model small") == 1


def test_bad_input_is_one_line(serve_hub, archive, small, tmp_path):
    hub = serve_hub("datasets", GOLD_STANDARD, {"README.md": b"#"})
    (tmp_path / "x.csv").touch()

    def error(*options: object) -> str:
        return refused("benchmark", *options, "--no-progress")

    assert "must end in .csv" in error("--out", tmp_path / "x.xlsx")
    assert "--overwrite" in error("--out", tmp_path / "x.csv")
    assert "model='compat' is not known" in error("--model", "compat")
    unknown = "no data set 'breast'; there are codex_colon, mibi_breast"
    assert unknown in error("--model", small, "--dataset", "breast")
    assert not hub.server.requests
    assert unknown in error("--model", small, "--dataset", "breast", "--folder", archive)
    assert "holds no zip archive, but 'README.md'" in error("--model", small)
    assert "There is no " in error("--model", small, "--folder", tmp_path / "nowhere")
    assert "`pixel_size` is -1" in error("--model", small, "--folder", archive, "--pixel-size", "-1")
