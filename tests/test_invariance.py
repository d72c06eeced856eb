"""The laws of invariances: samples a layer cannot tell apart, shares of variance that are right where the truth is known."""
import json
import math
import os
import pickle
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
import toy_layers
from conftest import Net

import iin_nb as iin
from iin_nb import data, explanation, folders, hosts, invariance, latents, translation, zoo
from iin_nb.conditional import EmbedderConfig
from iin_nb.core import DataError, HostError, IINError, ShapeError
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.invariance import Invariances, attack_signs, explained, fidelity, invariances, load, random_signs, readable
from toy_explanation import explain_toy, recipes

SHORT = {"recipe": Recipe(n_steps=12, lr=3e-3, eval_every=6), "batch": 16, "embedder": EmbedderConfig(width=6, hidden=8, channels=4),
         "config": FlowConfig(12, n_blocks=1, hidden=8)}
MIX = torch.randn(192, 12, generator=torch.Generator().manual_seed(5)) / 8


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def painter():
    back = torch.linalg.pinv(MIX)
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, lambda z: (z @ back).reshape(-1, 3, 8, 8), draw(4, 3, 8, 8), "painter")


@pytest.mark.parametrize("a, b", [(1, 1), (1, 3), (3, 1), (0.5, 0.1)])
@pytest.mark.parametrize("m", [8, 30])
def test_the_share_is_the_truth(a, b, m):
    blocks = a * draw(1, 500, 3) + b * draw(m, 500, 3, seed=1)
    found, truth = explained(blocks), b**2 / (a**2 + b**2)
    assert found.low - 0.02 < truth < found.high + 0.02 and found.by_v == pytest.approx(truth, abs=0.05)
    assert found.within == pytest.approx(3 * b**2, rel=0.1) and found.between == pytest.approx(3 * a**2, rel=0.15)
    assert 0 <= found.low <= found.by_v <= found.high <= 1 and found.by_z == 1 - found.by_v


def test_the_share_has_no_unit_and_knows_the_ends():
    blocks = draw(1, 50, 2) + draw(9, 50, 2, seed=1)
    assert explained(7 * blocks + 3).by_v == pytest.approx(explained(blocks).by_v)
    assert explained(draw(1, 50, 2).expand(8, -1, -1)).by_v == 0 and explained(torch.zeros(8, 8, 2)).by_v == 0
    assert explained(draw(40, 400, 2)).by_v > 0.97, "draws alone leave nothing to z"
    for shape in ((7, 20, 2), (20, 7, 2)):
        with pytest.raises(DataError, match="invariance.explained"): explained(draw(*shape))


def test_fidelity_against_the_truth():
    x = draw(300, 6)
    half = hosts.from_functions(lambda t: t[:, :3], lambda z: 3 * z, x, "half")
    good, bad = torch.cat([x[None, :, :3].expand(2, -1, -1), draw(2, 300, 3, seed=1)], 2), draw(2, 300, 6, seed=2)
    one, other = fidelity(half, x, good, x), fidelity(half, x, bad, x)
    assert one.share == pytest.approx(1, abs=1e-4) and one.same_prediction == one.rebuilt_same == 1 and one.n == 600
    assert abs(other.share) < 0.1 and other.same_prediction < 0.6 and other.rebuilt_share == pytest.approx(1, abs=1e-4)


def test_several_layers_at_once(net, small_set, painter, snapshot):
    before = snapshot(net)
    host = hosts.tap(net, "features.5", small_set.images[:8])
    inv = invariances(host, painter, small_set, ["features.2", "features.5", "head"], **SHORT)
    x = small_set.held_out.images
    draws = inv.sample(x, 2, seed=0)
    assert list(draws) == ["features.2", "features.5", "head"] and all(d.shape == (2, len(x), 3, 8, 8) for d in draws.values())
    assert torch.equal(draws["head"], inv.sample(x, 2, "head", seed=0)), "one seed, one v, at every layer"
    trust = inv.fidelity(x, 2)
    assert all(math.isfinite(f.share) and f.same_prediction is not None for f in trust.values())
    shares = inv.variance(x, 8)
    assert all(set(row) == {"z̄"} and 0 <= row["z̄"].by_v <= 1 for row in shares.values())
    assert "3 layer(s)" in repr(inv) and all(t.certificate.holds for t in inv.layers.values())
    before.check()


