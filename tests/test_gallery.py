"""Every experiment of the gallery, run in its small form: where its data and packages are, else skipped with the reason."""
import ast
import os
import sys
from pathlib import Path

import nbformat
import pytest

GALLERY = Path(__file__).resolve().parent.parent/"nbs/gallery"
sys.path.insert(0, str(GALLERY))
import experiment  # noqa: E402


def sources(path):
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def asked(path):
    "The arguments of the notebook's `experiment.needs(…)`; None where it has none."
    for source in sources(path):
        if source.startswith("%") or "experiment.needs(" not in source: continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "experiment.needs": return [a.value for a in node.args]


EXPERIMENTS = {path.stem: needs for path in sorted(GALLERY.glob("*.ipynb")) if (needs := asked(path)) is not None}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_small_form(name, tmp_path, monkeypatch):
    if gone := experiment.missing(*EXPERIMENTS[name]): pytest.skip(gone)
    from nbclient import NotebookClient
    monkeypatch.setenv("IIN_SMALL", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    if "IIN_NB_DATA" in os.environ: monkeypatch.setenv("IIN_NB_DATA", str(Path(os.environ["IIN_NB_DATA"]).resolve()))
    book = nbformat.read(GALLERY/f"{name}.ipynb", as_version=4)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(GALLERY)}}).execute()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_is_left_to_this_test(name):
    "nbdev-test would run it in its full form."
    book = nbformat.read(GALLERY/f"{name}.ipynb", as_version=4)
    assert book.cells[0].cell_type == "raw" and "skip_exec: true" in book.cells[0].source


def test_missing_says_what(monkeypatch):
    monkeypatch.delenv("IIN_NB_DATA", raising=False)
    assert "IIN_NB_DATA" in experiment.missing("data")
    assert "no_such_package" in experiment.missing("no_such_package") and not experiment.missing("torch")
    with pytest.raises(experiment.DataError, match="IIN_NB_DATA"): experiment.needs("data")
    with pytest.raises(experiment.MissingExtra, match="no_such_package"): experiment.needs("no_such_package")


def test_once_makes_once(tmp_path, monkeypatch):
    import torch
    monkeypatch.setattr(experiment.pooch, "os_cache", lambda name: tmp_path)
    calls = []

    def make():
        calls.append(1)
        return {"a": torch.arange(3.)}

    assert all(experiment.once("x", make)["a"].tolist() == [0, 1, 2] for _ in range(2)) and len(calls) == 1


def test_plain_tables_and_the_clock():
    import pandas as pd
    table = pd.DataFrame({"a": [1.234567, float("nan")], 3: [2, 0]}, index=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)]))
    assert experiment.plain(table, 3) == {"x | 1": {"a": 1.235, "3": 2.0}, "y | 2": {"a": None, "3": 0.0}}
    ticks = iter(range(100))
    assert experiment.clock(lambda i: None, 5, lambda: next(ticks)) == 1000


def test_what_digit_layers_keep_depends_on_the_host(tmp_path, monkeypatch):
    import digit_layers
    import torch

    from iin_nb import zoo
    monkeypatch.setattr(experiment.pooch, "os_cache", lambda name: tmp_path)
    model, calls = zoo.Classifier(8), []

    def made():
        calls.append(1)
        return {"a": torch.zeros(1)}

    for _ in range(2): digit_layers.once("x", made, 3, zoo.as_host("classifier", model, "c"))
    assert len(calls) == 1
    with torch.no_grad(): next(model.parameters()).add_(1)
    digit_layers.once("x", made, 3, zoo.as_host("classifier", model, "c"))
    assert len(calls) == 2
