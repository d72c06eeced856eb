"""The laws of T, over every block and every flow: a bijection whose logdet is the truth."""
import copy
import io
import time
import warnings
from dataclasses import asdict

import pytest
import torch

from iin_nb import core, flow
from iin_nb.core import DataError, IINError, NotInitialised, ShapeError
from iin_nb.flow import ActNorm, AffineCoupling, Chain, ConvCoupling, EachPlace, Flow, FlowConfig, Mix, Principal, Shear, Shuffle

BATCHES, DTYPES, DIMS = (1, 2, 17), (torch.float32, torch.float64), (2, 3, 8, 13)
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def sample(n, dim, seed=0, dtype=torch.float32):
    "Rows with differing means and stds, correlated."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=g, dtype=torch.float64)
    mix = torch.eye(dim).double() + 0.3 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return (x @ mix * torch.linspace(0.3, 2, dim) + torch.linspace(-1, 1, dim)).to(dtype)


def shaken(module, seed=0):
    "Every parameter moved at random, so that nothing is the identity by birth."
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters(): p.add_(0.2 * torch.randn(p.shape, generator=g, dtype=torch.float32).to(p.dtype))
    return module


def actnorm(dim, c):
    block = ActNorm(dim)
    block.init_from(sample(100, dim))
    return block


def small_flow(dim, c, **kw):
    config = FlowConfig(dim, n_blocks=3, hidden=16, context_dim=c, **kw)
    return Flow(config).init_from(sample(200, dim), torch.randn(200, c) if c else None)


def flow_with_dead(dim, c):
    z = sample(200, dim + 2)
    z[:, 1], z[:, -1] = 0.0, 7.7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Flow(FlowConfig(dim + 2, n_blocks=2, hidden=16, context_dim=c)).init_from(z, torch.randn(200, c) if c else None)