def test_by_default_the_place_that_was_tapped(net, small_set, painter):
    host = hosts.tap(net, "features.5", small_set.images[:8])
    inv = invariances(host, painter, small_set, baseline=False, **SHORT)
    assert list(inv.layers) == ["features.5"] and inv.sample(small_set.images[:2], 3).shape == (3, 2, 3, 8, 8)
    for call in (lambda: inv.sample(small_set.images[:2], layer="x"), lambda: inv.factors(small_set.images[:2]),
                 lambda: inv.fidelity(small_set.images[:1]), lambda: inv.variance(small_set.images[:2])):
        with pytest.raises(IINError, match=r"invariance.*expected .*, got .*\. \S"): call()


def test_black_boxes_and_wrong_explanations(small_set, painter):
    box = hosts.from_functions(lambda x: x.mean((2, 3)), lambda z: z, small_set.images[:4], "means")
    assert list(invariances(box, painter, small_set, {"means": box}, baseline=False, **SHORT).layers) == ["means"]
    with pytest.raises(IINError, match="black box"): invariances(box, painter, small_set, ["features"])
    other = explain_toy(recipes(60)[0])
    with pytest.raises(IINError, match="Explain this autoencoder"): invariances(box, painter, small_set, explanation=other)


def test_what_does_not_belong_together_is_refused(net, small_set, painter):
    host = hosts.tap(net, "features.5", small_set.images[:8])
    for given, said in (((host, painter, small_set.images), "an ImageSet"), ((net, painter, small_set), "a Host"),
                        ((host, "painter", small_set), "a Host"), ((host, painter, small_set, []), "one layer")):
        with pytest.raises(IINError, match=f"expected (at least )?{said}"): invariances(*given)


def test_a_regression_says_what_z_has_at_least():
    z = draw(200, 6)
    assert readable(z, z[:, :2] @ draw(2, 3)) > 0.99 and readable(z, draw(200, 3, seed=1)) < 0.05
    half = readable(z, torch.stack([z[:, 0], draw(200, seed=1)], 1))
    assert 0.35 < half < 0.6 and readable(z, torch.zeros(200, 2)) == 0 and readable(z[:19], z[:19]) is None
    wide = torch.cat([z[:, :1] * torch.ones(8), 0.1 * draw(200, 3000, seed=2)], 1)
    assert readable(wide, z[:, :1]) > 0.8, "more numbers than inputs"


def test_a_tau_that_hears_nothing_is_found_out(small_set, painter):
    told = hosts.from_functions(lambda x: x.flatten(1) @ MIX, lambda z: z, small_set.images[:4], "tells all")
    inv = invariances(told, painter, small_set, baseline=False, **SHORT)   # trained for twelve steps
    with pytest.warns(UserWarning, match="a regression reads .* this τ has missed it"):
        share = inv.variance(small_set.images[:60], 8)["tells all"]["z̄"]
    assert share.missed and "at most" in str(share) and share.read > 0.9


def figure_keeper(n):
    "A toy's numbers (n, 16), its explanation, a layer that keeps three of them, and its latents."
    u = recipes(n)[0]
    expl = explain_toy(u)
    keeps = hosts.from_functions(lambda x: x[:, 10:13], lambda z: z, u, "keeps the figure")
    return u, expl, keeps, latents.from_array(expl.host.encode(u), pd.DataFrame(index=range(n)))


def test_named_factors_of_a_toy():
    "Of sixteen numbers a layer keeps the figure; the color, which it ignores, is v's, the figure z's."
    u, expl, keeps, z = figure_keeper(1200)
    made = translation.translate(keeps, expl.host, (u, z), FlowConfig(16, n_blocks=2, hidden=32), EmbedderConfig(width=8, hidden=32),
                                 Recipe(n_steps=150, lr=1e-2, eval_every=50), 128, baseline=False)
    shares = Invariances({"figure": made}, expl).variance(u[:200], 8)["figure"]
    assert shares["shape"].by_v < 0.3 and shares["color"].by_v > 0.8 and shares["residual"].by_v > 0.8
    assert len(Invariances({"figure": made}, expl).factors(u[:5], 3)) == 15


