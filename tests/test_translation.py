"""The laws of a translation: what belongs together and what is refused, hosts left alone, v and its uses, folders whole or refused."""
import json
import math
import os
import pickle
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import iin_nb as iin
from iin_nb import conditional, hosts, latents, translation
from iin_nb.conditional import EmbedderConfig
from iin_nb.core import DataError, HostError, IINError, ShapeError
from iin_nb.fit import Recipe, TrainingStopped
from iin_nb.flow import FlowConfig
from iin_nb.translation import aligned, load, regress, translate

SMALL = {"width": 6, "hidden": 8, "channels": 4}
SHORT = Recipe(n_steps=12, lr=3e-3, eval_every=6)
MIX = torch.randn(192, 6, generator=torch.Generator().manual_seed(5)) / 8


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def painter(model=None):
    "A linear drawer of pictures (B, 3, 8, 8), 6 numbers of them; two black boxes."
    back = torch.linalg.pinv(MIX)
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, lambda z: (z @ back).reshape(-1, 3, 8, 8), draw(4, 3, 8, 8), "painter", model)


class Reader:
    "Texts to numbers: anything with `encode` will do."
    def encode(self, texts): return torch.tensor([[float(len(t)), float(t.count("e"))] for t in texts])


def frame(n): return pd.DataFrame(index=range(n))


@pytest.fixture(scope="module")
def quick():
    return {"recipe": SHORT, "batch": 16, "embedder": EmbedderConfig(**SMALL), "config": FlowConfig(6, n_blocks=2, hidden=8), "copies": 1,
            "baseline": False}


@pytest.fixture(scope="module")
def by_numbers():
    "A translation without hosts, 3 numbers to 6, one of which is constant."
    z = draw(80, 6)
    z[:, 2] = 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # about the constant dimension
        return translate(None, None, (draw(80, 3, seed=1), latents.from_array(z, frame(80))), FlowConfig(6, n_blocks=2, hidden=8),
                         EmbedderConfig(**SMALL), SHORT, 16)


# ---- sources and data

def test_hosts_of_every_kind_of_condition(net, small_set, snapshot, quick):
    before = snapshot(net)
    x = small_set.images[:8]
    maps, vector = hosts.tap(net, "features.2", x), hosts.tap(net, "features.5", x)
    tokens = hosts.from_functions(lambda t: t.flatten(2).transpose(1, 2)[:, ::8], lambda z: z.mean(1), x, "tokens")
    for src, shape in ((maps, (5, 2, 2)), (vector, (6,)), (tokens, (8, 3)), (["shape", "light"], (4,)), ("light", (1,))):
        t = translate(src, painter(), small_set, **quick)
        given = small_set.table[:3] if isinstance(src, (str, list)) else x[:3]
        assert t.source.shape == shape and t.sample(given, 2, seed=0).shape == (2, 3, 3, 8, 8) and t.certificate.holds
        v = t.residual(given, x[:3])
        assert (t.sample(given, v=v[None])[0] - painter().decode(painter().encode(x[:3]))).abs().max() < 1e-3
    before.check()


def test_texts_and_pictures(small_set, quick):
    texts = ["three", "ten", "seven eleven"] * 20
    t = translate(Reader(), painter(), (texts, small_set.images), **quick)
    assert t.sample(["eight"], 3).shape == (3, 1, 3, 8, 8) and t.source.name == "reader"
    again = translate(Reader(), painter(), (texts, small_set), **quick)
    assert again.record["n"][2] == len(small_set.held_out)   # the set's own split


def test_encoders_of_pictures_and_tables_beside(small_set, quick):
    class Means:
        def encode(self, x): return x.mean((2, 3))
    redrawn = replace(small_set, redraw=lambda images, seed: images)
    t = translate(Means(), painter(), redrawn, **{**quick, "copies": 3})
    assert t.source.shape == (3,) and t.sample(small_set.held_out, 1).shape == (1, len(small_set.held_out), 3, 8, 8)
    beside = translate("shape", painter(), (small_set.table, small_set.images), **quick)
    assert beside.sample({"shape": "s1"}, 2).shape == (2, 1, 3, 8, 8)
    assert torch.equal(t.residual(small_set, small_set), t.residual(small_set.images, small_set.images))


