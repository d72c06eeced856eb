"""The laws of a conditional flow: a bijection in v for every condition, honest likelihood, noise in training alone."""
import math
from dataclasses import asdict

import pandas as pd
import pytest
import torch

from iin_nb import conditional, latents
from iin_nb.conditional import (
    Aligned,
    ConditionalFlow,
    Embedder,
    EmbedderConfig,
    Regressor,
    certify_v,
    fit_flow,
    fit_regressor,
    mean_error,
    rebuild,
)
from iin_nb.core import DataError, ShapeError
from iin_nb.fit import Recipe, TrainingStopped
from iin_nb.flow import FlowConfig

SHAPES = {"vector": (7,), "tokens": (4, 5), "maps": (3, 9, 6), "one number": (1,), "pixels": (1, 4, 4)}
SMALL = {"width": 6, "hidden": 8, "channels": 4}
SHORT = Recipe(n_steps=12, lr=3e-3, eval_every=6)


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


def part(n, dim=3, seed=0):
    "z = c + a tenth of noise."
    c = draw(n, dim, seed=seed)
    return Aligned(c, latents.from_array(c + 0.1 * draw(n, dim, seed=seed + 1), pd.DataFrame(index=range(n))))


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
    with pytest.raises(DataError, match="conditional.EmbedderConfig"): EmbedderConfig(**bad)


# ---- training

def test_pairs_are_drawn_row_by_row():
    p = part(50)
    c, z = p.draw(torch.tensor([3, 3, 7]), torch.Generator().manual_seed(0))
    assert torch.equal(c, p.c[[3, 3, 7]]) and not torch.equal(z[0], z[1]) and (z - p.z.mean[[3, 3, 7]]).abs().max() < 0.1


@pytest.mark.parametrize("fit", [fit_flow, fit_regressor])
def test_a_seed_decides_the_training(fit):
    def trained(seed):
        config = EmbedderConfig((3,), **SMALL)
        net = ConditionalFlow(FlowConfig(3, n_blocks=2, hidden=8), config) if fit is fit_flow else Regressor(3, config, 2000)
        return fit(net, part(60), part(30, seed=5), Recipe(n_steps=12, lr=3e-3, eval_every=6, seed=seed), 16), net
    (first, a), (_, b), (_, other) = trained(1), trained(1), trained(2)
    assert first.best < first.rows[0]["held_out"] + 1e-6 and not a.training
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert any(not torch.equal(v, other.state_dict()[k]) for k, v in a.state_dict().items())


def test_nan_stops_with_the_last_good_state(monkeypatch):
    real = conditional.gaussian_nll
    monkeypatch.setattr(conditional, "gaussian_nll", lambda *a: real(*a) * math.nan)
    net = ConditionalFlow(FlowConfig(3, n_blocks=1, hidden=8), EmbedderConfig((3,), **SMALL))
    with pytest.raises(TrainingStopped) as e: fit_flow(net, part(60), part(30), SHORT)
    assert e.value.flow is net and all(torch.isfinite(t).all() for t in net.state_dict().values())


# ---- the baseline

def test_the_baseline_has_the_same_budget():
    config = EmbedderConfig((64,))
    flow = ConditionalFlow(FlowConfig(64), config).n_parameters
    assert 0.97 < sum(p.numel() for p in Regressor(64, config, flow).parameters()) / flow <= 1


def test_the_regressor_finds_a_function():
    net = Regressor(3, EmbedderConfig((3,), width=8, hidden=32, noise=0), 4000)
    fit_regressor(net, part(600), part(100, seed=5), Recipe(n_steps=200, lr=1e-2, eval_every=50), 128)
    assert mean_error(net, part(200, seed=9)) < 0.1


# ---- certificate, and from tensors

def test_the_certificate_sees_a_broken_flow():
    net = net_for((7,))
    z, c = draw(40, 5), draw(40, 7, seed=4)
    assert certify_v(net, z, c).holds
    with torch.no_grad(): net.flow.blocks[1].log_scale += 20
    assert not certify_v(net, z, c).holds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.filterwarnings("ignore:.*constant")
def test_made_anew_is_the_same(dtype, dead):
    net = net_for((3, 9, 6), dtype=dtype, dead=dead)
    again, z, c = rebuild(described(net), net.state_dict()), draw(4, 5).to(dtype), draw(4, 162, seed=4).to(dtype)
    assert torch.equal(again(z, c)[0], net(z, c)[0]) and again.n_fixed == net.n_fixed == dead and not again.training


def described(net): return {"flow": asdict(net.flow.config), "embedder": asdict(net.embedder.config)}


@pytest.mark.parametrize("part, edit", [("embedder", {"width": 5}), ("embedder", {"shape": ()}), ("embedder", {"depth": 10**9}),
                                        ("embedder", {"shape": (6,)}), ("flow", {"n_blocks": 3}), ("flow", {"context_dim": 0})], ids=str)
def test_another_description_is_refused(part, edit):
    net = net_for((7,))
    said = described(net)
    with pytest.raises((ValueError, KeyError)): rebuild(said | {part: said[part] | edit}, net.state_dict())


def test_no_bijection_is_refused():
    net = net_for((7,))
    with torch.no_grad(): net.embedder.std.fill_(0)
    with pytest.raises(ValueError, match="no bijection"): rebuild(described(net), net.state_dict())
