"""Errors in one form, checks that let the right things through, random streams and files that are left as they should be."""
import json
import pickle
import random
import warnings

import numpy as np
import pytest
import torch

from iin_nb import core
from iin_nb.core import DataError, HostError, IINError, MissingExtra, NotInitialised, ShapeError

FAMILY = (ShapeError, NotInitialised, HostError, DataError, MissingExtra)


# ---- errors

@pytest.mark.parametrize("kind", FAMILY)
def test_error_form(kind):
    error = kind("flow.forward", "z of shape (B, 64)", "shape (3,)", "Keep the batch axis.")
    assert str(error) == "flow.forward: expected z of shape (B, 64), got shape (3,). Keep the batch axis."
    assert isinstance(error, IINError)


@pytest.mark.parametrize("kind", FAMILY)
def test_error_survives_a_process_border(kind):
    error = kind("a", "b", "c", "d")
    error.note = "kept"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind and str(back) == str(error) and back.note == "kept"


@pytest.mark.parametrize(("kind", "builtin"), [
    (ShapeError, ValueError), (NotInitialised, RuntimeError), (HostError, RuntimeError), (DataError, ValueError),
    (MissingExtra, ImportError)])
def test_errors_are_also_the_ones_people_catch(kind, builtin): assert issubclass(kind, builtin)


def test_extra_imports_or_names_the_pip_line():
    assert core.extra("json", "models", "x") is json
    said = r'zoo.pretrained: expected the package `no_such_thing`, got none installed. Run: pip .*"iin_nb\[models\]"'
    with pytest.raises(MissingExtra, match=said): core.extra("no_such_thing.part", "models", "zoo.pretrained")


def test_extra_tells_broken_from_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import needs_this_too")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtra, match="cannot be imported .*needs_this_too"): core.extra("broken_package", "models", "x")


# ---- checks