@pytest.mark.parametrize("more", [{"lead": 3}, {"shape": (3, 2, 1)}], ids=str)
def test_wide_latents_and_maps(more, tmp_path):
    c, z = draw(80, 3), latents.from_array(draw(80, 6, seed=1), frame(80))
    t = translate(None, None, (c, z), FlowConfig(6, n_blocks=2, hidden=8, **more), EmbedderConfig(**SMALL), SHORT, 16, baseline=False)
    assert t.certificate.holds
    torch.testing.assert_close(t.sample(c, v=t.residual(c, z)[None])[0], z.mean, atol=1e-5, rtol=0)
    t.save(tmp_path / "a")
    assert torch.equal(load(tmp_path / "a").sample(c, seed=0), t.sample(c, seed=0))


def test_classes_bools_and_amounts():
    table = pd.DataFrame({"class": list("abc") * 20, "glasses": [True, False] * 30, "size": np.linspace(0, 1, 60)})
    z = latents.from_array(draw(60, 4), table)
    source, learn, *_ = aligned(["class", "glasses", "size"], None, z)
    assert source.shape == (5,) and learn.c.shape == (len(learn), 5) and source.kind == "columns"
    assert source.read({"class": "b", "glasses": True, "size": 0.5}).round(decimals=1).tolist()[0][:4] == [0, 1, 0, 1]
    for bad in ({"class": "d"}, {"glasses": None}, {"size": math.nan}, {"size": math.inf}):
        row = {"class": "b", "glasses": True, "size": 0.5} | bad
        with pytest.raises(DataError, match=r"translation \(\w+\): expected .* in row 0"): source.read({k: [v] for k, v in row.items()})
    gaps = z.table.assign(size=[math.nan, *z.table["size"][1:]])
    with pytest.raises(DataError, match="size"): aligned("size", None, replace(z, table=gaps))


