"""Scores against explanations whose truth is known."""
import json
import math
import sys

import numpy as np
import pytest
import torch
from toy_digits import CONCEPTS, OFFSET, SIZES, explain_digits, judge, toy_digits
from toy_explanation import by_shape, explain_toy, recipes

from iin_nb import core, data, scores, zoo
from iin_nb.core import DataError


def drawn(n=600, seed=0):
    "A class of 4 codes, numbers (n, 2) and an unrelated block."
    g = torch.Generator().manual_seed(seed)
    return torch.randint(4, (n,), generator=g), torch.rand(n, 2, generator=g), torch.randn(n, 5, generator=g)


# ---- probes

@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_probe_finds_what_a_block_holds_and_nothing_else(kind):
    code, value, noise = drawn()
    own = torch.cat([torch.nn.functional.one_hot(code, 4).float(), noise], 1)
    rows = np.arange(len(code))
    assert scores.probe(own, code, rows, kind) > 0.98
    assert scores.probe(noise, code, rows, kind) == pytest.approx(0.25, abs=0.08)
    assert scores.probe(own, code, rows, kind, shuffled=True) == pytest.approx(0.25, abs=0.08)
    assert scores.probe(value @ torch.tensor([[2.0, 1], [-1, 1]]), value, rows, kind) > 0.97
    assert scores.probe(noise, value, rows, kind) < 0.05


def test_an_mlp_reads_what_a_linear_probe_cannot():
    code, _, noise = drawn(1200)
    sign = torch.where(code % 2 == 0, 1.0, -1.0)
    block = torch.stack([noise[:, 0].sign(), noise[:, 0].sign() * sign], 1) + 0.1 * noise[:, 1:3]   # exclusive or
    rows = np.arange(len(code))
    assert scores.probe(block, code % 2, rows) < 0.65
    assert scores.probe(block, code % 2, rows, "mlp") > 0.95


def test_the_two_halves_share_no_original():
    source = np.repeat(np.arange(101), 7)[np.random.RandomState(0).permutation(707)]
    for seed in range(5):
        a, b = scores.halves(source, seed)
        assert not set(source[a]) & set(source[b])
        assert sorted([*a, *b]) == list(range(707))
        assert abs(len(a) - len(b)) <= 7
    assert scores.halves(source, 0)[0].tolist() != scores.halves(source, 1)[0].tolist(), "the seed decides"


def test_copies_of_a_picture_do_not_give_its_label_away():
    "60 originals, 10 copies each, labels at random: a probe that saw copies of the test pictures would know them by heart."
    g = torch.Generator().manual_seed(0)
    picture, label = torch.randn(60, 200, generator=g), torch.randint(2, (60,), generator=g)
    source = np.repeat(np.arange(60), 10)
    block = picture[source] + 0.01 * torch.randn(600, 200, generator=g)
    assert scores.probe(block, label[source], np.arange(600)) > 0.95, "without the sources it does"
    assert abs(scores.probe(block, label[source], source) - 0.5) < 0.25


def test_unlabelled_rows_are_left_out():
    code, value, _ = drawn()
    own, rows = torch.nn.functional.one_hot(code, 4).float(), np.arange(len(code))
    some = code.clone()
    some[::3] = -1
    assert scores.probe(own, some, rows) > 0.98
    gaps = value.clone()
    gaps[::3, 0] = math.nan
    assert scores.probe(value, gaps, rows) > 0.99


@pytest.mark.parametrize("codes, kind, said", [
    (torch.tensor([0, 1, -1, -1, -1, -1]), "linear", "at least four labelled originals, got 2"),
    (torch.zeros(6, dtype=torch.long), "linear", "at least two classes to tell apart, got 1"),
    (torch.arange(5) % 2, "linear", "as many rows .*, got 6, 5 and 6"),
    (torch.arange(6) % 2, "forest", "kind 'linear' or 'mlp', got 'forest'"),
])
def test_a_probe_that_cannot_be_fitted_is_refused(codes, kind, said):
    with pytest.raises(DataError, match=f"scores.probe: expected {said}. .+"): scores.probe(torch.randn(6, 2), codes, np.arange(6), kind)


def test_probes_of_the_toy_name_the_right_blocks():
    expl, (images, _) = explain_digits(), toy_digits()
    f = expl.encode(images.images)
    found = scores.probes(expl, f, expl.to_z(f), images.table)
    assert list(found) == list(CONCEPTS) and list(found["digit"]) == [*SIZES, "z"]
    assert found["digit"]["digit"] > 0.95 < found["digit"]["z"]
    assert found["color"]["color"] > 0.99 < found["color"]["z"]
    assert max(found["digit"]["residual"], found["digit"]["color"]) < 0.25
    assert max(found["color"]["residual"], found["color"]["digit"]) < 0.1
    chance = scores.chance(expl, expl.to_z(f), images.table)
    assert 0 <= chance["color"] < 0.05 and chance["digit"] < 0.2


# ---- the color of a picture

