"""Responses and Sobol indices against hosts whose answer can be worked out by hand."""
import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_digits import explain_digits, judge, toy_digits
from toy_explanation import NAMES, by_shape, explain_toy, recipes

from iin_nb import core
from iin_nb.core import DataError, HostError
from iin_nb.factors import BlockLaw, Factors, Layout
from iin_nb.response import (
    AnswerNames, Response, answer_names, answers, attributions, class_logits, counterfactual, directions, name_answers, sobol)


@pytest.fixture(scope="module")
def u(): return recipes(1024)[0]


@pytest.fixture(scope="module")
def toy(u):
    expl = explain_toy(u)
    return expl, expl.encode(u)


def with_probability(p): return lambda u: torch.stack([1 - p(u), p(u)], 1).log()


def s(u): return u[:, 10].sign()


def r(u): return u[:, 13].sign()


# ---- a response

def test_the_page_s_example():
    counts = torch.zeros(1, 10)
    counts[0, [2, 9, 7]] = torch.tensor([1.0, 3, 996])
    page = Response(counts, torch.tensor([7]))
    assert float(page.sigma) == pytest.approx(0.192, abs=5e-4)
    assert float(page.flip_rate) == pytest.approx(0.004, abs=1e-6)
    p = torch.tensor([0.001, 0.003, 0.996], dtype=torch.float64)
    assert float(page.entropy) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5), "in nats"


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_uniform_and_constant_answers(classes):
    flat, sure = Response(torch.full((3, classes), 20.0), torch.zeros(3, dtype=torch.long)), torch.zeros(2, classes)
    sure[:, 0] = 5
    assert flat.entropy.tolist() == pytest.approx([math.log(classes)] * 3, abs=1e-4)
    assert flat.sigma.tolist() == pytest.approx([math.sqrt((classes ** 2 - 1) / 12)] * 3, rel=1e-4)
    assert flat.flip_rate.tolist() == pytest.approx([1 - 1 / classes] * 3, abs=1e-6)
    assert Response(sure, torch.zeros(2, dtype=torch.long)).mean() == {"flip_rate": 0.0, "sigma": 0.0, "entropy": 0.0}


def test_sigma_depends_on_the_order_of_labels_and_the_others_do_not():
    counts = torch.tensor([[500.0, 500, 0, 0], [500, 0, 0, 500]])
    found = Response(counts, torch.tensor([0, 0]))
    assert found.sigma.tolist() == pytest.approx([0.5, 1.5])
    assert found.entropy[0] == found.entropy[1] and found.flip_rate[0] == found.flip_rate[1]


def test_what_the_host_ignores_never_flips(toy):
    expl, f = toy
    for law in ("own", "gaussian", "standard"):
        for factor in ("residual", "color"):
            found = answers(expl, f[:40], factor, 50, law)
            assert found.mean() == {"flip_rate": 0.0, "sigma": 0.0, "entropy": 0.0}
            assert torch.equal(found.start, class_logits(expl, f[:40]).argmax(1))


def test_what_it_looks_at_has_the_value_it_must(toy):
    expl, f = toy
    got = answers(expl, f[:100], "shape", 300).mean()
    for k, v in {"flip_rate": 0.75, "sigma": math.sqrt(1.25), "entropy": math.log(4)}.items(): assert got[k] == pytest.approx(v, abs=0.02)