def test_rows_of_one_source_stay_on_one_side():
    table = pd.DataFrame({"source": np.arange(120) // 4})
    mean = torch.arange(120.0)[:, None].repeat(1, 2)
    parts = aligned(None, None, (mean, latents.from_array(mean, table)))[1:]
    learn, check, held = (set((p.c[:, 0] // 4).tolist()) for p in parts)
    assert not (learn | check) & held
    for p in parts: assert torch.equal(p.c, p.z.mean), "rows stay aligned"


def test_redrawn_pictures_stay_aligned(small_set):
    def redraw(images, seed): return replace(images, images=images.images + 0.1 * draw(*images.images.shape, seed=seed))
    host = painter()
    _, learn, check, held = aligned(host, host, replace(small_set, redraw=redraw), copies=3)
    for p in (learn, check, held): assert torch.equal(p.c, p.z.mean)
    assert len(learn) % 3 == 0 and len(held) == len(small_set.held_out)


@pytest.mark.parametrize("wrong", ["counts", "no dst", "no src", "one thing", "few", "kinds", "columns", "split", "width", "dst"])
def test_what_does_not_belong_together_is_refused(small_set, wrong):
    z, x, host = latents.from_array(draw(60, 6), frame(60)), draw(60, 3), painter()
    nine = x[:9], latents.from_array(draw(9, 6), frame(9))
    src, dst, data = {
        "counts": (None, None, (x[:9], z)), "no dst": (None, None, (x, x)), "no src": (None, host, (["a"] * 60, z)),
        "one thing": (None, None, x), "few": (None, None, nine), "kinds": (7, host, small_set), "columns": ("colour", host, small_set),
        "split": (host, host, (small_set, replace(small_set, n_train=30))), "dst": (None, "host", (x, z)),
        "width": (None, host, (x, latents.from_array(draw(60, 5), frame(60))))}[wrong]
    with pytest.raises(IINError, match=r"^[\w. ()]+: expected .*, got .*\. \S"): translate(src, dst, data)


def test_a_typo_in_a_column_is_named_with_what_there_is(small_set, quick):
    for src, name in ((["shap"], "shap"), ("shap", "shap"), ({"form": "shap"}, "form"), ({"form": ["lihgt"]}, "form")):
        with pytest.raises(DataError) as e: translate(src, painter(), small_set, **quick)
        typo, near = ("lihgt", "light") if src == {"form": ["lihgt"]} else ("shap", "shape")
        assert f"({name})" in str(e.value) and f"got {typo!r}. Did you mean {near!r}?" in str(e.value)
        assert "condition_" not in str(e.value) and "'shape', 'light'" in str(e.value)
    once = small_set.table.assign(shape=[f"s{i}" for i in range(len(small_set))])
    with pytest.raises(DataError, match=r"\(shape\): .* got one of 's\d+'\. .* \{'shape': \['shape'\]\}"):
        translate("shape", painter(), replace(small_set, table=once), **quick)


def test_a_column_that_is_missing_when_asked(small_set, quick):
    t = translate(["shape", "light"], painter(), small_set, **quick)
    for bad, match in (({"shap": ["s1"], "light": [0.5]}, "with 'shape', 'light', got 'shap', 'light'. Is 'shap' meant for 'shape'"),
                       ({"shape": ["s1"]}, "got 'shape'. Add 'light'"),
                       ({"shape": ["s9"], "light": [0.5]}, r"got \['s9'\] in row 0. .* choose one"),
                       ({"shape": ["s1"], "light": ["dim"]}, r"\(light\): expected numbers"),
                       ({"shape": [None], "light": [0.5]}, r"got \[None\] in row 0. .* without a value")):
        with pytest.raises(DataError, match=match): t.sample(bad)


@pytest.mark.parametrize("row", [3, 37, 55])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_pictures_are_named_by_their_row(small_set, quick, row, bad):
    images = small_set.images.clone()
    images[row, 0, 1, 1] = bad
    broken = replace(small_set, images=images)
    numbers, z = draw(len(images), 3), latents.from_array(draw(len(images), 6), frame(len(images)))
    z = replace(z, mean=z.mean.index_fill(0, torch.tensor([row]), bad))
    for src, data, where in (("shape", broken, "translation.translate"), (painter(), broken, "translation.translate"),
                             (None, (numbers, images), r"translation.translate \(dst\)"), (None, (numbers, z), r"translate \(dst\)"),
                             (Reader(), (images, small_set), r"translation.translate \(src\)")):
        with pytest.raises(DataError, match=f"{where}: expected finite .* NaN or Inf, the first in row {row}\\."):
            translate(src, painter(), data, **quick)


def test_a_value_that_only_the_held_out_rows_have(small_set, quick):
    table = small_set.table.assign(shape=["a", "b"] * (len(small_set) // 2))
    table.loc[len(table) - 1, "shape"] = "c"
    with pytest.raises(DataError, match=rf"one of 'a', 'b', got \['c'\] in row {len(table) - 1}\. .* training rows"):
        translate("shape", painter(), replace(small_set, table=table), **quick)


def wide(n, dim=64):
    "n conditions and latents of more dimensions than there are samples."
    return draw(n, 3), latents.from_array(draw(n, dim, seed=1), frame(n))


@pytest.mark.parametrize("n", [1, 15])
def test_a_handful_is_refused_at_once(n):
    with pytest.raises(DataError, match=f"at least 16 aligned samples, got {n}"): translate(None, None, wide(n))


@pytest.mark.parametrize("n", [16, 20])
def test_fewer_samples_than_dimensions_are_said_to_be_too_few(n):
    with pytest.raises(DataError, match=r"at least 64 samples to learn from.* got 1\d\. Collect more, or .*\(64, lead=[23]\)"):
        translate(None, None, wide(n), recipe=SHORT, baseline=False)
    few = translate(None, None, wide(n), FlowConfig(64, lead=2, n_blocks=2, hidden=8), recipe=SHORT, baseline=False)   # as the message says
    assert torch.isfinite(few.sample(draw(2, 3), seed=0)).all() and few.certificate.holds


@pytest.mark.parametrize("n, kind", [(60, DataError), (200, TrainingStopped)])
def test_a_training_that_comes_apart_says_why(monkeypatch, n, kind):
    def apart(*a): raise TrainingStopped("fit.train", "a finite loss", "NaN", "Look for outliers.")
    monkeypatch.setattr(translation, "fit_flow", apart)
    with pytest.raises(kind, match="at least 64 samples" if kind is DataError else "outliers"): translate(None, None, wide(n), recipe=SHORT)


def test_a_training_by_heart_brings_a_warning(monkeypatch):
    monkeypatch.setattr("iin_nb.core._warned", set())
    with pytest.warns(UserWarning, match=r"nats a sample on pairs put aside, .*: 27 are too few"):
        translate(None, None, wide(40), recipe=replace(SHORT, n_steps=40, eval_every=40), baseline=False)


def test_a_flow_of_another_size_is_refused():
    data = draw(60, 3), latents.from_array(draw(60, 6), frame(60))
    with pytest.raises(ShapeError, match="FlowConfig"): translate(None, None, data, FlowConfig(5))


def test_a_failing_host_is_left_as_it_was(net, small_set, snapshot, quick):
    class Fails(torch.nn.Module):
        def forward(self, x): raise RuntimeError("no")
    net.head.register_module("late", Fails())
    before = snapshot(net)
    bad = hosts.Host("bad", (6,), "images", net, lambda x: net(x), lambda z: z)
    with pytest.raises(RuntimeError): translate(bad, painter(), small_set, **quick)
    before.check()


# ---- what a translation does

def test_samples(by_numbers):
    t, c = by_numbers, draw(3, 3, seed=9)
    for b in (1, 2, 17):
        y = t.sample(draw(b, 3), n=3, seed=0)
        assert y.shape == (3, b, 6) and torch.isfinite(y).all() and (y[..., 2] == 1.5).all(), "constant dimensions pass unchanged"
    assert torch.equal(t.sample(c, 2, seed=1), t.sample(c, 2, seed=1)) and not torch.equal(t.sample(c, 2, seed=1), t.sample(c, 2, seed=2))
    assert not torch.equal(t.sample(c, 2), t.sample(c, 2)), "without a seed anew"
    cold = t.sample(c, 4, temperature=0)
    assert torch.equal(cold, t.sample(c, 4, temperature=0, seed=5)) and torch.equal(cold[0], cold[3])
    v = t.draw(2, seed=3)
    held = t.sample(c, v=v)
    torch.testing.assert_close(held[:, :1], t.sample(c[:1], v=v))
    torch.testing.assert_close(held, t.sample(c, v=v[:, None].expand(2, 3, 6)))


def test_residual_transfer_interpolate(by_numbers):
    t, c, z = by_numbers, draw(3, 3, seed=9), draw(3, 6, seed=8)
    v = t.residual(c, z)
    z[:, 2] = 1.5
    torch.testing.assert_close(t.sample(c, v=v[None])[0], z, atol=1e-5, rtol=0)
    torch.testing.assert_close(t.transfer(c, c, z), z, atol=1e-5, rtol=0)
    one = t.transfer(c, c[:1], z[:1])
    torch.testing.assert_close(one[:1], z[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(t.residual(c, one)[:, 3:], v[:1, 3:].expand(3, -1), atol=1e-4, rtol=0)
    path = t.interpolate(c[:2], c[1:], 5, v=v[:1])
    torch.testing.assert_close(path[[0, 4]], torch.stack([t.sample(c[:2], v=v[:1])[0], t.sample(c[1:], v=v[:1])[0]]), atol=1e-5, rtol=0)
    assert path.shape == (5, 2, 6)


def test_nats_are_the_records(by_numbers):
    data = draw(80, 3, seed=1), latents.from_array((z := draw(80, 6)).index_fill_(1, torch.tensor([2]), 1.5), frame(80))
    held = aligned(None, None, data)[3]
    nats = by_numbers.nats(held.c, held.z.mean)
    assert nats.shape == (len(held),) and float(nats.mean()) == pytest.approx(by_numbers.record["nats"], rel=1e-4)
    assert math.isfinite(by_numbers.record["nats_unconditional"]) and len(z) == 80


@pytest.mark.parametrize("call", [
    lambda t: t.sample(draw(2, 4)), lambda t: t.sample("text"), lambda t: t.sample(draw(2, 3), 0),
    lambda t: t.sample(draw(2, 3), temperature=-1),
    lambda t: t.sample(draw(2, 3), v=draw(2, 5)), lambda t: t.sample(draw(2, 3), v=draw(4, 3, 6)), lambda t: t.sample(draw(2, 3), v="v"),
    lambda t: t.residual(draw(2, 3), draw(3, 6)), lambda t: t.residual(draw(2, 3), draw(2, 5)), lambda t: t.nats(draw(2, 3), draw(3, 6)),
    lambda t: t.interpolate(draw(2, 3), draw(3, 3)), lambda t: t.interpolate(draw(2, 3), draw(2, 3), 1),
    lambda t: t.transfer(draw(3, 3), draw(2, 3), draw(2, 6)), lambda t: t.sample(draw(2, 3) * math.nan)])
def test_wrong_calls(by_numbers, call):
    with pytest.raises(IINError, match=r"expected .*, got .*\. \S"): call(by_numbers)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_codes_that_are_no_numbers(by_numbers, bad):
    t, c = by_numbers, draw(2, 3)
    v = t.draw(3, seed=0)
    v[1, 4] = bad
    each = v[:, None].expand(3, 2, 6)
    for call in (lambda: t.sample(c, v=v), lambda: t.z(each, t.context(c)), lambda: t.interpolate(c, c + 1, v=v[1:2])):
        with pytest.raises(DataError, match=r"translation\.z: expected finite codes v, got .* row [01]\."): call()


def test_pictures_of_another_kind_or_scale(small_set, quick, net, monkeypatch):
    monkeypatch.setattr("iin_nb.core._warned", set())
    x = small_set.images[:4]
    t = translate(hosts.tap(net, "features.5", x), painter(), small_set, **quick)
    more = torch.full_like(x, 255)
    for call in (lambda p: t.sample(p, 1), lambda p: t.context(p), lambda p: t.residual(x, p), lambda p: t.nats(x, p)):
        with pytest.raises(ShapeError, match=r"inputs of floats, .* got torch.uint8\. Bytes to \[-1, 1\]: x.float\(\) / 127.5 - 1"):
            call(more.byte())
    for call, name in ((lambda: t.sample(more, 1), "hosts.encode"), (lambda: t.residual(x, more), r"hosts.encode \(painter\)")):
        with pytest.warns(UserWarning, match=f"{name}.*inputs up to 255; .*Rescale"): call()
    for bad in (x * math.nan, x.double().log()):
        with pytest.raises(DataError, match=r"translation.latents: expected finite inputs"): t.residual(x, bad)
        with pytest.raises(DataError, match=r"features.5\): expected finite inputs"): t.context(bad)


def test_numbers_on_another_scale(by_numbers, monkeypatch):
    monkeypatch.setattr("iin_nb.core._warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_numbers.sample(10 * draw(2, 3), 1)
    with pytest.warns(UserWarning, match="conditions up to .* Rescale"): by_numbers.sample(200 * draw(2, 3), 1)
    with pytest.raises(ShapeError, match="floats, got torch.int64"): by_numbers.sample(torch.ones(2, 3).long(), 1)


def test_seeds_decide_everything(by_numbers):
    data = draw(80, 3, seed=1), latents.from_array(draw(80, 6).index_fill_(1, torch.tensor([2]), 1.5), frame(80))
    args = FlowConfig(6, n_blocks=2, hidden=8), EmbedderConfig(**SMALL), SHORT, 16
    again, other = translate(None, None, data, *args), translate(None, None, data, *args, seed=1)
    c = draw(2, 3)
    assert torch.equal(again.sample(c, seed=0), by_numbers.sample(c, seed=0))
    assert not torch.equal(other.sample(c, seed=0), again.sample(c, seed=0))


def test_interrupt_keeps_the_best(monkeypatch, capsys):
    calls, real = [], conditional.gaussian_nll

    def impatient(*a):
        calls.append(1)
        if len(calls) > 40: raise KeyboardInterrupt
        return real(*a)

    monkeypatch.setattr(conditional, "gaussian_nll", impatient)
    for room in (conditional, translation): monkeypatch.setattr(room, "mean_nats", lambda net, part, n=None: 1.0)
    t = translate(None, None, (draw(60, 3), latents.from_array(draw(60, 6), frame(60))), FlowConfig(6, n_blocks=1, hidden=8),
                  EmbedderConfig(**SMALL), replace(SHORT, n_steps=200), 8)
    assert t.history.stopped == "interrupted" and t.history.best_step > 0 and t.record["nats_unconditional"] is None


def test_it_learns_what_the_condition_tells():
    "z = c + small noise: given c far fewer nats than without, and samples near c."
    c = draw(600, 3)
    t = translate(None, None, (c, latents.from_array(c + 0.1 * draw(600, 3, seed=1), frame(600))), FlowConfig(3, n_blocks=2, hidden=16),
                  EmbedderConfig(width=8, hidden=32, noise=0), Recipe(n_steps=200, lr=1e-2, eval_every=50), 128)
    assert t.record["nats"] < t.record["nats_unconditional"] - 2
    assert (t.sample(c[:50], 20, seed=0).mean(0) - c[:50]).abs().mean() < 0.15
    assert t.nats(c[:50], c[:50]).mean() < t.nats(c[50:100], c[:50]).mean() - 2


def test_repr_says_what_counts(by_numbers):
    for word in ("numbers → latents", "Embedder", "Flow", "without z_src", "certificate holds"): assert word in repr(by_numbers)


# ---- the baseline

def test_regression(small_set, net, quick):
    settings = {k: v for k, v in quick.items() if k != "baseline"}
    r = regress(hosts.tap(net, "features.5", small_set.images[:8]), painter(), small_set, **settings)
    y = r.sample(small_set.images[:2], n=3, seed=1, temperature=0.5)
    assert y.shape == (3, 2, 3, 8, 8) and torch.equal(y[0], y[2]) and math.isfinite(r.record["error"]) and "Regression" in repr(r)
    z = draw(60, 6).index_fill_(1, torch.tensor([4]), 2.0)
    flat = regress(None, None, (draw(60, 3), latents.from_array(z, frame(60))), FlowConfig(6, n_blocks=1, hidden=8), recipe=SHORT, batch=8)
    assert flat.sample(draw(2, 3)).shape == (1, 2, 6) and (flat.sample(draw(2, 3))[..., 4] == 2).all()


# ---- on disk

@pytest.fixture
def folder(by_numbers, tmp_path):
    by_numbers.save(tmp_path / "a")
    return tmp_path / "a"


def change(folder, edit):
    said = json.loads((folder / "translation.json").read_text(encoding="utf-8"))
    said.pop("seal", None)   # or the seal would tell, and nothing else be tested
    (folder / "translation.json").write_text(json.dumps(edit(said) or said), encoding="utf-8")


def tensors(folder, edit):
    from safetensors.torch import load_file, save_file
    found = load_file(folder / "tensors.safetensors")
    edit(found)
    save_file(found, folder / "tensors.safetensors")
    change(folder, lambda said: {k: v for k, v in said.items() if k != "sha256"})   # or the sum would tell, and nothing else be tested


def test_saved_and_loaded_is_the_same(by_numbers, folder, tmp_path):
    again, c = load(folder), draw(3, 3)
    assert torch.equal(again.sample(c, seed=0), by_numbers.sample(c, seed=0)) and repr(again) == repr(by_numbers)
    assert torch.equal(again.nats(c, draw(3, 6)), by_numbers.nats(c, draw(3, 6))) and again.record == by_numbers.record
    shutil.copytree(folder, tmp_path / "sent")
    again.save(tmp_path / "sent")   # replaces a translation
    (tmp_path / "sent" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="translation.save.*something else"): again.save(tmp_path / "sent")


def test_hosts_are_checked_on_loading(net, small_set, quick, tmp_path):
    x = small_set.images[:8]
    src = hosts.tap(net, "features.5", x)
    translate(src, painter(), small_set, **quick).save(tmp_path / "a")
    again = load(tmp_path / "a", src, painter())
    assert again.sample(x, 1, seed=0).shape == (1, 8, 3, 8, 8)
    for a, b in ((None, painter()), (src, None), (hosts.tap(net, "features.2", x), painter()), (src, "painter"), (painter(), painter())):
        with pytest.raises(HostError, match="translation.load"): load(tmp_path / "a", a, b)
    with torch.no_grad(): net.head[1].weight.add_(1)
    with pytest.raises(HostError, match="other weights"): load(tmp_path / "a", src, painter())


def test_columns_and_encoders_are_found_again(small_set, quick, tmp_path):
    by_table = translate(["shape", "light"], painter(), small_set, **quick)
    by_table.save(tmp_path / "t")
    rows = small_set.table[:3]
    assert torch.equal(load(tmp_path / "t", dst=painter()).sample(rows, seed=0), by_table.sample(rows, seed=0))
    by_text = translate(Reader(), painter(), (["one", "three"] * 30, small_set.images), **quick)
    by_text.save(tmp_path / "x")
    assert torch.equal(load(tmp_path / "x", Reader(), painter()).sample(["one"], seed=0), by_text.sample(["one"], seed=0))
    with pytest.raises(HostError, match="encode"): load(tmp_path / "x", None, painter())


class Bomb:
    def __reduce__(self): return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", ["translation.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "cut", "pickle", "noise", "folder"])
def test_damaged_files(folder, tmp_path, monkeypatch, name, damage):
    monkeypatch.chdir(tmp_path)
    path, raw = folder / name, (folder / name).read_bytes()
    path.unlink()
    if damage == "folder": path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "half": raw[:len(raw) // 2], "cut": raw[:-1], "pickle": pickle.dumps(Bomb()),
                          "noise": np.random.RandomState(0).bytes(5000)}[damage])
    with pytest.raises(DataError, match=r"translation.load: expected .*, got .*\. \S"): load(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "nothing was executed"


@pytest.mark.parametrize("key", ["format", "source", "flow", "embedder", "certificate", "history", "record"])
@pytest.mark.parametrize("value", ["missing", None, 7, "text", [1, 2], {"a": 1}])
def test_missing_keys_and_wrong_types(folder, key, value):
    if (key, value) == ("record", {"a": 1}): value = True   # any dict may be a record
    change(folder, lambda said: {k: v for k, v in said.items() if k != key} | ({} if value == "missing" else {key: value}))
    with pytest.raises(DataError, match="translation.load"): load(folder)


EDITS = {
    "embedder": ({"depth": 10**9}, {"hidden": 10**7}, {"width": 10**6}, {"width": 5}, {"shape": []}, {"shape": [10**9]}, {"shape": [3, 1]},
                 {"shape": [3, 10**6, 10**6]}, {"shape": "3"}, {"noise": "0"}, {"noise": -1}, {"hidden": True}, {"extra": 1},
                 {"seed": 2**80}),
    "flow": ({"n_blocks": 10**9}, {"dim": 10**7}, {"context_dim": 0}, {"context_dim": 10**6}, {"dead": []}, {"linear": False}),
    "source": ({"kind": "host"}, {"kind": "columns"}, {"kind": "x"}, {"shape": [4]}, {"name": 3}, {"concepts": [3]}, {"host": {"a": 1}}),
    "certificate": ({"from_v": "0"}, {"extra": 1}), "history": ({"rows": [{"step": 1}]},)}


@pytest.mark.parametrize("part, edit", [(part, edit) for part, edits in EDITS.items() for edit in edits], ids=str)
def test_descriptions_that_do_not_belong(folder, part, edit):
    change(folder, lambda said: said[part].update(edit))
    with pytest.raises((DataError, HostError), match="translation.load"): load(folder)


@pytest.mark.parametrize("edit", [
    lambda t: t.pop("fixed"), lambda t: t.pop("noise"), lambda t: t.update(fixed=torch.zeros(3)), lambda t: t["fixed"].fill_(math.inf),
    lambda t: t.update(noise=torch.zeros(2, 6)), lambda t: t.pop("embedder/mean"), lambda t: t.update({"embedder/extra": torch.zeros(1)}),
    lambda t: t["embedder/std"].fill_(0), lambda t: t["embedder/net.0.weight"].fill_(math.nan),
    lambda t: t.update({"embedder/std": torch.ones(4)}), lambda t: t.update({"flow/extra": torch.zeros(1)}),
    lambda t: t.update({"flow/blocks.0.weight": torch.zeros(5, 5)})])
def test_tensors_that_do_not_belong(folder, edit):
    tensors(folder, edit)
    with pytest.raises(DataError, match="translation.load"): load(folder)


def test_paths_and_explanations_are_no_translations(folder, tmp_path):
    for path in ("", "nothing", "a/translation.json"):
        with pytest.raises(DataError, match="translation.load"): load(tmp_path / path)
    with pytest.raises(DataError, match="explanation.load"): iin.load(folder)
