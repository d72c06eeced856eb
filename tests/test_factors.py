"""Blocks of z̃: put apart and together without loss, as large as is asked or earned, each with a law of its own."""
import copy
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from iin_nb import latents
from iin_nb.core import DataError, ShapeError
from iin_nb.factors import (
    BlockLaw, Layout, dims_paper, dims_released, estimate_dims, linear_start, pair_directions, pair_gains, residual_shear, ridge_directions)
from iin_nb.flow import varying, whitening
from iin_nb.pairs import Pairs, concepts

LAYOUT = Layout.of({"digit": 3, "color": 2}, 9)


def gen(seed=0): return torch.Generator().manual_seed(seed)


def z(n=5, d=9, seed=0): return torch.randn(n, d, generator=gen(seed))


# ---- layout

def test_residual_is_first_and_takes_what_is_left():
    assert LAYOUT.names == ("residual", "digit", "color") and LAYOUT.sizes == (4, 3, 2) and LAYOUT.total == 9
    assert Layout.of({"digit": 3, "residual": 4, "color": 2}, 9) == LAYOUT
    assert Layout.of({}, 9).dims == {"residual": 9}


def test_spans_cover_every_dimension_once():
    seen = [i for name in LAYOUT.names for i in range(9)[LAYOUT.span(name)]]
    assert seen == list(range(9))


@pytest.mark.parametrize("dims", [{"a": 9}, {"a": 10}, {"a": 0}, {"a": -1, "b": 3}, {"a": 3, "residual": 5}, {"a": 3, "residual": 7},
                                  {"residual": 8}, {"a": 2.0}, {"a": "3"}, {"a": True}, {"a": None}, [4, 3, 2], 9])
def test_sizes_that_do_not_sum_up_are_refused(dims):
    with pytest.raises(DataError, match=r"factors.Layout: expected .*, got .*\. \S"): Layout.of(dims, 9)


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="residual, digit, color, got 'colour'"): LAYOUT.span("colour")
    f = LAYOUT.split(z())
    with pytest.raises(AttributeError, match="no factor 'colour'; there are residual, digit, color"): _ = f.colour
    with pytest.raises(DataError): f.replace(colour=z(5, 2))


# ---- split and merge

