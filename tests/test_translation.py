"""The laws of a translation: a bijection in v for every condition, honest likelihood, hosts left alone, folders whole or refused."""
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
from iin_nb import hosts, latents, translation
from iin_nb.core import DataError, HostError, IINError, ShapeError
from iin_nb.fit import Recipe, TrainingStopped
from iin_nb.flow import FlowConfig
from iin_nb.translation import ConditionalFlow, Embedder, EmbedderConfig, Regressor, aligned, load, regress, translate

SHAPES = {"vector": (7,), "tokens": (4, 5), "maps": (3, 9, 6), "one number": (1,), "pixels": (1, 4, 4)}
SMALL = {"width": 6, "hidden": 8, "channels": 4}
SHORT = Recipe(n_steps=12, lr=3e-3, eval_every=6)
MIX = torch.randn(192, 6, generator=torch.Generator().manual_seed(5)) / 8


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(shape): return math.prod(shape)


def net_for(shape, dim=5, dtype=torch.float32, dead=False, n=200):
    "A shaken conditional flow in eval mode."
    z, c = draw(n, dim, seed=1) * 2 + 1, draw(n, count(shape), seed=2) * 3 - 1
    if dead: z[:, 1] = 0.7
    net = ConditionalFlow(FlowConfig(dim, n_blocks=2, hidden=8), EmbedderConfig(shape, **SMALL)).init_from(z, c)
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in net.parameters(): p.add_(0.2 * torch.randn(p.shape, generator=g))
    return net.to(dtype).eval()


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


# ---- the flow

