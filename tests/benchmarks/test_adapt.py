"""The simulated user of the benchmark of ``tl.adapt``; figures come from running it."""

import sys

import numpy as np
import pandas as pd
from benchmark_module import module

adapt = module("adapt")


def test_the_user_labels_unsure_and_bright_cells_in_turn():
    scores, means = np.array([0.01, 0.5, 0.99, 0.6, 0.02, 0.98]), np.array([1, 2, 9, 3, 1, 8])
    order = adapt.mixed(scores, means, np.random.default_rng(0))
    assert sorted(order) == list(range(6)) and order[0] == 1 and means[order[1]] >= 2.5


def test_cells_that_judge_are_not_labelled():
    cells = pd.DataFrame({"score": np.linspace(0, 1, 20), "mean": np.arange(20.0), "state": [0, 1] * 10})
    for _, own, others in adapt.draw(cells, np.random.default_rng(0)):
        assert len(own) == len(others) == 10 and not set(own.index) & set(others.index)


def test_without_data_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["adapt.py", str(tmp_path), str(tmp_path / "labels.csv")])
    adapt.main()
    assert "skipped: there is no" in capsys.readouterr().out