def test_the_color_is_read_exactly_from_color_digits():
    images = data.color_digits()
    held_out = images.held_out
    truth = torch.tensor(held_out.table[["r", "g", "b"]].to_numpy(), dtype=torch.float32)
    assert (scores.read_color(held_out.images) - truth).abs().max() < 1e-6
    moved = images.rows(0, 500)
    moved = moved.redraw(moved, 3)
    truth = torch.tensor(moved.table[["r", "g", "b"]].to_numpy(), dtype=torch.float32)
    assert (scores.read_color(moved.images) - truth).abs().max() < 1e-5, "turned and moved ones too"


def test_the_color_is_the_border_s_whatever_is_inside():
    x = torch.zeros(2, 3, 9, 7)
    x[:] = -torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    x[:, :, 1:-1, 1:-1] = torch.rand(2, 3, 7, 5)
    x[0, :, 0, :3] = 1.0   # a stroke that reaches the border does not count: it is a median
    assert torch.allclose(scores.read_color(x), torch.tensor([0.2, 0.5, 0.9]).expand(2, 3))


# ---- swaps

def test_judged_swaps_of_a_true_explanation():
    found = scores.judged_swaps(explain_digits(), toy_digits()[0], judge, n=300)
    assert list(found) == ["none", *SIZES]
    for name, marks in found.items():
        assert marks["judge"] == 1.0, name
        assert marks["color_error"] == pytest.approx(OFFSET, abs=1e-4), "the decoder's own error, whatever is swapped"
    assert found["none"]["change"] == 0.0
    assert all(found[k]["change"] > 10 for k in SIZES), "and something happens"


def test_judged_swaps_of_a_wrong_explanation():
    "The same host, its color block called digit and the digit block called color: every swap does the other's work."
    wrong = explain_digits(sizes={"residual": 4, "color": 10, "digit": 3})
    found = scores.judged_swaps(wrong, toy_digits()[0], judge, n=300)
    assert found["digit"]["judge"] == pytest.approx(0.1, abs=0.06) == found["color"]["judge"]
    assert found["digit"]["color_error"] > 0.2 < found["color"]["color_error"]
    assert found["residual"]["judge"] == 1.0


def test_change_is_over_the_reconstruction_error():
    expl, (images, u) = explain_digits(), toy_digits()
    found = scores.judged_swaps(expl, images, judge, n=400, seed=5)
    t, s = torch.randint(len(images), (2, 400), generator=torch.Generator().manual_seed(5))
    moved = (u[t, :4] - u[s, :4])[:, None] * u[t, 14:, None]   # four pixels in three channels
    assert found["residual"]["change"] == pytest.approx(float(moved.square().sum() / (400 * 3 * 64)) / OFFSET ** 2, rel=1e-3)


# ---- walks

def test_walks_visit_what_the_factor_decides():
    u, _ = recipes(200)
    expl = explain_toy(u, by_shape)
    found = scores.walk_scores(expl, expl.encode(u[:6]), n_steps=300)
    assert found["residual"] == found["color"] == {"visited": 1.0, "stayed": 1.0}, "exactly"
    assert found["shape"]["visited"] > 3.5 and found["shape"]["stayed"] < 0.5
    one = scores.walk_scores(expl, expl.encode(u[:6]), n_steps=300, factors=("shape",))
    assert one == {"shape": found["shape"]}, "the same for one factor alone"


def test_a_walk_looked_at_now_and_then():
    expl = explain_toy(recipes(200)[0], by_shape)
    f, asked = expl.encode(recipes(200)[0][:2]), []
    def read(y): asked.append(len(y)); return y
    whole, fifth = (scores.walk_scores(expl, f, n_steps=100, read=read, factors=("shape",), every=e)["shape"] for e in (1, 5))
    assert sum(asked) == 2 * (101 + 21) and fifth["visited"] <= whole["visited"]


# ---- all of them

@pytest.mark.parametrize("outputs", ["images", "logits"])
def test_the_scores_are_complete(outputs):
    expl, (images, _) = explain_digits(outputs), toy_digits()
    found = scores.score(expl, images, judge, n_inputs=20, n_draws=20, n_walks=2)
    keys = "accuracy certificate nll dims block_scale probe swap response walk seconds"
    assert set(keys.split()) <= set(found)
    assert found["accuracy"] == 1.0 and found["dims"] == SIZES and found["seconds"] > 0
    assert found["certificate"]["same_prediction"] == (None if outputs == "images" else 1.0)
    assert found["certificate"]["relative_error"] < 1e-5 > found["certificate"]["std_error"]
    assert set(found["probe"]) == set(CONCEPTS) and all(set(v) == {*SIZES, "z"} for v in found["probe"].values())
    for key, parts in {"swap": "judge color_error change", "response": "flip_rate sigma entropy sobol_first sobol_total",
                       "walk": "visited stayed"}.items():
        assert set(found[key]) == set(SIZES), key
        assert all(set(v) == set(parts.split()) for v in found[key].values()), key
    assert (found["swap"]["digit"]["judge"] is None) == (outputs == "logits")
    assert found["response"]["digit"]["flip_rate"] > 0.7 and found["response"]["residual"]["flip_rate"] == 0.0
    assert found["response"]["digit"]["sobol_total"] > 0.9 and found["response"]["color"]["sobol_total"] < 0.01
    assert found["walk"]["color"] == {"visited": 1.0, "stayed": 1.0}
    json.dumps(found)