@pytest.mark.parametrize("n", [0, 1, 2, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merge_undoes_split(n, dtype):
    whole = z(n).to(dtype)
    f = LAYOUT.split(whole)
    assert f.z_tilde is whole and [b.shape for _, b in f.items()] == [(n, 4), (n, 3), (n, 2)]
    merged = LAYOUT.merge(dict(reversed(list(f.items()))))
    assert torch.equal(merged.z_tilde, whole) and merged.z_tilde.dtype == dtype and merged.layout == LAYOUT


@pytest.mark.parametrize("wrong", [z(5, 8), z(5)[0], np.zeros((5, 9)), z().long()])
def test_split_refuses_what_is_no_z_tilde(wrong):
    with pytest.raises(ShapeError, match="factors.split: expected"): LAYOUT.split(wrong)


def test_merge_refuses_gaps_extras_and_other_shapes():
    blocks = dict(LAYOUT.split(z()).items())
    for wrong in ({}, {k: v for k, v in blocks.items() if k != "digit"}, {**blocks, "age": z(5, 1)}):
        with pytest.raises(DataError, match="factors.merge"): LAYOUT.merge(wrong)
    for wrong in (z(5, 4), z(4, 3), z(5, 3).double(), z(3, 1)[:, 0]):
        with pytest.raises(ShapeError, match="factors.merge"): LAYOUT.merge({**blocks, "digit": wrong})


# ---- factors

def test_replace_changes_that_block_and_nothing_else():
    f, new = LAYOUT.split(z()), z(5, 3, 7)
    before = f.z_tilde.clone()
    g = f.replace(digit=new)
    assert torch.equal(g.digit, new) and torch.equal(g.residual, f.residual) and torch.equal(g.color, f.color)
    assert torch.equal(f.z_tilde, before), "the original stays"
    assert torch.equal(f.replace(color=new[:1, :2], digit=new[1:2]).digit, new[1:2].expand(5, 3))   # one row for all, two blocks
    assert torch.equal(f.replace().z_tilde, before) and f.replace().z_tilde is not f.z_tilde


@pytest.mark.parametrize("wrong", [z(5, 4), z(2, 3), z(5, 3)[0], z(5, 3).double(), z(5, 3).numpy(), 0.0])
def test_replace_refuses_other_shapes(wrong):
    with pytest.raises(ShapeError, match=r"factors.replace \(digit\): expected .*, got .*\. \S"): LAYOUT.split(z()).replace(digit=wrong)


def test_rows_are_chosen_as_of_a_tensor():
    f = LAYOUT.split(z())
    assert torch.equal(f[1:3].z_tilde, f.z_tilde[1:3]) and torch.equal(f[torch.tensor([4, 0])].z_tilde, f.z_tilde[[4, 0]])
    assert torch.equal(f[f.z_tilde[:, 0] > 0].z_tilde, f.z_tilde[f.z_tilde[:, 0] > 0])
    for i in (0, 4, -1, -5): assert f[i].z_tilde.shape == (1, 9) and torch.equal(f[i].z_tilde[0], f.z_tilde[i])
    for i in (5, -6):
        with pytest.raises(IndexError): f[i]
    assert [len(row) for row in f] == [1] * 5, "a loop over rows ends"


def test_factors_travel():
    f = LAYOUT.split(z())
    for g in (pickle.loads(pickle.dumps(f)), copy.copy(f), copy.deepcopy(f)): assert torch.equal(g.digit, f.digit) and g.layout == f.layout
    assert {"residual", "digit", "color", "replace"} <= set(dir(f)) and not hasattr(f, "_repr_html_")
    assert repr(f) == "Factors(5 samples, residual 4, digit 3, color 2)"


# ---- a block's law

def skewed(n=4000):
    a = torch.tensor([[1.0, 0, 0], [0.8, 0.4, 0], [0, -2.0, 0.1]])
    return torch.randn(n, 3, generator=gen(3)).exp() @ a.T + torch.tensor([5.0, 0, -1])


@pytest.mark.parametrize("law", ["own", "gaussian"])
def test_draws_have_mean_and_covariance_of_the_block(law):
    v = skewed()
    d = BlockLaw.fit(v, size=4000).draw(200_000, law, gen())
    torch.testing.assert_close(d.mean(0), v.mean(0), atol=0.05, rtol=0.02)
    torch.testing.assert_close(d.T.cov(), v.T.cov(), atol=0.3, rtol=0.05)


def test_own_draws_are_encodings_and_standard_is_standard():
    v = skewed(50)
    law = BlockLaw.fit(v)
    assert (law.draw(200, "own", gen())[:, None] == v).all(2).any(1).all()
    s = law.draw(100_000, "standard", gen())
    torch.testing.assert_close(s.T.cov(), torch.eye(3), atol=0.03, rtol=0)


def test_law_draws_are_repeatable_and_blocks_of_the_same_rows_stay_together():
    v = skewed()
    law = BlockLaw.fit(v, size=100, seed=4)
    for kind in ("own", "gaussian", "standard"): assert torch.equal(law.draw(9, kind, gen(1)), law.draw(9, kind, gen(1)))
    first, rest = BlockLaw.fit(v[:, :1], size=100, seed=4), BlockLaw.fit(v[:, 1:], size=100, seed=4)
    assert torch.equal(torch.cat([first.bank, rest.bank], 1), law.bank) and len(law.bank) == 100


def test_scale_is_the_mean_square_per_dimension():
    v = skewed()
    assert math.isclose(BlockLaw.fit(v).scale, float(v.square().sum(1).mean() / 3), rel_tol=1e-3)


@pytest.mark.parametrize("v", [torch.zeros(10, 2), torch.tensor([[1.0, 2.0], [1.0, 3.0]]), torch.ones(3, 4).double(), torch.randn(3, 20)])
def test_flat_blocks_have_a_law_too(v):
    for kind in ("own", "gaussian", "standard"): assert torch.isfinite(BlockLaw.fit(v).draw(5, kind)).all()
    assert BlockLaw.fit(v).draw(5, "gaussian").dtype == v.dtype


def test_law_refuses():
    with pytest.raises(DataError, match="at least two"): BlockLaw.fit(z(1))
    with pytest.raises(DataError, match="finite"): BlockLaw.fit(z() / torch.tensor([1.0] * 8 + [0.0]))
    with pytest.raises(ShapeError): BlockLaw.fit(z()[0])
    for n in (5, 0):
        with pytest.raises(DataError, match="'own', 'gaussian' or 'standard', got 'normal'"): BlockLaw.fit(z()).draw(n, "normal")


# ---- directions and sizes

def made(n=4000, d=10, classes=4, seed=0, dead=()):
    "Latents whose first three dimensions hold a class, the fourth a number, mixed by a fixed rotation; as `Latents` with two concepts."
    g = gen(seed)
    kind, number = torch.randint(classes, (n,), generator=g), torch.rand(n, generator=g)
    x = torch.randn(n, d, generator=g)
    x[:, :3] = 3 * torch.nn.functional.one_hot(kind, classes)[:, :3] + 0.3 * x[:, :3]
    x[:, 3] = 4 * number + 0.1 * x[:, 3]
    x = x @ torch.linalg.qr(torch.randn(d, d, generator=gen(99)))[0]
    for i in dead: x = torch.cat([x[:, :i], torch.full((n, 1), 7.0), x[:, i:]], 1)
    return latents.from_array(x, pd.DataFrame({"kind": [f"k{i}" for i in kind.tolist()], "number": number.numpy()}))


@pytest.fixture(scope="module")
def both(): return made(), made(1000, seed=1)


@pytest.fixture(scope="module")
def read(both): return concepts(both[0].table, ["kind", "number"])


def test_directions_find_what_pairs_share_and_nothing_more(both, read):
    mean, white = whitening(both[0].mean)
    for f, n in ((0, 3), (1, 1)):
        r, w = pair_directions((both[0].mean - mean) @ white, Pairs(both[0].table, read), f)
        assert r[n - 1] > 0.8 and r[n:].abs().max() < 0.1
        assert (r.diff() <= 1e-6).all(), "in falling order"
        torch.testing.assert_close(w.T @ w, torch.eye(10), atol=1e-4, rtol=0)


def test_gains_are_those_of_a_gaussian_of_that_correlation(both, read):
    r, gain, error = pair_gains(*both, read, 1)
    assert error[0] > 0 and gain[1:].abs().max() < 0.02
    assert 0.98 < r[0] < 1
    torch.testing.assert_close(gain[0], -0.5 * (1 - r[0] ** 2).log(), atol=0.3, rtol=0)


def test_default_sizes_are_counted_and_capped(both, read):
    assert estimate_dims(*both, read) == {"kind": 3, "number": 1, "residual": 6}
    assert estimate_dims(*both, ()) == {"residual": 10}


def test_constant_dimensions_go_to_the_residual(both, read):
    dead = made(dead=(0, 5)), made(1000, seed=1, dead=(0, 5))
    assert estimate_dims(*dead, read) == {"kind": 3, "number": 1, "residual": 8}
    assert pair_gains(*dead, read, 0)[0].shape == (10,)
    live = dead[0].mean[:, varying(dead[0].mean)]
    start = linear_start(live, read, dead[0].table, Layout.of({"kind": 3, "number": 1}, 12))
    assert start.shape == (10, 10)
    with pytest.raises(DataError, match="at most 10 dimensions for concepts, got 11"):
        linear_start(live, read, dead[0].table, Layout.of({"kind": 10, "number": 1}, 12))


def test_a_unit_that_wakes_up_in_the_check_rows_does_no_harm(both, read):
    asleep, awake = made(dead=(4,)), made(1000, seed=1, dead=(4,))
    awake.mean[::50, 4] = 1e3
    assert estimate_dims(asleep, awake, read) == {"kind": 3, "number": 1, "residual": 7}


def test_no_pairs_among_check_rows_leaves_the_cap(both, read):
    few = both[1].rows(0, 3)   # rows makes a table of its own
    few.table.loc[:, "kind"] = ["k0", "k1", "k2"]
    assert not Pairs(few.table, read).can[:, 0].any()
    assert estimate_dims(both[0], few, read)["kind"] == 3


def test_no_pairs_to_learn_from_are_refused(both, read):
    blank = both[0].rows(0, 50)
    blank.table.loc[:, "kind"] = None
    with pytest.raises(DataError, match=r"factors \(kind\): expected at least two rows that share it"): estimate_dims(blank, both[1], read)


@pytest.mark.parametrize("d", [2, 3])
def test_more_concepts_than_room(both, read, d):
    thin = [latents.from_array(b.mean[:, :d], b.table) for b in both]
    if d == 2:
        with pytest.raises(DataError, match="fewer concepts than dimensions"): estimate_dims(*thin, read)
    else: assert estimate_dims(*thin, read) == {"kind": 1, "number": 1, "residual": 1}


def test_start_is_white_and_puts_concepts_into_their_blocks(both, read):
    layout = Layout.of({"kind": 3, "number": 1}, 10)
    start = linear_start(both[0].mean, read, both[0].table, layout)
    f = layout.split((both[0].mean - both[0].mean.mean(0)) @ start)
    torch.testing.assert_close(f.z_tilde.T.cov(), torch.eye(10), atol=5e-3, rtol=0)
    for k, c in enumerate(read):
        pairs = Pairs(both[0].table, read)
        a = torch.arange(len(f))
        b = pairs.partners(k, a, gen())
        agree = {name: float((v[a] * v[b]).mean()) for name, v in f.items()}
        assert agree.pop(c.name) > 0.8 and max(map(abs, agree.values())) < 0.05


def test_start_without_concepts_is_whitening(both):
    start = linear_start(both[0].mean, (), both[0].table, Layout.of({}, 10))
    torch.testing.assert_close((both[0].mean @ start).T.cov(), torch.eye(10), atol=5e-3, rtol=0)


def test_shear_takes_out_what_the_blocks_say_linearly():
    layout, g = Layout.of({"a": 2, "b": 1}, 7), gen()
    z = torch.randn(4000, 7, generator=g) * torch.tensor([1, 1, 3, 1, 0.3, 2, 1.0]) + 5
    z[:, :4] += 0.7 * z[:, 4:] @ torch.randn(3, 4, generator=g)
    mean, weight = residual_shear(z, layout)
    after = (z - mean) @ weight
    torch.testing.assert_close(after[:, 4:], z[:, 4:])
    torch.testing.assert_close(after.mean(0), z.mean(0), atol=1e-3, rtol=0)
    assert torch.corrcoef(z.T)[:4, 4:].abs().max() > 0.3 and torch.corrcoef(after.T)[:4, 4:].abs().max() < 0.01
    assert abs(torch.linalg.slogdet(weight).logabsdet) < 1e-6


@pytest.mark.parametrize("z", [torch.randn(3, 7), torch.zeros(50, 7), torch.ones(1, 7)])
def test_shear_of_few_or_constant_encodings_is_finite(z):
    mean, weight = residual_shear(z, Layout.of({"a": 2, "b": 1}, 7))
    assert torch.isfinite(mean).all() and torch.isfinite(weight).all()


def test_shear_without_concepts_is_the_identity():
    mean, weight = residual_shear(torch.randn(9, 7), Layout.of({}, 7))
    assert torch.equal(mean, torch.zeros(7)) and torch.equal(weight, torch.eye(7))


def test_published_rules(both, read):
    pairs = Pairs(both[0].table, read)
    for rule in (dims_released, dims_paper):
        dims = rule(both[0].mean, pairs)
        assert list(dims) == ["kind", "number", "residual"] and sum(dims.values()) == 10 and min(dims.values()) >= 1
        assert rule(both[0].mean, pairs) == dims, "the same again"
    # the released formula by hand, from the classes: between-class variance over all variance, for a kind
    x, kind = both[0].mean, both[0].table["kind"].to_numpy()
    centers = torch.stack([x[kind == k].mean(0) for k in kind])
    mine = float(centers.var(0).sum() / x.var(0).sum())
    a = torch.arange(len(x)).repeat(5)
    b = pairs.partners(0, a, gen())
    theirs = float(((x[a] - x.mean(0)) * (x[b] - x.mean(0))).mean(0).sum() / x.var(0).sum())
    assert math.isclose(mine, theirs, rel_tol=0.05)


def test_the_released_rule_is_flat():
    "Whatever two concepts are, one of them gets 15.5 to 42.2 % of the dimensions."
    t = pd.DataFrame({"a": [0, 1] * 500, "b": np.repeat([0, 1], 500)})
    shares = []
    for scale in (0.0, 50.0):
        x = torch.randn(1000, 64, generator=gen())
        x[:, 0] += scale * torch.tensor(t["a"].to_numpy())
        shares.append(dims_released(x, Pairs(t, concepts(t, ["a", "b"])))["a"] / 64)
    assert 0.14 <= shares[0] < 0.25 < shares[1] <= 0.4221


# ---- ridge directions

def cloud(n, seed=0, dim=12):
    "Whitened z (n, dim) of which directions 3 and 5 tell four classes apart, and direction 7 carries a number; classes and numbers."
    g = torch.Generator().manual_seed(seed)
    z, kind = torch.randn(n, dim, generator=g), torch.randint(4, (n,), generator=g)
    z[:, 3] += 2.0 * (kind % 2) - 1
    z[:, 5] += 2.0 * (kind // 2) - 1
    z = z / z.std(0)
    return z, kind, 0.8 * z[:, 7:8] + 0.6 * torch.randn(n, 1, generator=g)


def test_ridge_directions_are_orthonormal_and_find_what_carries_the_concept():
    z, kind, number = cloud(3000)
    source = np.arange(len(z))
    for values, rows in ((kind, [3, 5]), (number, [7])):
        w = ridge_directions(z, values, source)
        torch.testing.assert_close(w.T @ w, torch.eye(12), atol=1e-5, rtol=0)
        assert (w[rows, :len(rows)].square().sum() / len(rows)) > 0.97


def test_from_few_labels_a_ridge_is_surer_than_pairs():
    caught = {"ridge": 0.0, "pairs": 0.0}
    for seed in range(3):
        z, kind, _ = cloud(2000, seed, 40)
        known = torch.arange(2000) < 100
        table = pd.DataFrame({"kind": np.where(known, kind, -1)}).replace(-1, None)
        found = {"ridge": ridge_directions(z, kind.masked_fill(~known, -1), np.arange(2000)),
                 "pairs": pair_directions(z, Pairs(table, concepts(table, {"kind": "kind"})), 0)[1]}
        for k, w in found.items(): caught[k] += float(w[[3, 5], :2].square().sum() / 6)
    assert caught["ridge"] > caught["pairs"] + 0.05 and caught["ridge"] > 0.55


def test_unlabelled_rows_and_copies_do_not_change_a_ridge():
    z, kind, number = cloud(400)
    number[::3] = float("nan")
    w = ridge_directions(z, number, np.arange(400))[:, :1]
    keep = torch.isfinite(number[:, 0])
    torch.testing.assert_close(ridge_directions(z[keep], number[keep], np.arange(400)[keep])[:, :1].abs(), w.abs(), atol=1e-4, rtol=0)
    # copies on both sides would hide the noise
    twice = ridge_directions(z.repeat(5, 1), kind.repeat(5), np.tile(np.arange(400), 5))[:, :2]
    once = ridge_directions(z, kind, np.arange(400))[:, :2]
    assert (twice.T @ once).svd().S.min() > 0.99


def test_two_labels_are_the_least():
    z, kind, _ = cloud(50)
    w = ridge_directions(z, torch.full((50,), -1).scatter(0, torch.tensor([0, 1]), torch.tensor([0, 1])), np.zeros(50))
    assert torch.isfinite(w).all()