@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("b", [1, 2, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_and_back(name, b, dtype):
    net, shape = net_for(SHAPES[name], dtype=dtype), SHAPES[name]
    z, c = draw(b, 5).to(dtype), draw(b, count(shape), seed=4).to(dtype)
    with torch.no_grad():
        v, logdet = net(z, c)
        back, gone = net.inverse(v, c)
    close = 2e-5 if dtype == torch.float32 else 1e-11
    assert (back - z).abs().max() <= close * (1 + z.abs().max()) and (logdet + gone).abs().max() <= 10 * close
    assert v.shape == z.shape and logdet.shape == (b,)


@pytest.mark.parametrize("name", SHAPES)
def test_logdet_is_autograds(name):
    net, shape = net_for(SHAPES[name], dtype=torch.float64), SHAPES[name]
    z, c = draw(3, 5).double(), draw(3, count(shape), seed=4).double()
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda t, i=i: net(t[None], c[i:i + 1])[0][0], z[i])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, net(z[i:i + 1], c[i:i + 1])[1][0])


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_reach_every_parameter(name):
    net, shape = net_for(SHAPES[name]).train(), SHAPES[name]
    net.nats(draw(9, 5), draw(9, count(shape), seed=4)).mean().backward()
    assert not [k for k, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


@pytest.mark.parametrize("name", SHAPES)
def test_the_condition_matters_and_noise_is_for_training(name):
    net, shape = net_for(SHAPES[name]), SHAPES[name]
    z, c = draw(2, 5), draw(2, count(shape), seed=4)
    assert torch.equal(net(z, c)[0], net(z, c)[0])
    assert not torch.allclose(net(z, c)[0], net(z, c + 1)[0])
    assert not torch.equal(net.train()(z, c)[0], net(z, c)[0])


def test_a_start_draws_nothing():
    "No noise on the conditions while a flow is set up: the same start each time, and nobody else's random numbers."
    config, z, c = FlowConfig(5, n_blocks=2, hidden=8, zero=False), draw(200, 5), draw(200, 7)
    before = torch.random.get_rng_state()
    a, b = (ConditionalFlow(config, EmbedderConfig((7,), noise=2.0, **SMALL)).init_from(z, c) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before) and a.training and not a.eval().init_from(z, c).training
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_conditions_are_standardised_and_constants_stay():
    for shape in ((3,), (4, 3), (3, 5, 5)):
        e = Embedder(EmbedderConfig(shape, **SMALL))
        c = draw(500, *shape) * 4 + 2
        c.select(-1 if len(shape) < 3 else 1, 0).fill_(9.0)
        e.init_from(c.flatten(1))
        assert torch.isfinite(e(c.flatten(1))).all() and e.std.flatten()[0] == 1
        torch.testing.assert_close(e.std.flatten()[1:], torch.full((2,), 4.0), atol=0.5, rtol=0)


def test_nats_are_a_density():
    "The likelihood of two dimensions integrates to one."
    net = net_for((2,), dim=2, dtype=torch.float64)
    axis = torch.linspace(-40, 40, 801).double()
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad(): mass = sum(net.nats(p, torch.ones(len(p), 2).double()).neg().exp().sum() for p in z.split(100_000)) * 0.01
    assert mass == pytest.approx(1, abs=0.02)


def test_an_unconditional_flow_and_wrong_widths():
    net = ConditionalFlow(FlowConfig(4, n_blocks=1, hidden=8)).init_from(draw(50, 4), draw(50, 2))
    assert torch.equal(net(draw(3, 4), draw(3, 2))[0], net(draw(3, 4), draw(3, 2, seed=8))[0])
    with pytest.raises(ShapeError, match="condition"): net_for((7,))(draw(3, 5), draw(3, 6))


@pytest.mark.parametrize("bad", [
    {"shape": (0,)}, {"shape": (1, 2, 3, 4)}, {"width": 0}, {"depth": -1}, {"noise": -0.1}, {"noise": math.nan}, {"hidden": 2.5},
    {"channels": "4"}])
def test_bad_embedders(bad):
    with pytest.raises(DataError, match="translation.EmbedderConfig"): EmbedderConfig(**bad)


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


def test_seeds_decide_everything(by_numbers):
    data = draw(80, 3, seed=1), latents.from_array(draw(80, 6).index_fill_(1, torch.tensor([2]), 1.5), frame(80))
    args = FlowConfig(6, n_blocks=2, hidden=8), EmbedderConfig(**SMALL), SHORT, 16
    again, other = translate(None, None, data, *args), translate(None, None, data, *args, seed=1)
    c = draw(2, 3)
    assert torch.equal(again.sample(c, seed=0), by_numbers.sample(c, seed=0))
    assert not torch.equal(other.sample(c, seed=0), again.sample(c, seed=0))


def test_interrupt_keeps_the_best(monkeypatch, capsys):
    calls, real = [], translation.gaussian_nll

    def impatient(*a):
        calls.append(1)
        if len(calls) > 40: raise KeyboardInterrupt
        return real(*a)

    monkeypatch.setattr(translation, "gaussian_nll", impatient)
    monkeypatch.setattr(translation, "_mean_nats", lambda net, part, n=None: 1.0)
    t = translate(None, None, (draw(60, 3), latents.from_array(draw(60, 6), frame(60))), FlowConfig(6, n_blocks=1, hidden=8),
                  EmbedderConfig(**SMALL), replace(SHORT, n_steps=200), 8)
    assert t.history.stopped == "interrupted" and t.history.best_step > 0 and t.record["nats_unconditional"] is None


def test_nan_stops_with_the_last_good_state(monkeypatch):
    real = translation.gaussian_nll
    monkeypatch.setattr(translation, "gaussian_nll", lambda *a: real(*a) * math.nan)
    with pytest.raises(TrainingStopped) as e:
        translate(None, None, (draw(60, 3), latents.from_array(draw(60, 6), frame(60))), FlowConfig(6, n_blocks=1, hidden=8), recipe=SHORT)
    assert isinstance(e.value.flow, ConditionalFlow)


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


def test_the_baseline_has_the_same_budget():
    config = EmbedderConfig((64,))
    flow = ConditionalFlow(FlowConfig(64), config).n_parameters
    assert 0.97 < sum(p.numel() for p in Regressor(64, config, flow).parameters()) / flow <= 1


# ---- on disk

@pytest.fixture
def folder(by_numbers, tmp_path):
    by_numbers.save(tmp_path / "a")
    return tmp_path / "a"


def change(folder, edit):
    said = json.loads((folder / "translation.json").read_text(encoding="utf-8"))
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