def test_a_seed_fixes_the_scores():
    expl, (images, _) = explain_digits("logits"), toy_digits()
    a, b, c = (scores.score(expl, images, judge, n_inputs=10, n_draws=10, n_walks=2, seed=s) for s in (3, 3, 4))
    timeless = [{k: v for k, v in s.items() if "seconds" not in k} for s in (a, b, c)]
    assert timeless[0] == timeless[1] != timeless[2]


# ---- sets of pictures

def gaussians(n, dim, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=g) @ torch.randn(dim, dim, generator=g) + torch.randn(dim, generator=g)


@pytest.mark.parametrize("n, m, dim", [(400, 300, 7), (20, 30, 50), (300, 20, 40)])
def test_frechet_is_the_formula(n, m, dim):
    from scipy.linalg import sqrtm
    a, b = gaussians(n, dim), gaussians(m, dim, 1)
    s, t = (torch.cov(x.double().T).numpy() for x in (a, b))
    root = sqrtm(sqrtm(s) @ t @ sqrtm(s)).real
    said = (a.double().mean(0) - b.double().mean(0)).square().sum().item() + np.trace(s + t - 2 * root)
    assert scores.frechet(a, b) == pytest.approx(said, rel=1e-4)
    assert scores.frechet(a, b) == pytest.approx(scores.frechet(b, a), rel=1e-9) and abs(scores.frechet(a, a)) < 1e-6


def test_frechet_sees_mean_and_spread():
    a = gaussians(500, 4)
    assert scores.frechet(a, a + 2) == pytest.approx(16, rel=1e-4)
    assert scores.frechet(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * torch.cov(a.T).trace().item(), rel=1e-4)


@pytest.mark.parametrize("a, b", [((5, 3), (5, 2)), ((1, 3), (5, 3)), ((5,), (5,))])
def test_frechet_refuses(a, b):
    with pytest.raises(core.ShapeError, match="scores.frechet"): scores.frechet(torch.zeros(a), torch.zeros(b))


def test_frechet_names_what_is_not_a_number():
    with pytest.raises(DataError, match="row 2"): scores.frechet(torch.tensor([[0.0], [1], [math.nan]]), torch.zeros(3, 1))


def test_spaces():
    x = torch.rand(120, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    convolved, judged = scores.random_convolutions(), scores.of_judge(zoo.judge())
    assert convolved(x).shape == (120, 512) and torch.equal(convolved(x), scores.random_convolutions()(x)), "fixed"
    reader = zoo.judge()
    with torch.no_grad(): assert torch.allclose(reader.net[-1](judged(x)), reader(x), atol=1e-4), "what its last layer gets"
    for space in (convolved, judged): assert space.frechet(x, x) < 1e-3 < space.frechet(x, 0.5 * x)
    with pytest.raises(DataError, match="ends in a linear layer"): scores.of_judge(torch.nn.Conv2d(1, 1, 1))


def test_lite0_reads_gray_and_small_pictures():
    try: space = scores.lite0(32)
    except core.MissingExtra as e: pytest.skip(str(e))
    assert space(torch.zeros(2, 1, 16, 16)).shape == (2, 1280) and space.name == "Fréchet-Lite0"


def test_fid_is_behind_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(core.MissingExtra, match=r"scores.fid.*iin_nb\[metrics\]"): scores.fid(x, x)


# ---- paths

def flat(x): return x.flatten(1)


def test_a_cross_fade_has_ghosts_and_a_cut_has_none():
    g = torch.Generator().manual_seed(0)
    real = (torch.rand(60, 1, 8, 8, generator=g) > 0.5).float() * 2 - 1
    a, b = real[:20], real[20:40]
    fade = torch.stack([torch.lerp(a, b, t) for t in (0, 0.25, 0.5, 0.75, 1)], 1)
    cut = torch.stack([a, a, b, b, b], 1)
    ghosts, none = scores.ghosting(fade, real, flat), scores.ghosting(cut, torch.cat([real + 0.1, real - 0.1]), flat)
    assert ghosts["sharpness"].shape == (20, 5) and ghosts["blur"].shape == (20,)
    assert ghosts["blur"].mean() > 0.25 and torch.allclose(ghosts["sharpness"][:, [0, 4]], torch.ones(20, 2))
    middle = ghosts["sharpness"][:, 2].mean()
    assert middle == pytest.approx(0.5, abs=0.1), "half of the energy is gone where two unrelated pictures are mixed"
    assert none["blur"].abs().max() < 0.4 and none["stray"].abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(2, 2, 1, 8, 8), (3, 1, 8, 8), (2, 4, 3, 8, 8)])
def test_paths_that_are_none(shape):
    with pytest.raises(core.ShapeError, match="scores.ghosting"): scores.ghosting(torch.zeros(shape), torch.zeros(5, 1, 8, 8), flat)