@pytest.mark.parametrize("rows", [0, 1, 2, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_check_batch_passes_what_is_right(rows, dtype):
    z = torch.zeros(rows, 5, dtype=dtype)
    assert core.check_batch(z, "here", 5, like=torch.zeros(1, dtype=dtype)) is z
    assert core.check_batch(z, "here") is z


WRONG = {
    "array": (np.zeros((2, 5), np.float32), "ndarray", "torch.tensor"),
    "no batch axis": (torch.zeros(5), r"\(5,\)", "one row per sample"),
    "map": (torch.zeros(2, 5, 1, 1), r"\(2, 5, 1, 1\)", "flatten"), "width": (torch.zeros(2, 4), r"\(2, 4\)", "one row"),
    "whole numbers": (torch.zeros(2, 5, dtype=torch.int64), "int64", "float"),
    "double": (torch.zeros(2, 5, dtype=torch.float64), "float64", r"\.to\(torch.float32\)"),
    "device": (torch.zeros(2, 5, device="meta"), "meta", "cpu"),
}


@pytest.mark.parametrize("case", WRONG)
def test_check_batch_refuses(case):
    x, got, do = WRONG[case]
    with pytest.raises(ShapeError, match=rf"(?s)^there: expected .*got .*{got}.*\. .*{do}"):
        core.check_batch(x, "there", 5, like=torch.zeros(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_check_finite_names_the_first_bad_row(bad):
    x = torch.zeros(30, 2, 3)
    assert core.check_finite(x, "here") is x
    assert core.check_finite(x[:0], "here") is not None
    x[12, 1, 2] = x[20, 0, 0] = bad
    said = "here: expected finite latents, got 2 NaN or Inf, the first in row 12"
    with pytest.raises(DataError, match=said): core.check_finite(x, "here", "latents")
    with pytest.raises(DataError, match="row 112"): core.check_finite(x, "here", first=100)


def test_warn_once():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for i in range(6): core.warn_once(f"test_warn_once {i % 2}")
    assert [str(w.message) for w in heard] == ["test_warn_once 0", "test_warn_once 1"]


def test_unwarned_takes_no_warning_from_anybody_else():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        core.warn_once("test_unwarned before")
        with pytest.raises(ZeroDivisionError), core.unwarned():
            for when in ("before", "after"): core.warn_once(f"test_unwarned {when}")
            raise ZeroDivisionError
        assert len(heard) == 1
        for when in ("before", "after"): core.warn_once(f"test_unwarned {when}")
    assert [str(w.message) for w in heard] == ["test_unwarned before", "test_unwarned after"]


# ---- random numbers

def draw(): return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()


def states(): return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("seed", [0, 7, 2**40, -1])
def test_seeded_repeats_and_leaves_the_outside_alone(seed):
    before = states()
    with core.seeded(seed): first = draw()
    with core.seeded(seed): second = draw()
    assert first == second and states() == before


def test_seeded_differs_between_seeds():
    with core.seeded(0): first = draw()
    with core.seeded(1): second = draw()
    assert all(a != b for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_seeded_restores_after(error):
    before = states()
    with pytest.raises(error), core.seeded(3):
        draw()
        raise error
    assert states() == before


def test_seeded_none_does_nothing():
    with core.seeded(5):
        with core.seeded(None): first = draw()
        second = draw()
    with core.seeded(5): assert (first, second) == (draw(), draw())


def test_generator():
    def numbers(seed): return torch.rand(4, generator=core.generator(seed)).tolist()
    before = states()
    assert numbers(1) == numbers(1) != numbers(2) and numbers(None) != numbers(None)
    assert states() == before


def test_device_of():
    assert core.device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert core.device_of(torch.nn.BatchNorm1d(1, affine=False, device="meta")).type == "meta"
    assert core.device_of(torch.nn.ReLU()).type == "cpu"


def test_handed_to_keeps_whole_numbers_whole():
    net = torch.nn.Linear(1, 1).double()
    assert core.handed_to(net, torch.ones(2)).dtype == torch.float64 and core.handed_to(net, torch.ones(2).byte()).dtype == torch.uint8
    assert core.handed_to(None, torch.ones(2)).dtype == torch.float32


# ---- files that travel with the package

@pytest.fixture
def package(tmp_path, monkeypatch):
    "A package folder with one asset."
    (tmp_path / "a.bin").write_bytes(b"content")
    (tmp_path / "unlisted.bin").write_bytes(b"content")
    entries = {"a.bin": {"sha256": core.sha256(tmp_path / "a.bin")}, "gone.bin": {"sha256": "0" * 64}}
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    monkeypatch.setattr(core, "assets", lambda: tmp_path)
    return tmp_path


def test_asset_passes(package): assert core.asset("a.bin").read_bytes() == b"content"


@pytest.mark.parametrize("damage", [b"conten", b"", b"CONTENT", b"content and more"])
def test_asset_refuses_damage(package, damage):
    (package / "a.bin").write_bytes(damage)
    with pytest.raises(DataError, match="a.bin with sha256 .*damaged.*Reinstall"): core.asset("a.bin")


@pytest.mark.parametrize(("name", "said"), [("gone.bin", "no such file"), ("unlisted.bin", "registry.json"), ("../a.bin", "registry.json")])
def test_asset_refuses(package, name, said):
    with pytest.raises(DataError, match=said): core.asset(name)


def test_asset_refuses_a_damaged_registry(package):
    (package / "registry.json").write_text('{"a.bin": {"sha')
    with pytest.raises(DataError, match="readable"): core.asset("a.bin")


def test_assets_are_in_place(): assert (core.assets() / "mnist10k.npz").exists()


def test_assets_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(core, "__file__", str(tmp_path / "iin_nb" / "core.py"))
    with pytest.raises(DataError, match="core.assets: .*Reinstall"): core.assets()


# ---- whole files

def everything(folder): return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_whole_file_writes(tmp_path):
    for text in ("first", "second"):
        with core.whole_file(tmp_path / "new" / "x.txt") as part:
            assert part.parent == tmp_path / "new", "on the same disk, or the move is a copy"
            part.write_text(text)
        assert (tmp_path / "new" / "x.txt").read_text() == text
    assert everything(tmp_path) == ["new", "new/x.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left on device")])
def test_whole_file_leaves_nothing_behind(tmp_path, error):
    (tmp_path / "x.txt").write_text("old")
    for path in (tmp_path / "x.txt", tmp_path / "a" / "b" / "y.txt"):
        with pytest.raises(DataError if isinstance(error, OSError) else error), core.whole_file(path) as part:
            part.write_text("ha")
            raise error
    assert everything(tmp_path) == ["x.txt"] and (tmp_path / "x.txt").read_text() == "old"


def test_whole_file_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.txt", tmp_path / "file" / "a" / "x.txt", tmp_path):   # below a file, twice; a folder in the way
        with pytest.raises(DataError, match="core.whole_file: expected room and permission to write .*Choose another folder"):
            with core.whole_file(path) as part: part.write_text("x")
    assert everything(tmp_path) == ["file"]
    assert not [p for p in tmp_path.parent.iterdir() if p.name.endswith(".part")]


def test_whole_file_two_writers_at_once(tmp_path):
    with core.whole_file(tmp_path / "x") as one, core.whole_file(tmp_path / "x") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one" and everything(tmp_path) == ["x"]
