"""The likelihood is that of torch.distributions, its optimum is where it should be, and training follows it on any latents."""
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from iin_nb import latents
from iin_nb.core import DataError, ShapeError
from iin_nb.factors import Layout
from iin_nb.fit import Recipe, TrainingStopped
from iin_nb.flow import Flow, FlowConfig
from iin_nb.objective import BATCH, RHO, contrast, gaussian_nll, mean_contrast, mean_pair_nll, pair_loss, pair_nll, train_flow
from iin_nb.pairs import Pairs, concepts

QUICK = Recipe(n_steps=60, lr=5e-3, eval_every=20)


def gen(seed=0): return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0): return torch.randn(*shape, generator=gen(seed), dtype=torch.float64)


# ---- likelihoods

@pytest.mark.parametrize("n", [1, 2, 17])
def test_gaussian_nll_of_a_map_is_the_density_of_its_input(n):
    flow = Flow(FlowConfig(5, n_blocks=2, hidden=8, zero=False, linear=False)).double().init_from(randn(100, 5))
    z = randn(n, 5, seed=1)
    z_tilde, logdet = flow(z)
    expected = []
    for row in z:
        jacobian = torch.autograd.functional.jacobian(lambda u: flow(u)[0][0], row[None])[:, 0]
        expected.append(-Normal(0, 1).log_prob(flow(row[None])[0]).sum() - torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(gaussian_nll(z_tilde, logdet), torch.stack(expected))


def joint(a, b, rho):
    "−log of one Gaussian of 2D dimensions, row by row."
    eye, out = torch.eye(a.shape[1], dtype=a.dtype), []
    for u, v, r in zip(a, b, rho, strict=True):
        cov = torch.cat([torch.cat([eye, torch.diag(r)], 1), torch.cat([torch.diag(r), eye], 1)])
        out.append(-MultivariateNormal(torch.zeros(2 * len(u), dtype=a.dtype), cov).log_prob(torch.cat([u, v])))
    return torch.stack(out)


@pytest.mark.parametrize("rho", [0.0, 0.5, RHO])
@pytest.mark.parametrize("dims", [(4,), (1, 3), (2, 1, 4)])
def test_pair_nll_is_one_joint_gaussian(dims, rho):
    a, b, logdets = randn(9, sum(dims)), randn(9, sum(dims), seed=1), randn(2, 9, seed=2)
    shared = torch.rand(9, len(dims), generator=gen(3), dtype=torch.float64).round(decimals=1)
    mine = pair_nll(a, logdets[0], b, logdets[1], shared, dims, rho)
    expected = joint(a, b, (rho * shared).repeat_interleave(torch.tensor(dims), 1)) - logdets.sum(0)
    torch.testing.assert_close(mine, expected)
    torch.testing.assert_close(pair_nll(b, logdets[1], a, logdets[0], shared, dims, rho), mine)   # symmetric


def test_sharing_nothing_is_two_samples():
    a, b, zero = randn(6, 5), randn(6, 5, seed=1), torch.zeros(6).double()
    nothing = torch.zeros(6, 2).double()
    torch.testing.assert_close(pair_nll(a, zero, b, zero, nothing, (2, 3)), gaussian_nll(a, zero) + gaussian_nll(b, zero))


def test_default_rho_is_the_published_one():
    a, b, zero = randn(4, 3), randn(4, 3, seed=1), torch.zeros(4).double()
    ones = torch.ones(4, 1).double()
    assert RHO == 0.975
    torch.testing.assert_close(pair_nll(a, zero, b, zero, ones, (3,)), pair_nll(a, zero, b, zero, ones, (3,), 0.975))


@pytest.mark.parametrize("r", [0.0, 0.4, 0.9])
def test_the_optimum_is_at_the_true_correlation(r):
    u = randn(50_000, 1)
    v, zero, one = r * u + math.sqrt(1 - r * r) * randn(50_000, 1, seed=1), torch.zeros(50_000).double(), torch.ones(50_000, 1).double()
    rhos = [i / 50 for i in range(50)]
    cost = [pair_nll(u, zero, v, zero, one, (1,), rho).mean() for rho in rhos]
    assert abs(rhos[int(torch.stack(cost).argmin())] - r) <= 0.021


@pytest.mark.parametrize("r", [0.0, 0.8, 0.975])
def test_the_best_scale_of_a_dimension(r):
    "s² = (1 − ρ²) / (1 − ρ r): an empty dimension of a block shrinks to 0.22."
    u = randn(50_000, 1)
    v, one = r * u + math.sqrt(1 - r * r) * randn(50_000, 1, seed=1), torch.ones(50_000, 1).double()
    log_s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([log_s], max_iter=50, line_search_fn="strong_wolfe")

    def loss():
        opt.zero_grad()
        cost = pair_nll(u * log_s.exp(), log_s.expand(50_000), v * log_s.exp(), log_s.expand(50_000), one, (1,)).mean()
        cost.backward()
        return cost

    opt.step(loss)
    assert math.isclose(log_s.exp().item(), math.sqrt((1 - RHO**2) / (1 - RHO * r)), rel_tol=0.03)


@pytest.mark.parametrize("change", [{"z_b": randn(3, 5)}, {"z_a": randn(4, 4)}, {"shared": torch.zeros(4, 3)},
                                    {"shared": torch.zeros(3, 2)}, {"dims": (2, 2)}, {"dims": (5,)}])
def test_pair_nll_refuses_what_does_not_fit(change):
    good = {"z_a": randn(4, 5), "z_b": randn(4, 5), "shared": torch.zeros(4, 2), "dims": (2, 3)}
    kw, zero = {**good, **change}, torch.zeros(4)
    with pytest.raises(ShapeError, match=r"objective.pair_nll: expected .*, got .*\. \S"):
        pair_nll(kw["z_a"], zero, kw["z_b"], zero, kw["shared"], kw["dims"])


@pytest.mark.parametrize("rho", [0.0, 0.5, RHO])
def test_contrast_is_the_posterior_of_a_right_partner(rho):
    a, b = randn(5, 3), randn(7, 3, seed=1)
    shared = torch.rand(5, 7, generator=gen(2), dtype=torch.float64).round(decimals=1)
    ratio = Normal(rho * a[:, None], math.sqrt(1 - rho**2)).log_prob(b[None]).sum(2) - Normal(0, 1).log_prob(b).sum(1)
    torch.testing.assert_close(contrast(a, b, shared, rho), -(ratio.softmax(1) * shared).sum(1).log())


def test_contrast_asks_nothing_of_the_unlabelled_and_has_finite_gradients():
    a, b = randn(5, 2).requires_grad_(), randn(5, 2, seed=1).requires_grad_()
    shared = torch.eye(5).double()
    shared[2] = 0
    nats = contrast(a, b, shared)
    assert nats[2] == 0 and (nats[[0, 1, 3, 4]] > 0).all()
    nats.mean().backward()
    assert torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all() and (a.grad[2] == 0).all()
    nothing = contrast(a, b, torch.zeros(5, 5).double())
    assert nothing.shape == (5,) and not nothing.any()


def test_contrast_is_zero_where_heaps_are_apart_and_never_negative():
    a = torch.tensor([[4.0], [4], [-4], [-4]])
    torch.testing.assert_close(contrast(a, a, (a == a.T).float()), torch.zeros(4))
    assert contrast(randn(50, 4), randn(50, 4, seed=1), torch.eye(50).double()).min() >= 0


@pytest.mark.parametrize("change", [{"z_b": randn(3, 5)}, {"z_b": randn(4, 4)},
                                    {"shared": torch.zeros(4, 3)}, {"shared": torch.zeros(3, 4)}])
def test_contrast_refuses_what_does_not_fit(change):
    kw = {"z_a": randn(4, 5), "z_b": randn(4, 5), "shared": torch.zeros(4, 4), **change}
    with pytest.raises(ShapeError, match=r"objective.contrast: expected .*, got .*\. \S"): contrast(**kw)


# ---- training

def made(n=1500, d=8, seed=0, dead=0, labels=True):
    "Latents with a class in three directions and a number in one, as `Latents`."
    g = gen(seed)
    kind, number = torch.randint(4, (n,), generator=g), torch.rand(n, generator=g)
    x = torch.randn(n, d, generator=g)
    x[:, :3] = 3 * torch.nn.functional.one_hot(kind, 4)[:, :3] + 0.3 * x[:, :3]
    x[:, 3] = 4 * number + 0.1 * x[:, 3]
    x = torch.cat([x @ torch.linalg.qr(torch.randn(d, d, generator=gen(9)))[0], torch.zeros(n, dead)], 1)
    table = pd.DataFrame({"kind": [f"k{i}" for i in kind.tolist()], "number": number.numpy()})
    return latents.from_array(x, table if labels else table[[]])


@pytest.fixture(scope="module")
def both(): return made(), made(600, seed=1)


@pytest.fixture(scope="module")
def read(both): return concepts(both[0].table, ["kind", "number"])


LAYOUT = Layout.of({"kind": 3, "number": 1}, 8)
SMALL = FlowConfig(8, n_blocks=2, hidden=16)


def test_mean_pair_nll_is_the_mean_and_repeats(both, read):
    flow = Flow(SMALL).init_from(both[0].mean)
    pairs = Pairs(both[1].table, read)
    a = mean_pair_nll(flow, both[1], pairs, LAYOUT, n=2500)
    assert a == mean_pair_nll(flow, both[1], pairs, LAYOUT, n=2500) != mean_pair_nll(flow, both[1], pairs, LAYOUT, n=2500, seed=1)
    g = gen(0)
    i, j, shared = pairs.sample(2500, g)
    z_a, z_b = both[1].sample(i, g), both[1].sample(j, g)
    with torch.no_grad(): expected = pair_nll(*flow(z_a), *flow(z_b), shared, LAYOUT.sizes).mean()
    assert math.isclose(a, float(expected), rel_tol=1e-5)


def test_the_residual_is_sheared_at_the_end(both, read):
    flow, _ = train_flow(*both, read, LAYOUT, SMALL, QUICK)

    def foretold():
        with torch.no_grad(): z = flow(both[0].mean)[0]
        z = z - z.mean(0)
        n = LAYOUT.sizes[0]
        fit = torch.linalg.lstsq(z[:, n:], z[:, :n]).solution
        return float((z[:, n:] @ fit).square().sum() / z[:, :n].square().sum())

    closed = foretold()
    flow.close(torch.zeros(8), torch.eye(8))
    assert closed < 0.1 * foretold()


def test_training_beats_a_gaussian_that_knows_no_pairs(both, read):
    flow, history = train_flow(*both, read, LAYOUT, SMALL, QUICK)
    pairs = Pairs(both[1].table, read)
    gaussian = mean_pair_nll(Flow(SMALL).init_from(both[0].mean), both[1], pairs, LAYOUT, rho=0.0)
    assert mean_pair_nll(flow, both[1], pairs, LAYOUT) < gaussian - 2 and not flow.training
    assert history.best < gaussian and history.unit == "nats a pair, 8 × contrast included"
    flow.close(torch.zeros(8), torch.eye(8))   # without the last shear
    same = gen(0)
    with torch.no_grad(): again = sum(float(pair_loss(flow, both[1], pairs, LAYOUT, BATCH, same)) for _ in range(8)) / 8
    assert math.isclose(again, history.best, rel_tol=1e-5), "the best weights are there"


def test_training_repeats_and_leaves_the_outer_stream_alone(both, read):
    brief = Recipe(n_steps=3, eval_every=3, seed=5)
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    one, _ = train_flow(*both, read, LAYOUT, SMALL, brief)
    assert torch.equal(torch.rand(3), undisturbed)
    two, _ = train_flow(*both, read, LAYOUT, SMALL, brief)
    for k, v in one.state_dict().items(): assert torch.equal(v, two.state_dict()[k]), k


def test_unsupervised_without_a_label(both):
    plain = made(labels=False), made(300, seed=1, labels=False)
    flow, history = train_flow(*plain, (), Layout.of({}, 8), SMALL, QUICK)
    assert history.rows[-1]["held_out"] < history.rows[0]["held_out"] + 0.5 and flow.config.dim == 8


def test_without_linear_start(both, read):
    flow, _ = train_flow(*both, read, LAYOUT, FlowConfig(8, n_blocks=1, hidden=8, linear=False), Recipe(n_steps=2, eval_every=1))
    assert not flow.config.linear


@pytest.mark.parametrize("linear", [True, False])
def test_dead_units_pass(read, linear):
    config = FlowConfig(10, n_blocks=1, hidden=8, linear=linear)
    sets = made(dead=2), made(300, seed=1, dead=2)
    flow, _ = train_flow(*sets, read, Layout.of({"kind": 3, "number": 1}, 10), config, Recipe(n_steps=2, eval_every=1))
    assert flow.config.dead == (8, 9)
    z = sets[0].mean
    with torch.no_grad(): assert torch.equal(flow(z)[0][:, :2], z[:, 8:]), "in the residual, unchanged"
    with pytest.raises(DataError, match="room for 2 constant dimensions in the residual, got 1 of 10"):
        train_flow(*sets, read, Layout.of({"kind": 8, "number": 1}, 10), config, Recipe(n_steps=2, eval_every=1))


def test_leading_directions_start_linear_and_end_closed(read):
    sets, recipe = (made(), made(300, seed=1)), Recipe(n_steps=2, lr=1e-9, eval_every=1)
    flow, _ = train_flow(*sets, read, Layout.of({"kind": 3, "number": 1}, 8), FlowConfig(8, n_blocks=1, hidden=8, lead=6), recipe)
    with torch.no_grad(): z_tilde = flow(sets[0].mean)[0]
    r, q = z_tilde[:, :4] - z_tilde[:, :4].mean(0), z_tilde[:, 4:] - z_tilde[:, 4:].mean(0)
    assert flow.n_rest == 2 and (r.T @ q / len(q)).abs().max() < 0.05, "the rest too is cleared of what the blocks say linearly"
    torch.testing.assert_close(flow.inverse(z_tilde)[0], sets[0].mean, atol=1e-3, rtol=1e-3)
    with pytest.raises(DataError, match="room for 5 constant or only rescaled dimensions in the residual, got 4 of 8"):
        train_flow(*sets, read, Layout.of({"kind": 3, "number": 1}, 8), FlowConfig(8, n_blocks=1, hidden=8, lead=3), recipe)


def test_a_posterior_of_a_constant_mean_is_no_dead_unit(read):
    "A collapsed unit of a variational host: the mean never moves, samples do."
    def collapsed(l): return latents.Latents(torch.cat([l.mean, torch.zeros(len(l), 1)], 1), torch.ones(len(l), 9), l.table)
    sets = collapsed(made()), collapsed(made(300, seed=1))
    flow, history = train_flow(*sets, read, Layout.of({"kind": 3, "number": 1}, 9), FlowConfig(9, n_blocks=1, hidden=8), QUICK)
    assert flow.config.dead == () and math.isfinite(history.best)


def test_few_samples_still_invert(read):
    "Fewer samples than dimensions: T is a bijection all the same, and finite where it was never trained."
    g = gen(3)
    wide = latents.from_array(torch.randn(20, 40, generator=g), made(20, seed=4).table)
    flow, _ = train_flow(wide, wide, read, Layout.of({"kind": 3, "number": 1}, 40), FlowConfig(40, n_blocks=2, hidden=16), QUICK)
    for z, least in ((wide.mean, 1e-5), (torch.randn(50, 40, generator=g), 1e-2)):
        with torch.no_grad(): assert (flow.inverse(flow(z)[0])[0] - z).abs().max() <= least * z.abs().max()


def test_layouts_of_another_order_name_or_size_are_refused(both, read):
    for dims, total in (({"number": 1, "kind": 3}, 8), ({"kind": 3}, 8), ({"kind": 3, "number": 1, "age": 1}, 8), ({}, 8)):
        with pytest.raises(DataError, match="a layout of residual, kind, number, in this order"):
            train_flow(*both, read, Layout.of(dims, total), SMALL, QUICK)
    with pytest.raises(ShapeError, match=r"objective.train_flow \(latents\): expected z of shape \(B, 7\)"):
        train_flow(*both, read, Layout.of({"kind": 3, "number": 1}, 7), SMALL, QUICK)
    with pytest.raises(ShapeError): train_flow(*both, read, LAYOUT, FlowConfig(7), QUICK)
    with pytest.raises(ShapeError, match=r"\(check\)"): train_flow(both[0], made(50, d=7), read, LAYOUT, SMALL, QUICK)


@pytest.mark.parametrize("rho", [1.0, 1.5, -0.1, math.nan])
def test_rho_outside_of_its_range_is_refused(both, read, rho):
    with pytest.raises(DataError, match=r"rho in \[0, 1\)"): train_flow(*both, read, LAYOUT, SMALL, QUICK, rho=rho)


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_of_the_contrast(both, read, weight):
    with pytest.raises(DataError, match="a weight of at least 0"): train_flow(*both, read, LAYOUT, SMALL, QUICK, weight=weight)


def test_after_a_nan_the_flow_hangs_on_the_error(both, read, monkeypatch):
    from iin_nb import objective
    calls = []

    def spoiled(*args):
        calls.append(1)
        return pair_nll(*args) * (math.nan if len(calls) == 10 + 2 * 8 + 5 else 1)   # 8 to look at held-out pairs, after 5 steps each

    monkeypatch.setattr(objective, "pair_nll", spoiled)
    with pytest.raises(TrainingStopped, match="step 15") as stop: train_flow(*both, read, LAYOUT, SMALL, Recipe(n_steps=30, eval_every=5))
    assert stop.value.history.stopped == "nan" and stop.value.history.best_step == 10
    assert isinstance(stop.value.flow, Flow) and all(torch.isfinite(p).all() for p in stop.value.flow.parameters())


def test_the_contrast_leaves_rows_without_a_label_out(both, read):
    latents, g = both[0], torch.Generator().manual_seed(0)
    some = latents.table.copy()
    some.loc[some.index >= 100, "kind"] = None
    pairs, whole = Pairs(some, read), Pairs(latents.table, read)
    a, b = torch.arange(0, 200), torch.arange(50, 250)
    z = torch.randn(400, LAYOUT.total, generator=g)
    known = mean_contrast(z, pairs, a, b, LAYOUT)
    u, v = (half.split(LAYOUT.sizes, 1) for half in z.split(200))
    kind = contrast(u[1][:100], v[1][:50], whole.shared_among(0, a[:100], b[:50]), RHO).mean()
    number = contrast(u[2], v[2], whole.shared_among(1, a, b), RHO).mean()
    torch.testing.assert_close(known, kind + number)
    none = latents.table.assign(kind=None, number=float("nan"))
    pairs.labelled = [torch.zeros(len(none), dtype=torch.bool)] * 2
    assert mean_contrast(z, pairs, a, b, LAYOUT) == 0


def test_few_labels_are_enough_for_a_block(both, read):
    few = both[0].table.copy()
    few.loc[few.index >= 120, ["kind", "number"]] = None
    flow, _ = train_flow(replace(both[0], table=few), both[1], read, LAYOUT, SMALL, QUICK)
    with torch.no_grad(): f = LAYOUT.split(flow(both[1].mean)[0])
    kind = read[0].read(both[1].table)
    means = torch.stack([f["kind"][:300][kind[:300] == c].mean(0) for c in range(4)])
    assert (torch.cdist(f["kind"][300:], means).argmin(1) == kind[300:]).float().mean() > 0.8