def test_at_most_is_said_where_tau_has_missed_over_a_tenth():
    share = invariance.Explained(0.3, 0.25, 0.35, 1, 3)
    for read, said in ((None, False), (0.6, False), (0.75, False), (0.79, False), (0.81, True)):
        told = str(replace(share, read=read))
        assert told == "v 0.300 [0.250, 0.350]" + ", at most 0.19 by a regression" * said and told == repr(replace(share, read=read))


def test_results_in_a_dict_are_short(painter):
    x = draw(9, 3, 8, 8)
    found = fidelity(painter, x, x[None], x)
    assert str({"head": found}) == f"{{'head': {found}}}" and repr(found).startswith("9 samples: cosine 1.000")


def test_each_layer_has_a_bar_of_its_own(net, small_set, painter, monkeypatch):
    bars, fit = [], translation.fit_flow
    monkeypatch.setattr(translation, "fit_flow", lambda *args: bars.append(args[-1]) or fit(*args))
    head = hosts.tap(net, "head", small_set.images[:8])
    invariances(head, painter, small_set, ["features.2", "head"], **SHORT)
    assert bars == ["training τ of features.2, 1 of 2", "training T, the baseline", "training τ of head, 2 of 2"]
    invariances(head, painter, small_set, baseline=False, **SHORT)
    assert bars[3:] == ["training τ of head"]


def test_one_seed_one_bootstrap():
    blocks = draw(8, 20, 2)
    assert explained(blocks, seed=1) == explained(blocks, seed=1) and invariance.Explained(0.25, 0, 1, 1, 3).by_z == 0.75


# ---- a change that turns the answer

def test_signs_are_of_the_gradient():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 2, 2, generator=g)
    host = hosts.tap(torch.nn.Sequential(torch.nn.Flatten(), linear := torch.nn.Linear(12, 4)), "0", x)
    p = linear(x.flatten(1)).softmax(1).detach()
    known = ((p - torch.nn.functional.one_hot(p.argmax(1), 4)) @ linear.weight.detach()).sign().reshape(x.shape)
    assert torch.equal(attack_signs(host, x), known)


def test_the_attack_lowers_its_own_answer_more_than_the_control():
    host, x = list(toy_layers.layers().layers.values())[-1].source.host, toy_layers.pictures()
    p, best = host.decode(host.encode(x)).softmax(1).max(1)
    both = (x + 0.05 * s for s in (attack_signs(host, x), random_signs(x)))
    left = [host.decode(host.encode(y)).softmax(1).gather(1, best[:, None])[:, 0] for y in both]
    assert (left[0] <= p + 1e-6).float().mean() > 0.95 and left[0].mean() < left[1].mean()
    assert set(random_signs(x).unique().tolist()) == {-1, 1} and random_signs(x).mean().abs() < 0.1
    assert torch.equal(random_signs(x, 3), random_signs(x, 3)) and not torch.equal(random_signs(x, 3), random_signs(x, 4))


def test_no_signs_without_answers_or_gradients(painter):
    x = draw(4, 3, 8, 8)
    with pytest.raises(HostError, match="invariance.attack_signs: expected a host that answers with logits, got images"):
        attack_signs(painter, x)
    black = hosts.from_functions(lambda t: torch.tensor(t.detach().flatten(1)[:, :9].tolist()), lambda z: z[:, :3], x)
    with pytest.raises(HostError, match="gradients"): attack_signs(black, x[:2])


# ---- bad input

def spoilt(x, value, row=3):
    x = x.clone()
    x[row] = value
    return x


