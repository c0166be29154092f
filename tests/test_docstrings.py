"""Every example in a docstring runs and gives what it shows."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest
import spatialdata

import nimbus_sd as ns

MODULES = sorted(module.name for module in walk_packages(ns.__path__, "nimbus_sd."))


@pytest.fixture(scope="module")
def example():
    return ns.datasets.example()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name, capsys, monkeypatch, example):
    # Simulated once: nearly all examples begin with it.
    monkeypatch.setattr(ns.datasets, "example", lambda: spatialdata.deepcopy(example))
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(import_module(name), optionflags=flags)
    assert not failed, capsys.readouterr().out


def test_there_are_examples():
    rooms = ("_predict", "io.fovs", "datasets.example", "metrics.markers", "simulate.sdata")
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in (import_module(f"nimbus_sd.{room}") for room in rooms):
        assert any(test.examples for test in finder.find(module)), module