def principal(dim, c):
    block = Principal(dim, max(1, dim // 2))
    block.init_from(sample(200, dim))
    return block


def shear(dim, c):
    block = Shear(dim - 1, 1)
    block.put(sample(1, dim - 1, 3), sample(1, dim - 1, 4)[0])
    return block


def flow_of_leading(dim, c):
    "Half of the directions lead, two dimensions are constant, the last maps are set."
    z = sample(200, 2 * dim + 2)
    z[:, 1], z[:, -1] = 0.0, 7.7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = Flow(FlowConfig(2 * dim + 2, n_blocks=2, hidden=16, context_dim=c, lead=dim)).init_from(z, torch.randn(200, c) if c else None)
    weight = torch.eye(2 * dim + 2)
    weight[-1:, 2:-1] = sample(1, 2 * dim - 1, 8)
    f.close(sample(1, 2 * dim + 2, 9)[0], weight)
    return f


def flow_of_maps(dim, c, dead=False):
    "Maps of `dim` channels, and of one more that is constant if `dead`."
    shape = (dim + dead, 2, 3)
    z = sample(200, 6 * (dim + dead))
    z[:, 7] = 0.5   # one place only: its channel varies
    if dead: z[:, :6] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = FlowConfig(6 * (dim + dead), n_blocks=2, hidden=8, context_dim=c, shape=shape)
        return Flow(config).init_from(z, torch.randn(200, c) if c else None)


BLOCKS = {   # name: (dim, width of the context) -> block
    "actnorm": actnorm,
    "coupling": lambda d, c: AffineCoupling(d, 16, context_dim=c),
    "coupling swapped": lambda d, c: AffineCoupling(d, 16, depth=0, swap=True, context_dim=c),
    "coupling of two nets": lambda d, c: AffineCoupling(d, 16, depth=2, context_dim=c, joint=False, activation="leaky_relu", zero=False),
    "shuffle": lambda d, c: Shuffle(d, 3),
    "chain": lambda d, c: Chain([AffineCoupling(d, 16, context_dim=c), Shuffle(d), AffineCoupling(d, 16, swap=True, context_dim=c)]),
    "flow": small_flow,
    "flow of two nets": lambda d, c: small_flow(d, c, joint=False, zero=False, depth=2, activation="leaky_relu"),
    "flow with dead dimensions": flow_with_dead,
    "principal": principal,
    "shear": shear,
    "mix": lambda d, c: EachPlace(Mix(d), (d, 1, 2)),
    "coupling of maps": lambda d, c: ConvCoupling((d, 1, 2), 8, context_dim=c),
    "coupling of maps swapped": lambda d, c: ConvCoupling((d, 2, 1), 8, 0, True, c, joint=False, activation="leaky_relu", zero=False),
    "flow of leading directions": flow_of_leading,
    "flow of maps": flow_of_maps,
    "flow of maps with a dead channel": lambda d, c: flow_of_maps(d, c, dead=True),
}


def cases(f):
    f = pytest.mark.parametrize("name", BLOCKS)(f)
    f = pytest.mark.parametrize("dim", DIMS)(f)
    return pytest.mark.parametrize("c", [0, 4], ids=["plain", "context"])(f)


def made(name, dim, c, dtype=torch.float64):
    block = shaken(BLOCKS[name](dim, c)).to(dtype)
    if isinstance(block, Flow): dim = block.config.dim
    return block, 2 * dim if isinstance(block, EachPlace | ConvCoupling) else dim


def context(n, c, dtype): return torch.randn(n, c, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype) if c else None


# ---- laws over every block

@cases
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", BATCHES)
def test_round_trip_and_logdets_cancel(name, dim, c, dtype, n):
    block, dim = made(name, dim, c, dtype)
    x, cond = sample(n, dim, 1, dtype), context(n, c, dtype)
    y, logdet = block(x, cond)
    back, minus = block.inverse(y, cond)
    assert y.shape == back.shape == (n, dim) and logdet.shape == minus.shape == (n,)
    assert y.dtype == logdet.dtype == minus.dtype == dtype
    scale = 1 + (x.abs().max() + y.abs().max()).item()
    assert (back - x).abs().max() <= TOLERANCE[dtype] * scale
    assert (logdet + minus).abs().max() <= TOLERANCE[dtype] * scale * dim
    there, plus = block(block.inverse(x, cond)[0], cond)   # and the other way round
    assert (there - x).abs().max() <= TOLERANCE[dtype] * scale * 10


@cases
def test_logdet_is_autograds(name, dim, c):
    block, dim = made(name, dim, c)
    x, cond = sample(3, dim, 2, torch.float64), context(3, c, torch.float64)
    for way in (block, block.inverse):
        _, logdet = way(x, cond)
        for i in range(3):
            jacobian = torch.autograd.functional.jacobian(lambda u: way(u[None], None if cond is None else cond[i:i + 1])[0][0], x[i])  # noqa: B023
            torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, logdet[i], rtol=0, atol=1e-9)


@cases
def test_rows_do_not_meet(name, dim, c):
    block, dim = made(name, dim, c)
    x, cond = sample(17, dim, 3, torch.float64), context(17, c, torch.float64)
    y, logdet = block(x, cond)
    one, alone = block(x[4:5], None if cond is None else cond[4:5])
    torch.testing.assert_close(one[0], y[4])
    torch.testing.assert_close(alone[0], logdet[4])


@cases
def test_gradients_reach_every_parameter(name, dim, c):
    block, dim = made(name, dim, c)
    x, cond = sample(17, dim, 4, torch.float64).requires_grad_(), context(17, c, torch.float64)
    y, logdet = block(x, cond)
    (y.square().sum() - logdet.sum() + y.sin().sum()).backward()
    for k, p in block.named_parameters(): assert p.grad is not None and torch.isfinite(p.grad).all() and (p.grad != 0).any(), k
    assert torch.isfinite(x.grad).all() and (x.grad != 0).any(1).all()


@cases
def test_save_and_load(name, dim, c):
    born = dim
    block, dim = made(name, dim, c)
    x, cond = sample(5, dim, 5, torch.float64), context(5, c, torch.float64)
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    other = Flow(FlowConfig(**asdict(block.config))) if isinstance(block, Flow) else BLOCKS[name](born, c)
    other = other.double()
    other.load_state_dict(torch.load(file, weights_only=True))
    for way in ("forward", "inverse"):
        for a, b in zip(getattr(block, way)(x, cond), getattr(other, way)(x, cond), strict=True): assert torch.equal(a, b)


@pytest.mark.parametrize("name", [n for n in BLOCKS if "coupling" in n or (n.startswith("flow") and "two" not in n)])
def test_the_context_matters(name):
    block, dim = made(name, 8, 4)
    x, cond = sample(5, dim, 6, torch.float64), context(5, 4, torch.float64)
    y = block(x, cond)[0]
    assert not torch.allclose(y, block(x, cond + 1)[0])
    torch.testing.assert_close(block.inverse(y, cond)[0], x)


# ---- each block's own promise

def test_actnorm_whitens_and_says_so():
    norm = ActNorm(8)
    assert not norm.ready
    x = sample(500, 8)
    norm.init_from(x)
    y, logdet = norm(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(logdet[0], -x.std(0, unbiased=False).log().sum())
    assert norm.ready and "ready" in norm.state_dict()


def test_actnorm_of_a_constant_stays_finite():
    norm = ActNorm(3)
    norm.init_from(torch.ones(50, 3))
    y, logdet = norm(torch.ones(2, 3))
    assert torch.isfinite(y).all() and torch.isfinite(logdet).all()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("swap", [False, True])
def test_coupling_leaves_one_half_alone(dim, swap):
    block, x = shaken(AffineCoupling(dim, 16, swap=swap)), sample(4, dim)
    y, first = block(x)[0], dim // 2
    kept, moved = (slice(first, None), slice(None, first)) if swap else (slice(None, first), slice(first, None))
    assert torch.equal(y[:, kept], x[:, kept]) and not torch.isclose(y[:, moved], x[:, moved]).all(1).any()


def test_log_scale_is_bounded():
    block = shaken(AffineCoupling(8, 16))
    with torch.no_grad(): block.nets[0][-1].weight.mul_(1e4)
    for x in (sample(50, 8), 1e4 * sample(50, 8)):
        y, logdet = block(x)
        assert logdet.abs().max() <= 4 + 1e-6 and torch.isfinite(y).all()   # |s| ≤ 1 in each of four dimensions


def test_coupling_starts_as_the_identity_if_asked():
    x = sample(4, 7)
    assert torch.equal(AffineCoupling(7, zero=True)(x)[0], x)
    assert not torch.allclose(AffineCoupling(7, zero=False)(x)[0], x)


def test_shuffle_is_a_permutation_by_its_seed():
    x = torch.arange(50.0)[None]
    assert torch.equal(Shuffle(50, 1)(x)[0].sort().values, x) and not torch.equal(Shuffle(50, 1)(x)[0], x)
    assert torch.equal(Shuffle(50, 1).order, Shuffle(50, 1).order) and not torch.equal(Shuffle(50, 1).order, Shuffle(50, 2).order)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("c", [0, 3])
def test_coupling_against_zuko(swap, c):
    transforms = pytest.importorskip("zuko.transforms")
    block = shaken(AffineCoupling(7, 16, swap=swap, context_dim=c)).double()
    x, cond = sample(9, 7, 7, torch.float64), context(9, c, torch.float64)

    def meta(a):   # our network, their arithmetic: loc + exp(s) x on the dimensions outside the mask
        s, t = block.nets[0](a if cond is None else torch.cat([a, cond], 1)).chunk(2, 1)
        return transforms.DependentTransform(torch.distributions.AffineTransform(t, torch.tanh(s).exp()), 1)

    mask = torch.arange(7) < 3
    theirs = transforms.CouplingTransform(meta, ~mask if swap else mask)
    y, ladj = theirs.call_and_ladj(x)
    ours, logdet = block(x, cond)
    torch.testing.assert_close(ours, y)
    torch.testing.assert_close(logdet, ladj)
    torch.testing.assert_close(block.inverse(y, cond)[0], theirs.inv(y))


# ---- the flow

def test_published_configuration():
    assert Flow(FlowConfig.published()).n_parameters == 26_815_488
    assert FlowConfig.published(32, context_dim=5).context_dim == 5


def test_seed_decides_everything():
    torch.manual_seed(1)
    a = Flow(FlowConfig(6, n_blocks=2, hidden=8, seed=3))
    torch.manual_seed(2)
    b, c = Flow(FlowConfig(6, n_blocks=2, hidden=8, seed=3)), Flow(FlowConfig(6, n_blocks=2, hidden=8, seed=4))
    assert all(torch.equal(u, v) for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert any(not torch.equal(u, v) for u, v in zip(a.state_dict().values(), c.state_dict().values(), strict=True))
    torch.manual_seed(7); expected = torch.rand(3)
    torch.manual_seed(7); Flow(6); assert torch.equal(torch.rand(3), expected)   # the outer stream goes on as if nothing had happened


def test_new_flow_is_refused_until_init_from():
    new, z = Flow(FlowConfig(4, n_blocks=2, hidden=8)), sample(50, 4)
    for mode in (new.train(), new.eval()):
        for way in (mode, mode.inverse):
            with pytest.raises(NotInitialised, match=r"got a new one. Call flow.init_from\(z\)"): way(z)
    assert new.init_from(z) is new
    y, _ = new.eval()(z)
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(4), atol=1e-4, rtol=0)


def test_use_does_not_change_a_flow():
    f = small_flow(4, 0)
    before = copy.deepcopy(f.state_dict())
    for mode in (f.train(), f.eval()): mode(sample(5, 4)), mode.inverse(sample(1, 4))
    assert all(torch.equal(before[k], v) for k, v in f.state_dict().items())


GOOD = sample(9, 4)


@pytest.mark.parametrize("z, match", [
    (GOOD[:, :3], r"\(B, 4\), got shape \(9, 3\)"), (GOOD[0], r"got shape \(4,\)"), (GOOD[None], r"got shape \(1, 9, 4\)"),
    (GOOD.double(), "float32, got torch.float64"), (GOOD.to("meta"), "device cpu, got meta"), (GOOD.numpy(), "got ndarray")])
def test_bad_z(z, match):
    f = small_flow(4, 0)
    before = copy.deepcopy(f.state_dict())
    for name, way in (("forward", f), ("inverse", f.inverse), ("init_from", f.init_from)):
        with pytest.raises(ShapeError, match=f"flow.{name}: expected .*{match}"): way(z)
    assert all(torch.equal(before[k], v) for k, v in f.state_dict().items())


@pytest.mark.parametrize("c, context, match", [
    (0, torch.zeros(9, 2), "no context, got one"), (2, None, r"\(B, 2\), got none"), (2, torch.zeros(9, 3), r"context of shape \(B, 2\)"),
    (2, torch.zeros(1, 2), r"per sample \(9\), got 1"), (2, torch.zeros(9, 2).double(), "float64")])
def test_bad_context(c, context, match):
    f = small_flow(4, c)
    for way in (f, f.inverse, f.init_from):
        with pytest.raises(ShapeError, match=match): way(GOOD, context)


@pytest.mark.parametrize("z, match", [
    (GOOD[:1], "at least 2 samples, got 1"), (GOOD[:0], "at least 2 samples, got 0"),
    (torch.cat([GOOD, GOOD[:1] * float("nan")]), "first in row 9"), (torch.cat([GOOD[:1] / 0, GOOD]), "first in row 0")])
def test_bad_init(z, match):
    new = Flow(FlowConfig(4, n_blocks=2, hidden=8))
    with pytest.raises(DataError, match=f"flow.init_from: expected .*{match}"): new.init_from(z)
    with pytest.raises(NotInitialised): new(GOOD)


@pytest.mark.parametrize("kw, match", [
    ({"dim": 0}, "dim=0"), ({"n_blocks": 0}, "n_blocks=0"), ({"hidden": 0}, "hidden=0"), ({"depth": -1}, "depth=-1"),
    ({"activation": "tanh"}, "'tanh'"), ({"dead": (4,)}, r"\(4,\)"), ({"dead": (1, 1)}, r"\(1, 1\)")])
def test_bad_config(kw, match):
    with pytest.raises(IINError, match=f"flow.FlowConfig: expected .*{match}"): FlowConfig(**{"dim": 4, **kw})


def test_too_few_dimensions():
    with pytest.raises(ShapeError, match="at least 2 dimensions that vary"): Flow(1)
    z = torch.ones(50, 3)
    new = Flow(FlowConfig(3, n_blocks=1, hidden=8))
    with pytest.raises(ShapeError, match="dim=3, 3 of them constant"): new.init_from(z)
    z[:, 0] = torch.randn(50)
    with pytest.raises(ShapeError, match="dim=3, 2 of them constant"): new.init_from(z)
    assert new.config.dead == ()   # a refusal changes nothing


# ---- dead dimensions

@pytest.mark.parametrize("value", [0.0, 1000.1, -3e7, 1e-9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_dimensions_pass_unchanged_with_one_warning(value, dtype, monkeypatch):
    monkeypatch.setattr(core, "_warned", set())
    z = sample(4096, 6, dtype=dtype)
    z[:, [2, 5]] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        f = shaken(Flow(FlowConfig(6, n_blocks=3, hidden=8)).to(dtype).init_from(z))
        f.init_from(z)
        y, logdet = f(z)
    assert len(caught) == 1 and "2 of 6 dimensions are constant" in str(caught[0].message)
    assert f.config.dead == (2, 5) and next(f.parameters()).dtype == dtype
    assert torch.equal(y[:, :2], z[:, [2, 5]]) and torch.isfinite(y).all()
    back, minus = f.inverse(y)
    assert torch.equal(back[:, [2, 5]], z[:, [2, 5]])
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logdet + minus, torch.zeros_like(logdet), rtol=0, atol=1e-4)
    awake = z[:4] + 1.0   # the unit fires after all
    assert torch.equal(f.inverse(f(awake)[0])[0][:, [2, 5]], awake[:, [2, 5]])


def test_narrow_dimensions_are_not_dead():
    z = sample(500, 4)
    z[:, 1] *= 1e-4
    f = Flow(FlowConfig(4, n_blocks=2, hidden=8)).init_from(z)
    assert f.config.dead == ()


def test_reload_needs_the_config_with_its_dead_dimensions():
    f = flow_with_dead(4, 0)
    with pytest.raises(RuntimeError, match="size mismatch"): Flow(FlowConfig(6, n_blocks=2, hidden=16)).load_state_dict(f.state_dict())
    assert FlowConfig(**{**asdict(f.config), "dead": list(f.config.dead)}) == f.config   # as json gives it back


def test_fast_for_one_sample():
    f = Flow(64).init_from(sample(500, 64))
    z = sample(1, 64)
    with torch.no_grad():
        seconds = []
        for _ in range(10):
            start = time.perf_counter()
            f.inverse(z)
            seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02, f"{min(seconds) * 1e3:.1f} ms for one sample"   # 2 ms on an idle core


def test_nothing_with_a_wrong_logdet_came_along():
    assert not [n for n in dir(flow) if "relu" in n.lower()]


def test_close_sets_the_last_map_and_leaves_constant_dimensions():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(200, 6, generator=g)
    z[:, 2] = 4.0
    flow = Flow(FlowConfig(6, n_blocks=2, hidden=8, zero=False)).init_from(z)
    before, logdet = (t.detach() for t in flow(z))
    mean, weight = torch.randn(6, generator=g), torch.eye(6) + 0.1 * torch.randn(6, 6, generator=g)
    flow.close(mean, weight)
    after, closed = flow(z)
    torch.testing.assert_close(after[:, 1:], (before[:, 1:] - mean[1:]) @ weight[1:, 1:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(closed - logdet, torch.linalg.slogdet(weight[1:, 1:]).logabsdet.expand(200), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flow.inverse(after)[0], z, atol=1e-3, rtol=1e-3)
    assert torch.equal(after[:, 0], z[:, 2])
    flow.init_from(z)   # a new start forgets it
    torch.testing.assert_close(flow(z)[0], before, atol=1e-4, rtol=1e-4)


def test_mix_is_undone_in_doubles():
    "A condition of 1,000 costs a solve in float32 three digits; the weights themselves are float32 either way."
    mix, g = Mix(64), torch.Generator().manual_seed(1)
    with torch.no_grad(): mix.weight.copy_(mix.weight * torch.logspace(0, -3, 64))
    x = torch.randn(500, 64, generator=g)
    y, there = mix(x)
    back, home = mix.inverse(y)
    plain = torch.linalg.solve(mix.weight, y, left=False)
    assert back.dtype == y.dtype and (there + home).abs().max() < 1e-4
    exact = torch.linalg.solve(mix.weight.double(), y.double(), left=False)
    assert (back - exact).abs().max() < 1e-6 and (plain - exact).abs().max() >= (back - exact).abs().max()


def test_close_needs_linear_maps():
    with pytest.raises(DataError, match="a flow with linear maps"): Flow(FlowConfig(4, linear=False)).close(torch.zeros(4), torch.eye(4))


# ---- large latents

def test_leading_directions_lead_and_the_others_are_rescaled():
    z = sample(4000, 30) * torch.linspace(0.01, 3, 30)
    f = Flow(FlowConfig(30, n_blocks=2, hidden=8, lead=6)).init_from(z)
    y = f(z)[0]
    values = torch.linalg.eigvalsh(z.T.cov().double())
    assert f.n_rest == 24 and f.modelled_share == pytest.approx(float(values[-6:].sum() / values.sum()), abs=1e-3)
    assert f"6 leading directions ({f.modelled_share:.0%} of the variance)" in repr(f)
    expected = (values[:24] / flow.shrunk(values[:24], 4000)).sqrt().float()
    torch.testing.assert_close(y.std(0)[:24], expected, atol=1e-2, rtol=0)
    torch.testing.assert_close(y[:, 24:].T.cov(), torch.eye(6), atol=1e-2, rtol=0)
    q = f.front[0].rotation
    torch.testing.assert_close(q.T @ q, torch.eye(30), atol=1e-5, rtol=0)
    assert Flow(FlowConfig(8)).modelled_share == 1.0


@pytest.mark.parametrize("n, near", [(100_000, 0.0), (30, 1.0)])
def test_variances_are_drawn_towards_their_mean_where_samples_are_few(n, near):
    values = torch.linspace(0.9, 1.1, 30).double() if n == 30 else torch.linspace(0.1, 2, 30).double()
    drawn = flow.shrunk(values, n)
    assert drawn.mean() == pytest.approx(float(values.mean())) and (drawn.diff() >= 0).all()
    torch.testing.assert_close(drawn, torch.lerp(values, values.mean(), torch.tensor(near).double()), atol=2e-3, rtol=0)
    for odd in (torch.zeros(3), torch.ones(4), torch.ones(1), torch.ones(0)): assert torch.isfinite(flow.shrunk(odd, 10)).all()


def test_the_rest_is_as_likely_as_it_was_found():
    "Of isotropic data, fewer samples than dimensions: held-out nats near the truth, not thousands."
    z, other = (torch.randn(n, 200, generator=torch.Generator().manual_seed(n)) for n in (150, 300))
    f = Flow(FlowConfig(200, n_blocks=2, hidden=8, lead=4)).init_from(z)
    y, logdet = f(other)
    assert abs((0.5 * (y.square().sum(1) - other.square().sum(1)) - logdet).mean()) < 30


def test_couplings_reach_the_leading_directions_only():
    f = Flow(FlowConfig(30, n_blocks=2, hidden=8, lead=6)).init_from(sample(500, 30))
    before = f(sample(9, 30, 1))[0]
    after = shaken(f)(sample(9, 30, 1))[0]
    assert torch.equal(before[:, :24], after[:, :24]) and (before[:, 24:] != after[:, 24:]).any(0).all()


def test_start_is_a_map_of_the_leading_directions():
    z, turn = sample(500, 12), torch.linalg.qr(sample(4, 4, 2))[0]
    f = Flow(FlowConfig(12, n_blocks=3, hidden=8, lead=4))
    x = f.find(z).leading(z)
    assert x.shape == (500, 4)
    f.init_from(z, start=turn)
    y = f(z)[0][:, 8:]
    torch.testing.assert_close(y, (x - x.mean(0)) @ turn / ((x - x.mean(0)) @ turn).std(0, unbiased=False), atol=1e-4, rtol=1e-4)


def test_close_clears_the_rest_of_what_the_leading_tell():
    z, g = sample(800, 12), torch.Generator().manual_seed(0)
    f = shaken(Flow(FlowConfig(12, n_blocks=2, hidden=8, lead=5)).init_from(z))
    before, logdet = (t.detach() for t in f(z))
    mean, weight = torch.randn(12, generator=g), torch.eye(12)
    weight[7:, 7:] += 0.1 * torch.randn(5, 5, generator=g)
    weight[7:, :7] = torch.randn(5, 7, generator=g)
    f.close(mean, weight)
    after, closed = f(z)
    torch.testing.assert_close(after, (before - mean) @ weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(closed - logdet, torch.linalg.slogdet(weight).logabsdet.expand(800), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(f.inverse(after)[0], z, atol=1e-3, rtol=1e-3)
    f.init_from(z)   # a new start forgets it
    torch.testing.assert_close(f(z)[0][:, :7], before[:, :7], atol=1e-4, rtol=1e-4)


def test_fewer_dimensions_vary_than_should_lead(monkeypatch):
    monkeypatch.setattr(core, "_warned", set())
    z = sample(100, 6)
    z[:, :3] = 1.0
    with pytest.warns(UserWarning, match="3 of 6"): f = Flow(FlowConfig(6, n_blocks=2, hidden=8, lead=5)).init_from(z)
    assert f.n_rest == 0 and f.modelled_share == pytest.approx(1.0)
    torch.testing.assert_close(f.inverse(f(z)[0])[0], z, atol=1e-4, rtol=1e-4)


def test_fewer_samples_than_dimensions_stay_finite():
    z, other = sample(20, 60), sample(50, 60, 1)
    f = Flow(FlowConfig(60, n_blocks=2, hidden=8, lead=4)).init_from(z)
    y, logdet = f(other)
    assert torch.isfinite(y).all() and torch.isfinite(logdet).all()
    torch.testing.assert_close(f.inverse(y)[0], other, atol=1e-3, rtol=1e-3)


def test_a_convolution_sees_its_neighbours():
    f = shaken(Flow(FlowConfig(48, n_blocks=1, hidden=8, shape=(4, 1, 12))).init_from(sample(100, 48))).double()
    x = sample(1, 48, 1, torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: f(u)[0][0], x)[:, 0].reshape(4, 12, 4, 12)
    reach = (jacobian != 0).any(2).any(0)[0]   # of the first place
    assert reach[:5].all() and not reach[5:].any()   # two couplings of two 3 × 3 each: four places


@pytest.mark.parametrize("kw, match", [
    ({"lead": 1}, "lead of 2 … 12"), ({"lead": 13}, "got 13"), ({"lead": -1}, "lead=-1"), ({"shape": (3, 4)}, r"\(3, 4\)"),
    ({"shape": (3, 2, 3)}, r"of 12 numbers, without lead, got \(3, 2, 3\)"), ({"shape": (3, 2, 2), "lead": 4}, "and lead=4"),
    ({"shape": (-3, -2, 2)}, r"\(-3, -2, 2\)")])
def test_bad_large_config(kw, match):
    with pytest.raises(DataError, match=f"flow.FlowConfig: expected .*{match}"): FlowConfig(12, **kw)


def test_maps_of_one_channel_are_refused():
    with pytest.raises(ShapeError, match="at least 2 channels that vary, got 1"): Flow(FlowConfig(12, shape=(1, 3, 4)))


def test_try_leads_prefers_what_is_there():
    g = torch.Generator().manual_seed(0)
    def make(n):   # a ring in two directions of 24, faint noise beside it
        a = 6.28 * torch.rand(n, generator=g)
        ring = 3 * torch.stack([a.cos(), a.sin()], 1) + 0.1 * torch.randn(n, 2, generator=g)
        return torch.cat([ring, 0.3 * torch.randn(n, 22, generator=g)], 1) @ torch.linalg.qr(sample(24, 24, 5))[0]
    tried = flow.try_leads(make(600), make(600), (2, 24), flow.Recipe(n_steps=150, lr=3e-3, eval_every=30), n_blocks=4, hidden=32)
    assert list(tried) == [2, 24] and tried[2] < tried[24] - 0.1