def test_counts_are_whole_whatever_the_pieces(toy):
    expl, f = toy
    found = answers(expl, f[:7], "shape", 60_000 // 7 * 7 + 5)   # more draws for one input than fit in one piece
    assert found.counts.shape == (7, 4) and (found.counts.sum(1) == 60_002).all()
    assert (found.share - 0.25).abs().max() < 0.03
    once, again = (answers(expl, f[:300], "shape", 200, seed=5).counts for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once, answers(expl, f[:300], "shape", 200, seed=6).counts)


def test_one_input_one_draw_one_class(toy):
    expl, f = toy
    assert answers(expl, f[0], "shape", 1).counts.sum() == 1
    assert answers(expl, f[:3], "shape", 9, read=lambda y: y[:, :1]).mean() == {"flip_rate": 0.0, "sigma": 0.0, "entropy": 0.0}


def test_pictures_need_a_reader(u):
    painter = explain_toy(u, lambda u: by_shape(u)[:, None, None])
    f = painter.encode(u[:20])
    says = "response: expected a host that puts out logits, got one that puts out pictures. Pass read="
    with pytest.raises(HostError, match=says): answers(painter, f, "shape")
    with pytest.raises(HostError, match="Pass read="): sobol(painter, f)
    assert answers(painter, f, "color", 20, read=lambda y: y.flatten(1)).mean()["flip_rate"] == 0
    assert answers(painter, f, "shape", 200, read=lambda y: y.flatten(1)).mean()["flip_rate"] == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("wrong, says", [
    (lambda e, f: answers(e, f, "hue"), "expected one of residual, shape, color, got 'hue'"),
    (lambda e, f: answers(e, f, "color", 0), "response.answers: expected at least one draw per input, got 0"),
    (lambda e, f: answers(e, f[:0], "color"), "response: expected at least one input, got none"),
    (lambda e, f: answers(e, f, "color", law="flat"), "law 'own', 'gaussian' or 'standard', got 'flat'"),
    (lambda e, f: sobol(e, f[:15]), "response.sobol: expected at least 16 inputs, got 15"),
    (lambda e, f: sobol(e, f, n_bootstrap=0), "response.sobol: expected n_bootstrap of at least 2, got 0"),
])
def test_bad_input_is_named(toy, wrong, says):
    with pytest.raises(DataError, match=says): wrong(*toy)


# ---- Sobol

CASES = {
    "adds": (lambda u: 0.5 + 0.2 * s(u) + 0.1 * r(u), {"shape": 0.8, "color": 0.2}, {"shape": 0.8, "color": 0.2}),
    "multiplies": (lambda u: 0.5 + 0.3 * s(u) * r(u), {"shape": 0, "color": 0}, {"shape": 1, "color": 1}),
    "both": (lambda u: 0.5 + 0.1 * s(u) + 0.2 * s(u) * r(u), {"shape": 0.2, "color": 0}, {"shape": 1, "color": 0.8}),
}


@pytest.mark.parametrize("name", CASES)
def test_sobol_of_known_probabilities(name):
    p, first, total = CASES[name]
    v = recipes(8192, seed=3)[0]
    expl = explain_toy(v, with_probability(p))
    found = sobol(expl, expl.encode(v), n_bootstrap=100)
    for got, ends, want in ((found.first, found.first_interval, first), (found.total, found.total_interval, total)):
        assert got["residual"] == 0 and ends["residual"] == (0, 0), "never read: exactly 0"
        for k, w in want.items():
            lo, hi = ends[k]
            assert got[k] == pytest.approx(w, abs=0.06)
            assert lo <= got[k] <= hi and lo - 0.03 <= w <= hi + 0.03 and 0 < hi - lo < 0.2


def test_only_the_shape_counts(toy):
    found = sobol(*toy)
    assert found.first["color"] == found.total["color"] == found.first["residual"] == found.total["residual"] == 0
    assert found.first["shape"] == pytest.approx(1, abs=0.06) and found.total["shape"] == pytest.approx(found.first["shape"], abs=1e-6)
    assert "shape" in str(found) and "first" in str(found)


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = []
    for i in range(30):
        v = recipes(256, seed=200 + i)[0]
        expl = explain_toy(v, with_probability(CASES["adds"][0]))
        lo, hi = sobol(expl, expl.encode(v), n_bootstrap=60, seed=i).first_interval["shape"]
        held.append(lo <= 0.8 <= hi)
    assert 23 <= sum(held)


def test_the_same_as_scipy_for_one_probability():
    "With two classes both have the same variance and indices, so the sum over classes is what SciPy says of one of them."
    import numpy as np
    from scipy.stats import sobol_indices

    from iin_nb.response import _exchanged, finished
    v = recipes(512)[0]
    expl = explain_toy(v, with_probability(CASES["both"][0]))
    a, b, ab = finished(_exchanged(expl, expl.encode(v), None, 512, 0))
    scipy = sobol_indices(func={"f_A": a[:1], "f_B": b[:1], "f_AB": ab[:, :1]}, n=512)
    ours = sobol(expl, expl.encode(v), n_bootstrap=2)
    assert np.allclose([ours.first[k] for k in NAMES], scipy.first_order, atol=1e-8)
    assert np.allclose([ours.total[k] for k in NAMES], scipy.total_order, atol=1e-8)


def test_classes_weigh_by_their_variance():
    "p = (½ + 0.2 s, ¼ + 0.05 r − 0.1 s, the rest): worked out per class and summed."
    def p(u): return torch.stack([0.5 + 0.2 * s(u), 0.25 + 0.05 * r(u) - 0.1 * s(u), 0.25 - 0.05 * r(u) - 0.1 * s(u)], 1).log()
    v = recipes(4096, seed=1)[0]
    expl = explain_toy(v, p)
    found, whole = sobol(expl, expl.encode(v), n_bootstrap=20), 0.04 + 2 * (0.0025 + 0.01)
    assert found.first["shape"] == pytest.approx((0.04 + 0.02) / whole, abs=0.04)
    assert found.total["color"] == pytest.approx(0.005 / whole, abs=0.02)


def test_any_number_of_rows_and_seeds(toy):
    expl, f = toy
    assert sobol(expl, f[:100]) == sobol(expl, f[:100])
    assert sobol(expl, f[:100]) != sobol(expl, f[:100], seed=1)
    assert 0.8 < sobol(expl, f[:1000]).total["shape"] < 1.2


def test_a_host_that_never_changes_its_mind_has_no_indices(u):
    expl = explain_toy(u, lambda u: torch.zeros(len(u), 4))
    core._warned.clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = sobol(expl, expl.encode(u))
    assert all(map(math.isnan, found.first.values())) and "do not vary" in str(said[0].message)
    assert not [w for w in said if "invalid value" in str(w.message)], "no noise from numpy beside it"


def test_no_named_factor_at_all(u):
    "An unsupervised T has a residual only; then it explains everything."
    expl = explain_toy(u)
    expl.layout = Layout(("residual",), (16,))
    f = Factors(expl.layout, expl.encode(u).z_tilde)
    expl.laws = {"residual": BlockLaw.fit(f.residual)}
    found = sobol(expl, f, n_bootstrap=5)
    assert found.total["residual"] == pytest.approx(1, abs=0.1) and found.first["residual"] == pytest.approx(1, abs=0.1)
    assert answers(expl, f[:20], "residual", 100).mean()["flip_rate"] == pytest.approx(0.75, abs=0.05)


# ---- the smallest change

def test_the_smallest_change(toy):
    expl, f = toy
    start = class_logits(expl, f[:60]).argmax(1)
    found = counterfactual(expl, f[:60], 2, "shape")
    top = class_logits(expl, found.factors).topk(2, 1)
    assert found.found.all() and (top.indices[:, 0] == 2).all()
    assert (top.values[:, 0] - top.values[:, 1])[start != 2].max() < 0.2, "just across the border"
    assert torch.equal(found.factors.color, f[:60].color) and torch.equal(found.factors.residual, f[:60].residual)
    assert (found.distance[start == 2] == 0).all() and torch.equal(found.factors[start == 2].z_tilde, f[:60][start == 2].z_tilde)
    law = expl.laws["shape"]
    apart = lambda b: torch.linalg.solve_triangular(law.root, (b - law.mean).T, upper=False).square().sum(0)
    moved = start != 2
    limit = torch.maximum(apart(law.bank).quantile(0.95), apart(f[:60].shape))
    assert (apart(found.factors.shape)[moved] <= limit[moved] + 1e-4).all(), "no further out than usual, or than it was"
    assert found.rank.min() >= 0 and found.rank.max() <= 1


def test_no_nearer_value_of_the_bank_gives_the_answer(toy):
    expl, f = toy
    found, law = counterfactual(expl, f[:4], 3, "shape", n=10_000), expl.laws["shape"]
    for i in range(4):
        there = Factors(f.layout, f[i].z_tilde.expand(len(law.bank), -1)).replace(shape=law.bank)
        good = class_logits(expl, there).argmax(1) == 3
        ways = torch.linalg.solve_triangular(law.root, (law.bank - f[i].shape).T, upper=False).square().mean(0).sqrt()
        assert found.distance[i] <= ways[good].min() + 1e-5


def test_what_cannot_be_is_said(toy):
    expl, f = toy
    none = counterfactual(expl, f[:8], 1, ["color", "residual"])
    already = class_logits(expl, f[:8]).argmax(1) == 1
    assert torch.equal(none.found, already) and none.distance[~already].isnan().all() and torch.equal(none.factors.z_tilde, f[:8].z_tilde)
    assert repr(none) == "Counterfactual(already there 2, turned 0 of the other 6)"


def test_by_name(toy):
    expl, f = toy
    names = AnswerNames(("disc", "square", "ring", "cross"), "shape", (1, 3, 2, 0))
    assert torch.equal(counterfactual(expl, f[:4], "ring", names=names).factors.z_tilde, counterfactual(expl, f[:4], 2).factors.z_tilde)


def test_one_class_each_a_seed_and_the_default_factors(toy):
    expl, f = toy
    want = torch.tensor([0, 1, 2, 3])
    found = counterfactual(expl, f[:4], want, seed=3)
    assert (class_logits(expl, found.factors).argmax(1) == want).all() and torch.equal(found.factors.residual, f[:4].residual)
    assert torch.equal(found.factors.z_tilde, counterfactual(expl, f[:4], want, seed=3).factors.z_tilde)


@pytest.mark.parametrize("wrong, says", [
    (lambda e, f: counterfactual(e, f, 4), "classes 0 to 3"), (lambda e, f: counterfactual(e, f, -1), "classes 0 to 3"),
    (lambda e, f: counterfactual(e, f, 1, []), "at least one factor"), (lambda e, f: counterfactual(e, f, 1, "hue"), "got 'hue'"),
    (lambda e, f: counterfactual(e, f[:0], 1), "at least one input"),
    (lambda e, f: counterfactual(e, f, "disc"), "a class number, or a name with names=, got 'disc'"),
    (lambda e, f: counterfactual(e, f, 1.0), "a class number, or 3 of them"),
    (lambda e, f: counterfactual(e, f, torch.tensor([1, 2])), "a class number, or 3 of them"),
    (lambda e, f: counterfactual(e, f, "disk", names=AnswerNames(tuple("abcd"), "shape", (0, 1, 2, 3))), "one of a, b, c, d, got 'disk'")])
def test_counterfactuals_refuse(toy, wrong, says):
    expl, f = toy
    with pytest.raises(core.IINError, match=says): wrong(expl, f[:3])


# ---- what answers are called

def votes_of(truth, order, right, seed=0):
    "Answers of a host whose output j means class order[j], right in a share of the rows, else anything."
    g = np.random.default_rng(seed)
    at = np.argsort(order)[truth]
    return np.where(g.random(len(truth)) < right, at, g.integers(len(order), size=len(truth)))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_names_come_in_the_order_of_the_outputs(order):
    truth = np.random.default_rng(0).integers(3, size=120)
    found = name_answers(votes_of(truth, order, 0.8), 3, {"shape": (truth, ["circle", "square", "triangle"])})
    assert found.names == tuple(["circle", "square", "triangle"][j] for j in order) and found.order == tuple(order)
    assert found.concept == "shape" and found.said(0) == f"“{found.names[0]}”" and found.number(found.names[2]) == 2


@pytest.mark.parametrize("n, rows", [(2, 4), (2, 12), (2, 300), (3, 20), (3, 500), (10, 12), (10, 60), (10, 2000)])
def test_a_column_that_has_nothing_to_do_with_it_names_nothing(n, rows):
    for seed in range(40):
        g = np.random.default_rng(seed)
        found = name_answers(g.integers(n, size=rows), n, {"day": (g.integers(n, size=rows), list("abcdefghij")[:n])})
        assert found.concept is None and found.names == tuple(map(str, range(n))) and found.said(1) == "class 1"


@pytest.mark.parametrize("lean", [0.5, 0.8, 0.95])
def test_two_lopsided_columns_of_one_mind_by_chance(lean):
    for seed in range(20):
        g = np.random.default_rng(seed)
        votes, day = (g.random((2, 400)) > lean).astype(int)
        assert name_answers(votes, 2, {"day": (day, ["am", "pm"])}).concept is None


def test_the_unlabelled_the_unseen_and_the_better_column():
    truth = np.arange(200) % 4
    votes = truth.copy()
    known = np.where(np.arange(200) % 3 == 0, -1, truth)
    assert name_answers(votes, 4, {"shape": (known, list("abcd"))}).names == tuple("abcd")
    assert name_answers(votes, 4, {"shape": (np.full(200, -1), list("abcd"))}).concept is None
    assert name_answers(votes, 5, {"shape": (truth, list("abcd"))}).concept is None, "as many values as answers"
    votes[votes == 3] = 1   # never answered
    assert name_answers(votes, 4, {"shape": (truth, list("abcd"))}).names == ("a", "b", "c", "class 3")
    rough = np.where(np.arange(200) % 10 == 0, 0, truth)
    assert name_answers(truth, 4, {"rough": (rough, list("wxyz")), "shape": (truth, list("abcd"))}).concept == "shape"


def test_answers_of_a_host_are_named_from_its_data():
    images, _ = toy_digits()
    expl = explain_digits("logits")
    assert answer_names(expl, images).names == tuple("0123456789")
    assert answer_names(expl, images, lambda y: y.flip(1)).names == tuple("9876543210")
    assert answer_names(explain_digits(), images, judge).concept == "digit"
    shuffled = replace(images, table=images.table.assign(**{"class": np.random.default_rng(0).permutation(images.table["class"])}))
    assert answer_names(expl, shuffled).concept is None


# ---- attributions

def leaky(u):
    expl = explain_toy(u, lambda u: by_shape(u) + 6 * u[:, 13:14] * torch.tensor([1.0, -1, 0, 0]))
    return expl, expl.encode(u)


@pytest.mark.parametrize("law, n", [("own", 5), ("gaussian", 3), ("standard", 1), ("mean", 9)])
def test_parts_sum_to_the_output(u, law, n):
    pytest.importorskip("captum")
    expl, f = leaky(u)
    for to in (None, 2, torch.arange(40) % 4):
        found = attributions(expl, f[:40], to, n, law)
        assert tuple(found.by_factor) == NAMES and all(v.shape == (40,) for v in found.by_factor.values())
        assert torch.allclose(found.baseline + sum(found.by_factor.values()), found.output, atol=1e-4)
        want = class_logits(expl, f[:40]).argmax(1) if to is None else torch.as_tensor(to).expand(40)
        assert torch.equal(found.answers, want)
        assert torch.allclose(found.output, class_logits(expl, f[:40]).gather(1, want[:, None])[:, 0])
        assert found.by_factor["residual"].abs().max() < 1e-4, "the host ignores it"


def test_what_a_host_adds_up_is_told_apart(u):
    pytest.importorskip("captum")
    expl, f = leaky(u)
    found, color = attributions(expl, f, 0, law="mean").by_factor, 6 * u[:, 13]
    assert torch.allclose(found["color"], color - color.mean(), atol=1e-3)
    assert torch.allclose(found["shape"], by_shape(u)[:, 0] - by_shape(u)[:, 0].mean(), atol=1e-3)


def test_an_interaction_is_shared_alike(u):
    "p·q from baselines of mean 0, at the means: half to each factor, whichever comes first."
    pytest.importorskip("captum")
    middle = u.mean(0)
    product = lambda u: (u[:, 10] - middle[10]) * (u[:, 13] - middle[13])
    expl = explain_toy(u, lambda u: torch.stack([product(u), 0 * u[:, 0]], 1))
    found, half = attributions(expl, expl.encode(u[:50]), 0, law="mean").by_factor, product(u[:50]) / 2
    assert torch.allclose(found["shape"], half, atol=1e-3) and torch.allclose(found["color"], half, atol=1e-3)


def test_five_blocks_one_row_and_seeds(u):
    pytest.importorskip("captum")
    expl, f = leaky(u)
    layout = Layout(("residual", "a", "b", "shape", "color"), (4, 3, 3, 3, 3))
    many = replace(expl, layout=layout, laws={k: BlockLaw.fit(v) for k, v in layout.split(f.z_tilde).items()})
    state = torch.random.get_rng_state()
    one, again = (attributions(many, layout.split(f.z_tilde)[0], n=2, seed=5) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state()), "the outer stream goes on as if nothing had happened"
    assert all(torch.equal(one.by_factor[k], again.by_factor[k]) for k in layout.names)
    assert torch.allclose(one.baseline + sum(one.by_factor.values()), one.output, atol=1e-4) and sum(one.share.values()) == pytest.approx(1)


@pytest.mark.parametrize("wrong, says", [
    (lambda e, f: attributions(e, f, 4), "response.attributions: expected classes 0 to 3"),
    (lambda e, f: attributions(e, f, n=0), "at least one baseline"),
    (lambda e, f: attributions(e, f[:0]), "at least one input"),
    (lambda e, f: attributions(e, f, law="uniform"), "law 'own'"),
])
def test_attributions_refuse(toy, wrong, says):
    pytest.importorskip("captum")
    with pytest.raises(DataError, match=says): wrong(toy[0], toy[1][:3])


def test_without_captum(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(core.MissingExtra, match=r"iin_nb\[attributions\]"): attributions(toy[0], toy[1][:2])


# ---- directions

def weighted(u):
    expl = explain_toy(u, lambda u: u[:, 10:13] * torch.tensor([4.0, 2, 1]))
    return expl, expl.encode(u)


def test_directions_find_what_the_host_leans_on(u):
    expl, f = weighted(u)
    found = directions(expl, f[:10])
    assert found.steps[:3].abs().argmax(1).tolist() == [10, 11, 12]
    assert found.effect.tolist() == sorted(found.effect.tolist(), reverse=True) and (found.effect[3:] < 1e-6).all()
    assert found.effect[:3].tolist() == pytest.approx([float((w * u[:, 10 + i]).var() / 3) for i, w in enumerate((4, 2, 1))], rel=0.02)


@pytest.mark.parametrize("factor, d", [(None, 16), ("residual", 10), ("color", 3)])
def test_directions_are_stds_of_the_law_and_can_be_put(u, factor, d):
    expl, f = weighted(u)
    found = directions(expl, f[:5], factor)
    place = found.of(f)
    assert found.steps.shape == (d, 16) and place.std(0).tolist() == pytest.approx([1.0] * d, abs=0.02)
    moved = found.put(f, d - 1, -1.5)
    wanted = place.clone()
    wanted[:, -1] = -1.5
    assert torch.allclose(found.of(moved), wanted, atol=1e-3)
    for k in set(NAMES) - {factor} if factor else (): assert torch.equal(moved[k], f[k])


def test_directions_of_what_is_read_and_of_nothing(u):
    expl, f = weighted(u)
    assert directions(expl, f[:5], read=lambda y: y[:, 2:]).steps[0].abs().argmax() == 12
    assert directions(expl, f[:2], "residual").effect.max() < 1e-6
    with pytest.raises(DataError, match="at least one input"): directions(expl, f[:0])
    with pytest.raises(DataError, match="one of residual, shape, color"): directions(expl, f[:2], "hue")