BAD = {
    "nan": (lambda x: spoilt(x, math.nan), DataError, "finite inputs, got .* row 3"),
    "inf": (lambda x: spoilt(x, math.inf), DataError, "finite inputs, got .* row 3"),
    "uint8": (lambda x: (127.5 * (x + 1)).to(torch.uint8), ShapeError, r"floats.*, got torch.uint8. Bytes to .*/ 127.5 - 1"),
    "int64": (lambda x: (127.5 * (x + 1)).long(), ShapeError, "floats.*, got torch.int64. Bytes to"),
    "one without a batch": (lambda x: x[0], ShapeError, r"rows \(3, 8, 8\) of torch.float32, got one row .* x\[None\]"),
    "none": (lambda x: x[:0], DataError, r"at least \d inputs?.*, got 0"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("call", ["sample", "latents", "fidelity", "variance"])
@pytest.mark.parametrize("alone", [True, False])
def test_bad_inputs_are_named(what, call, alone):
    inv = toy_layers.layers()
    if alone: inv = Invariances({"head": inv.layers["head"]})
    make, kind, said = BAD[what]
    args = {"latents": (2, "head")}.get(call, ())
    where = r"hosts\.encode" if "int" in what else f"invariance.{call}"   # what is no float, the host names
    with pytest.raises(kind, match=rf"{where}.*: expected .*{said}"): getattr(inv, call)(make(toy_layers.pictures(9)), *args)


@pytest.mark.parametrize("call, said", [
    (lambda inv, x: inv.sample(x, 0), "sample: expected a whole number n of at least 1, got 0"),
    (lambda inv, x: inv.sample(x, -2, "head"), "sample: expected a whole number n of at least 1, got -2"),
    (lambda inv, x: inv.sample(x, 2.5), "sample: expected a whole number n of at least 1, got 2.5"),
    (lambda inv, x: inv.latents(x, 0, "head"), "latents: expected a whole number n of at least 1, got 0"),
    (lambda inv, x: inv.fidelity(x, 0), "fidelity: expected a whole number n of at least 1, got 0"),
    (lambda inv, x: inv.fidelity(x[:1]), "fidelity: expected at least 2 inputs, for random pairs, got 1"),
    (lambda inv, x: inv.variance(x, 7), "variance: expected a whole number m of at least 8, got 7. Ask for more: m=8"),
    (lambda inv, x: inv.variance(x, "16"), "variance: expected a whole number m of at least 8, got '16'"),
    (lambda inv, x: inv.variance(x[:7]), "variance: expected at least 8 inputs, or variances are too coarse, got 7"),
    (lambda inv, x: inv.sample(x, 2, "feature.5"), r"sample: expected one of features.2, features.5, head, .*mean layer='features.5'"),
    (lambda inv, x: inv.latents(x, 2), "latents: expected one of .*, got None. Name a layer: layer='features.2'"),
    (lambda inv, x: inv.sample(x, 2, 5), "sample: expected one of .*, got 5"),
    (lambda inv, x: inv.sample(x, v=spoilt(draw(4, 12), math.nan)), "sample: expected finite v, got .* row 3"),
    (lambda inv, x: inv.sample(x, layer="head", v=spoilt(draw(4, 12), math.inf)), "sample: expected finite v, got .* row 3"),
    (lambda inv, x: inv.sample(x, v=draw(4, 11)), r"expected v of shape \(n, 12\)"),
    (lambda inv, x: inv.sample(x, temperature=math.nan), "a temperature ≥ 0"),
])
def test_numbers_and_names_that_will_not_do(call, said):
    with pytest.raises(IINError, match=said): call(toy_layers.layers(), toy_layers.pictures(9))


def test_one_input_and_a_set_will_do():
    inv, x = toy_layers.layers(), toy_layers.image_set(9)
    assert inv.sample(x.images[:1], 3, "head").shape == (3, 1, 3, 8, 8)
    assert torch.equal(inv.sample(x, 1, "head", seed=0), inv.sample(x.images, 1, "head", seed=0))
    assert set(inv.variance(x, 8)) == set(toy_layers.LAYERS), "a set stands for its pictures"


def test_hosts_of_numbers_may_take_whole_ones():
    x = torch.randint(9, (20, 6), generator=torch.Generator().manual_seed(0))
    count = hosts.from_functions(lambda t: t.float() + 0.5, lambda z: z, x, "counts")
    assert fidelity(count, x, x[None].float(), x.float()).n == 20


@pytest.mark.parametrize("samples, rebuilt, kind, said", [
    (draw(2, 9, 6), draw(8, 6), ShapeError, "9 reconstructions"), (draw(2, 8, 6), draw(9, 6), ShapeError, "samples"),
    (draw(9, 6), draw(9, 6), ShapeError, "samples"), (draw(0, 9, 6), draw(9, 6), ShapeError, "samples"),
    (spoilt(draw(2, 9, 6), math.nan, 1), draw(9, 6), DataError, "finite samples"),
    (draw(2, 9, 6), spoilt(draw(9, 6), math.inf), DataError, "finite reconstructions")])
def test_fidelity_wants_rows_that_belong_together(samples, rebuilt, kind, said):
    half = hosts.from_functions(lambda t: t[:, :3], lambda z: 3 * z, draw(9, 6), "half")
    with pytest.raises(kind, match=f"invariance.fidelity: expected .*{said}"): fidelity(half, draw(9, 6), samples, rebuilt)


def test_shares_of_nothing_finite_are_refused():
    with pytest.raises(DataError, match="invariance.explained: expected finite blocks"): explained(spoilt(draw(9, 9, 2), math.nan))


def test_sets_and_layers_that_will_not_do(net, small_set, painter):
    host = hosts.tap(net, "features.5", small_set.images[:8])
    make = lambda change: replace(small_set, images=change(small_set.images))
    for given, said in (
            ((make(lambda x: spoilt(x, math.nan)),), "finite inputs, got .* row 3"),
            ((make(lambda x: (127.5 * (x + 1)).to(torch.uint8)),), "floats.* got torch.uint8"),
            ((small_set.rows(0, 15),), "at least 16 inputs in the set, .*, got 15"), ((small_set.rows(0, 0),), "got 0"),
            ((small_set, ""), "at least one layer"), ((small_set, {}), "at least one layer"), ((small_set, 5), "at least one layer"),
            ((small_set, ["head", 3]), "a str for each layer, got 3"), ((small_set, {"head": "head"}), "a Host for each layer, got 'head'"),
            ((small_set, ["feature.5"]), "Did you mean 'features.5'"), ((small_set, "haed"), "Did you mean .*'head'"),
            ((small_set, None, "names"), "an Explanation, got str")):
        with pytest.raises(IINError, match=said): invariances(host, painter, *given, **SHORT)


# ---- on disk

def tapped(layer="head"): return hosts.tap(toy_layers.layers().layers["head"].source.host.model, layer, toy_layers.pictures(8))


@pytest.fixture
def kept(tmp_path):
    toy_layers.layers().save(tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize("host", [tapped, lambda: tapped("features.2"), lambda: {k: tapped(k) for k in toy_layers.LAYERS}])
def test_saved_and_loaded_is_the_same(kept, host):
    inv, x = toy_layers.layers(), toy_layers.pictures(30)
    again = load(kept, host(), toy_layers.painter())
    for k, drawn in inv.sample(x, 2, seed=4).items():
        assert torch.equal(drawn, again.sample(x, 2, k, seed=4)), "bit for bit"
        assert again.layers[k].record == inv.layers[k].record
    assert again.variance(x, 8) == inv.variance(x, 8) and again.fidelity(x, 2) == inv.fidelity(x, 2)
    assert repr(again) == repr(inv) and list(again.layers) == list(inv.layers) and again.explanation is None
    again.save(kept)   # what was loaded can be saved, in the place of itself
    assert repr(load(kept, tapped(), toy_layers.painter())) == repr(inv)


def named():
    "Invariances with an explanation, of hosts of functions."
    u, expl, keeps, z = figure_keeper(300)
    quick = dict(recipe=Recipe(n_steps=4, eval_every=2), batch=32, baseline=False)
    made = translation.translate(keeps, expl.host, (u, z), FlowConfig(16, n_blocks=1, hidden=8), EmbedderConfig(width=8, hidden=8), **quick)
    return Invariances({"the figure/…": made}, expl), keeps, u


def test_the_names_come_along(tmp_path):
    inv, keeps, u = named()
    inv.save(tmp_path / "deep" / "a")
    for host in (keeps, {"the figure/…": keeps}):
        again = load(tmp_path / "deep" / "a", host, inv.autoencoder)
        assert torch.equal(again.factors(u[:5], 3, seed=0).z_tilde, inv.factors(u[:5], 3, seed=0).z_tilde)
        assert again.variance(u[:20], 8) == inv.variance(u[:20], 8) and list(again.layers) == ["the figure/…"]
    assert repr(explanation.load(tmp_path / "deep" / "a" / "explanation", inv.autoencoder)) == repr(inv.explanation)
    with pytest.raises(DataError, match="explanation.load: .*invariance.load reads it"): iin.load(tmp_path / "deep" / "a")
    with pytest.raises(DataError, match="invariance.load: .*It holds explanation.json: explanation.load reads it"):
        load(tmp_path / "deep" / "a" / "explanation")


def test_shipped_hosts_are_found_by_their_weights(tmp_path):
    digits, reader, paint = data.color_digits(), zoo.load("digits-classifier"), zoo.load("digits-autoencoder")
    few = data.ImageSet(digits.images[:60], digits.table[:60], 45)
    names = explanation.shipped("digits-autoencoder")
    quick = SHORT | {"config": FlowConfig(64, n_blocks=1, hidden=8), "recipe": Recipe(n_steps=2, eval_every=2)}
    inv = invariances(reader, paint, few, ["features.1", "features", "head"], names, baseline=False, **quick)
    inv.save(tmp_path / "a")
    again, x = load(tmp_path / "a"), few.images[:3]
    assert all(torch.equal(d, again.sample(x, 1, k, seed=0)) for k, d in inv.sample(x, 1, seed=0).items())
    assert len({id(t.source.host.model) for t in again.layers.values()}) == 1, "one model, tapped at three places"
    assert torch.equal(again.factors(x, 2, "head", seed=0).digit, inv.factors(x, 2, "head", seed=0).digit)


def test_hosts_must_be_those_that_were_looked_into(kept):
    paint, stranger = toy_layers.painter(), Net().eval()
    with torch.no_grad(): stranger.head[1].bias += 1
    stranger = hosts.tap(stranger, "features.5", toy_layers.pictures(8))
    for given, said in (
            ((None, paint), r"invariance.load \(features.2\): expected the host 'net', tapped at 'features.2', got none. Pass host="),
            ((tapped(), None), r"invariance.load \(autoencoder\): .* got none"), ((stranger, paint), "other weights"),
            ((tapped().model, paint), "expected a Host, got Net"), ((tapped(), "painter"), "expected a Host, got str"),
            (({"head": tapped()}, paint), "a host for 'features.2', got those of head"), ((tapped(), tapped()), "Tap the same place"),
            (({k: tapped() for k in toy_layers.LAYERS}, paint), "expected the host that was explained"),
            ((replace(tapped(), inputs="(3,) of torch.float32, (4,) of torch.int64"), paint), "a host of one tensor of floats"),
            ((replace(tapped(), inputs=""), paint), "got another. Pass a host for each layer")):
        with pytest.raises(HostError, match=said): load(kept, *given)


def files(folder): return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


class Bomb:
    def __reduce__(self): return os.system, ("touch exploded",)


def load_again(folder): return load(folder, tapped(), toy_layers.painter())


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "pickle", "folder"])
def test_damaged_files(kept, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    assert len(files(kept)) == 7
    for name in files(kept):
        path, raw = kept / name, (kept / name).read_bytes()
        path.unlink()
        if damage == "folder": path.mkdir()
        elif damage != "gone":
            flipped = raw[:-9] + bytes([raw[-9] ^ 4]) + raw[-8:]
            path.write_bytes({"empty": b"", "cut": raw[:-1], "flipped": flipped, "pickle": pickle.dumps(Bomb())}[damage])
        with pytest.raises(DataError, match=r"(invariance|translation).load: expected .*, got .*\. \S"): load_again(kept)
        if damage == "folder": path.rmdir()
        path.write_bytes(raw)
    load_again(kept)
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "nothing was executed"


def test_parts_of_another_folder_are_refused(kept, tmp_path):
    (kept / "layer-0").rename(kept / "was")
    shutil.copytree(kept / "layer-1", kept / "layer-0")
    with pytest.raises(DataError, match="invariance.load: .*translation.json is not what was saved"): load_again(kept)
    shutil.rmtree(kept / "layer-0")
    with pytest.raises(DataError, match="invariance.load: expected a folder with invariance.json and a folder for each"): load_again(kept)
    for path in ("", "nothing", "a/invariance.json"):
        with pytest.raises(DataError, match="invariance.load"): load_again(tmp_path / path)


@pytest.mark.parametrize("edit", [
    lambda s: s.update(format=2), lambda s: s.pop("format"), lambda s: s.update(layers=[]), lambda s: s.update(layers=None), lambda s: [s],
    lambda s: s.pop("layers"), lambda s: s["layers"][0].update(name="head"), lambda s: s["layers"][0].update(name=3),
    lambda s: s["layers"][0].pop("sha256"), lambda s: s["layers"][0].update(sha256=None), lambda s: s["layers"].append(s["layers"][0]),
    lambda s: s["layers"][0]["host"].pop("name"), lambda s: s["autoencoder"].update(extra=1), lambda s: s.update(autoencoder=None),
    lambda s: s.update(explanation="0" * 64), lambda s: s.pop("explanation"), lambda s: s["layers"].reverse()])
def test_descriptions_that_do_not_belong(kept, edit):
    said = json.loads((kept / "invariance.json").read_text())
    said.pop("seal")   # or the seal would tell, and nothing else be tested
    said = found if isinstance(found := edit(said), list) else said
    (kept / "invariance.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match="invariance.load"): load_again(kept)


def test_saving_replaces_invariances_and_nothing_else(kept, tmp_path):
    inv = toy_layers.layers()
    one = Invariances({"head": inv.layers["head"]})
    one.save(kept)
    assert list(load_again(kept).layers) == ["head"] and not (kept / "layer-1").exists()
    inv.save(kept)
    assert len(load_again(kept).layers) == 3
    for mine in ("notes.txt", "layer-0/notes.txt", "explanation/notes.txt"):
        (kept / mine).parent.mkdir(exist_ok=True)
        (kept / mine).write_text("mine")
        with pytest.raises(DataError, match="invariance.save: .*something else"): one.save(kept)
        assert (kept / mine).read_text() == "mine" and len(load_again(kept).layers) == 3
        (kept / mine).unlink()
    inv.layers["head"].save(tmp_path / "t")
    with pytest.raises(DataError, match="something else"): one.save(tmp_path / "t")
    with pytest.raises(DataError, match="translation.save.*something else"): inv.layers["head"].save(kept)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "t"]


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    inv = toy_layers.layers()
    by_numbers = translation.translate(None, None, (draw(60, 3), latents.from_array(draw(60, 6), pd.DataFrame(index=range(60)))),
                                       FlowConfig(6, n_blocks=1, hidden=8), recipe=Recipe(n_steps=2, eval_every=2), baseline=False)
    for made, said in ((Invariances({"x": by_numbers}), ": expected a Host on both sides at x"),
                       (Invariances(inv.layers, named()[0].explanation), r" \(explanation\)")):
        with pytest.raises(HostError, match=f"invariance.save{said}"): made.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_what_was_there(tmp_path, earlier):
    "No file may grow beyond 2 kB here, which the system reports much as it reports a full disk."
    resource = pytest.importorskip("resource")
    inv, target = toy_layers.layers(), tmp_path / "new" / "a"
    if earlier: inv.save(target)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
        with pytest.raises(DataError, match=r"invariance.save: expected room and permission to write \S*/new/a, got .*free some disk"):
            Invariances({"head": inv.layers["head"]}).save(target)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    if earlier: assert len(load_again(target).layers) == 3 and [p.name for p in target.parent.iterdir()] == ["a"]
    else: assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_an_interrupt_leaves_what_was_there(kept, tmp_path, monkeypatch, error, call):
    rename, calls, short = os.rename, [], Invariances({k: toy_layers.layers().layers[k] for k in ("head", "features.2")})

    def fails(a, b):   # twice for the layers, then the old folder away, the new one into its place, and, if need be, the old one back
        calls.append(1)
        if len(calls) == call: raise error
        rename(a, b)

    monkeypatch.setattr(folders.os, "rename", fails)
    if call < 5:
        with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt): short.save(kept)
    else: short.save(kept)
    monkeypatch.undo()
    assert len(load_again(kept).layers) == (3 if call < 5 else 2) and [p.name for p in tmp_path.iterdir()] == ["a"]
