"""The front door: what it makes is certified and repeatable, bad input is named before training, the disk holds it whole or not at all."""
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
from torch import nn

from iin_nb import core, data, explanation, folders, hosts, objective, zoo
from iin_nb.core import DataError, HostError, IINError, ShapeError
from iin_nb.explanation import Certificate, Explanation, certify, explain, load, save
from iin_nb.factors import BlockLaw, Layout
from iin_nb.fit import History, Recipe, TrainingStopped
from iin_nb.flow import Flow, FlowConfig
from iin_nb.pairs import concepts as concepts_of

FILES = {"explanation.json", "tensors.safetensors"}
BRIEF = Recipe(n_steps=6, lr=3e-3, eval_every=3)
CONFIG = FlowConfig(6, n_blocks=2, hidden=8)
SPEC = {"shape": "shape", "light": ["light"]}
KW = dict(config=CONFIG, recipe=BRIEF)


class Tiny(nn.Module):
    "Pictures (B, 3, 8, 8) to `out` logits through a vector of 6; `dead` of its units never fire."

    def __init__(self, out=3, dead=0):
        super().__init__()
        torch.manual_seed(5)
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(192, 6)), nn.Linear(6, out)
        with torch.no_grad():
            self.body[1].weight[:dead] = 0
            self.body[1].bias[:dead] = 0.25

    def forward(self, x): return self.head(self.body(x))


def tapped(layer="body", **kw): return hosts.tap(Tiny(**kw), layer, torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def host(): return tapped()


@pytest.fixture(scope="module")
def expl(host):
    made = explain(host, small(), SPEC, **KW)
    made.maps["z"] = torch.rand(10, 2)
    return made


def small(n=60, held_out=0.25, **columns):
    "Noisy pictures: `shape` of 3 classes moves the bright corner, `light` is its brightness."
    g = torch.Generator().manual_seed(2)
    shape, light = torch.arange(n) % 3, torch.rand(n, generator=g)
    x = torch.rand(n, 3, 8, 8, generator=g) * 0.2 - 0.9
    for i, s in enumerate(shape.tolist()): x[i, :, 4 * (s // 2):4 * (s // 2) + 4, 4 * (s % 2):4 * (s % 2) + 4] += light[i]
    table = pd.DataFrame({"shape": [f"s{i}" for i in shape.tolist()], "light": light.numpy(), **columns})
    return data.from_table(x, table, held_out=held_out)


def same_tensors(a, b):
    assert a.keys() == b.keys()
    for k, v in a.items(): assert torch.equal(v, b[k]), k


# ---- what explain makes

def test_explanation_is_whole(expl, host):
    assert expl.layout.names == ("residual", "shape", "light") and expl.layout.total == 6
    assert expl.certificate.n == 15 and expl.certificate.holds and expl.certificate.same_prediction == 1.0
    assert {k: law.bank.shape[1] for k, law in expl.laws.items()} == expl.layout.dims
    assert expl.history.stopped == "finished" and expl.history.unit == "nats a pair, 8 × contrast included"
    assert expl.recipe["n_steps"] == 6 and set(expl.recipe["dims_by_rule"]) and "Explanation of tiny: z (6)" in repr(expl)
    json.dumps(expl.recipe)


def test_encode_and_decode_are_the_host(expl, host):
    x = small().images
    f = expl.encode(x)
    torch.testing.assert_close(expl.to_z(f), host.encode(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(expl.decode(f), host.decode(host.encode(x)), atol=1e-4, rtol=0)
    alone = expl.encode(x[:1]).z_tilde   # another batch size, another order of sums: relative to the largest, as in the certificate
    torch.testing.assert_close(alone, f[:1].z_tilde, atol=1e-5 * float(f.z_tilde.abs().max()), rtol=0)
    assert len(expl.encode(x[:0])) == 0 and not f.z_tilde.requires_grad
    long = x.repeat(20, 1, 1, 1)                                        # more rows than go through at once
    torch.testing.assert_close(expl.decode(expl.encode(long)), expl.decode(f).repeat(20, 1), atol=1e-5, rtol=0)


def test_encode_and_decode_refuse(expl):
    for wrong in (torch.zeros(2, 3, 9, 9), torch.zeros(2, 3, 8, 8).double(), np.zeros((2, 3, 8, 8)), torch.zeros(3, 8, 8)):
        with pytest.raises(ShapeError, match="hosts.encode"): expl.encode(wrong)
    other = Layout.of({"shape": 1, "light": 1}, 6)
    if other == expl.layout: other = Layout.of({"shape": 3, "light": 1}, 6)
    with pytest.raises(DataError, match="explanation.to_z"): expl.decode(other.split(torch.zeros(2, 6)))
    with pytest.raises(ShapeError): expl.from_z(torch.zeros(2, 5))


def test_the_same_seed_gives_the_same_and_the_outer_stream_goes_on(host):
    torch.manual_seed(3); np.random.seed(3)
    undisturbed = torch.rand(2), np.random.rand()
    torch.manual_seed(3); np.random.seed(3)
    one = explain(host, small(), SPEC, **KW)
    assert torch.equal(torch.rand(2), undisturbed[0]) and np.random.rand() == undisturbed[1]
    two, other = explain(host, small(), SPEC, **KW), explain(host, small(), SPEC, seed=1, **KW)
    same_tensors(explanation._tensors(one), explanation._tensors(two))
    assert not torch.equal(one.encode(small().images).z_tilde, other.encode(small().images).z_tilde)
    assert other.recipe["seed"] == 1


def test_host_is_left_as_found(snapshot):
    model = Tiny().train()
    host, was = hosts.tap(model, "body", small().images[:4]), snapshot(model)
    explain(host, small(), SPEC, **KW)
    was.check()
    with pytest.raises(DataError): explain(host, small(), {"shape": "nothing"}, **KW)
    was.check()


# ---- wide layers

class Wide(Tiny):
    "As `Tiny`, through a vector of 300, tanh of random sums."

    def __init__(self, width=300):
        nn.Module.__init__(self)
        torch.manual_seed(5)
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Tanh()), nn.Linear(width, 3)


@pytest.fixture(scope="module")
def wide(): return hosts.tap(Wide(), "body", small().images[:4])


def test_a_wide_layer_explains_itself(wide, capsys, monkeypatch, tmp_path):
    tried = []
    monkeypatch.setattr(explanation, "SHORT", replace(explanation.SHORT, n_steps=8, eval_every=4))
    monkeypatch.setattr(explanation, "try_leads", lambda z, check, leads, recipe: tried.extend(leads) or TRY(z, check, leads, recipe))
    made = explain(wide, small(200), SPEC, recipe=BRIEF)
    lead, said = made.flow.config.lead, capsys.readouterr().out
    assert tried[0] == 16 and max(tried) <= 200 * 0.75 // 4 and lead in tried and made.flow.n_rest == 300 - lead
    assert f"T bends the {lead} leading directions" in said and f"{made.flow.modelled_share:.0%} of the variance" in said
    assert len(said.strip().splitlines()) == 1 and set(made.recipe["nats_by_lead"]) == set(map(str, tried))
    assert made.certificate.holds and made.layout.total == 300 and made.layout.dims["shape"] == 2 and made.layout.dims["light"] == 1
    assert "leading directions only" in made.history.unit
    made.save(tmp_path/"wide.iin")
    same_tensors(explanation._tensors(load(tmp_path/"wide.iin", wide)), explanation._tensors(made))
    same_tensors(explanation._tensors(explain(wide, small(200), SPEC, recipe=BRIEF)), explanation._tensors(made))


TRY = explanation.try_leads


@pytest.mark.parametrize("n", (16, 60))
def test_few_samples_lead_few_directions(wide, n, capsys, monkeypatch):
    monkeypatch.setattr(explanation, "try_leads", lambda *a, **kw: pytest.fail("there is nothing to choose"))
    made = explain(wide, small(n), ["light"], recipe=BRIEF)
    assert 2 <= made.flow.config.lead <= max(2, 0.75 * n // 4) and made.certificate.holds
    assert "all that so few pictures support" in capsys.readouterr().out and "nats_by_lead" not in made.recipe


def test_copies_of_a_picture_count_once(wide):
    z = explanation.encode_all(wide, small(40).train)
    ten = explanation.Latents(z.mean.repeat(10, 1), z.std, pd.concat([z.table] * 10, ignore_index=True))
    assert explanation._most(ten) == explanation._most(z) == 30 // 4


@pytest.mark.parametrize("recipe", (BRIEF, None))
def test_asked_for_sizes_and_shape_of_a_wide_layer(wide, capsys, recipe):
    made = explain(wide, small(), SPEC, dims={"light": 1, "shape": 20}, recipe=recipe)
    assert made.layout.dims == {"residual": 279, "shape": 20, "light": 1} and made.flow.config.lead == 22
    capsys.readouterr()
    config = FlowConfig(300, n_blocks=1, hidden=8, lead=12)
    made = explain(wide, small(), SPEC, config=config, recipe=recipe)
    assert made.flow.config.lead == 12 and sum(made.layout.sizes[1:]) < 12 and not capsys.readouterr().out
    full = explain(wide, small(), {}, config=replace(config, lead=0), recipe=recipe)
    assert full.flow.config.lead == 0 and full.layout.dims == {"residual": 300} and full.certificate.holds


def test_a_wide_flow_is_closed_and_its_baseline_shares_its_directions(wide):
    images = small(200)
    made = explain(wide, images, SPEC, config=FlowConfig(300, n_blocks=1, hidden=8, lead=12), recipe=BRIEF)
    first = explanation.encode_all(wide, images.train.split(0.25)[0])
    for flow in (made.flow, line := explanation.baseline(made, first)):
        z_tilde = flow(first.mean)[0].detach()
        own, other = z_tilde[:, -3:], z_tilde[:, :-3]
        told = torch.linalg.lstsq(own - own.mean(0), other - other.mean(0)).solution
        assert (told.abs().max() < 0.05), "the residual is cleared of what the concepts tell linearly, in all dimensions"
        back = flow.inverse(z_tilde)[0]
        torch.testing.assert_close(back, first.mean, atol=1e-4, rtol=0)
    assert torch.equal(line.front[0].rotation, made.flow.front[0].rotation) and line.config.n_blocks == 1


def test_a_layer_too_wide_is_refused_before_it_is_encoded(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 80, 1), nn.Flatten(), nn.Linear(5120, 2))
    host = hosts.tap(model, "0", small().images[:4])
    monkeypatch.setattr(explanation, "encode_all", lambda *a, **kw: pytest.fail("it was encoded"))
    with pytest.raises(HostError, match=r"at most 4,096 dimensions, got 5,120.*shape=\(80, 8, 8\)"): explain(host, small(), SPEC)


def test_up_to_256_dimensions_nothing_is_chosen(host, monkeypatch):
    monkeypatch.setattr(explanation, "_plan", lambda *a: pytest.fail("a narrow layer was planned"))
    assert explain(host, small(), SPEC, recipe=None).flow.config.lead == 0


def test_too_few_to_say_how_the_layer_varies():
    rows = [dict(step=s, seconds=1.0, train=t, held_out=h, lr=0.1) for s, t, h in ((5, -100.0, 900.0), (10, -300.0, 500.0))]
    with pytest.warns(UserWarning, match="500 nats a pair on pictures put aside, -300 .* lead=16"):
        explanation._warn_apart(History(rows=rows, best_step=10), 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explanation._warn_apart(History(rows=rows, best_step=10), 128)
        explanation._warn_apart(History(), 64)


def test_unsupervised(host):
    for none in (None, [], {}):
        made = explain(host, small(), none, **KW)
        assert made.layout.dims == {"residual": 6} and made.concepts == () and made.certificate.holds


def test_without_concepts_it_says_at_once_what_could_be_one(host):
    core._warned.clear()
    with pytest.warns(UserWarning, match="Columns that could be: 'shape', .*concepts={}"): explain(host, small(), **KW)
    core._warned.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(host, small(), {}, **KW)


def test_concepts_as_names_take_their_kind_from_the_column(host):
    made = explain(host, small(), ["light", "shape"], **KW)
    assert [c.continuous for c in made.concepts] == [True, False] and made.layout.names == ("residual", "light", "shape")
    assert explain(host, small(), "shape", **KW).layout.names == ("residual", "shape")


def test_dims_by_hand_follow_the_concepts_whatever_their_order(host):
    for dims in ({"light": 1, "shape": 2}, {"shape": 2, "residual": 3, "light": 1}):
        made = explain(host, small(), SPEC, dims=dims, **KW)
        assert made.layout == Layout(("residual", "shape", "light"), (3, 2, 1))


def test_default_config_and_published_config_fit(host):
    assert explain(host, small(), SPEC, recipe=BRIEF).flow.config.n_blocks == FlowConfig(6).n_blocks
    flow = explain(host, small(), SPEC, config=FlowConfig(6, n_blocks=1, hidden=8, linear=False, joint=False), recipe=BRIEF).flow
    assert not flow.config.linear


def test_double_hosts_and_hosts_of_pictures():
    x = small().images
    double = hosts.tap(Tiny().double(), "body", x[:4].double())
    made = explain(double, replace(small(), images=small().images.double()), SPEC, **KW)
    assert made.certificate.holds and made.decode(made.encode(x.double())).dtype == torch.float64
    flat = hosts.from_functions(lambda v: v.flatten(1)[:, :6], lambda z: z[:, :, None, None].expand(-1, -1, 8, 8)[:, :3], x[:4])
    made = explain(flat, small(), SPEC, **KW)
    assert made.certificate.same_prediction is None and made.certificate.holds and made.decode(made.encode(x)).shape == x.shape


def test_interrupt_keeps_the_best_and_says_so(host, monkeypatch, capsys):
    calls, pair_nll = [], objective.pair_nll

    def impatient(*args, **kw):
        if torch.is_grad_enabled():
            calls.append(1)
            if len(calls) == 8: raise KeyboardInterrupt
        return pair_nll(*args, **kw)

    monkeypatch.setattr(objective, "pair_nll", impatient)
    made = explain(host, small(), SPEC, config=CONFIG, recipe=replace(BRIEF, n_steps=50))
    assert made.history.stopped == "interrupted" and [r["step"] for r in made.history.rows] == [3, 6]
    assert made.certificate.holds and torch.isfinite(made.encode(small().images).z_tilde).all()
    said = "".join(capsys.readouterr())
    assert "interrupted after step 7" in said and "keeping the best state so far" in said


def test_nan_in_training_stops_with_the_step(host, monkeypatch):
    monkeypatch.setattr(objective, "pair_nll", lambda *a, **k: objective.gaussian_nll(a[0], a[1]) * float("nan"))
    with pytest.raises(TrainingStopped, match="step 1"): explain(host, small(), SPEC, **KW)


# ---- small sets, unlabelled rows, dead units

def test_forty_pictures(host):
    made = explain(host, small(53), SPEC, **KW)   # 40 to train on
    assert made.certificate.n == 13 and np.isfinite(made.history.best)


@pytest.mark.parametrize("n", range(11, 20))
def test_the_smallest_sets_work_or_say_why(host, n):
    try: assert explain(host, small(n), SPEC, **KW).certificate.n >= 2
    except IINError as e: assert "expected" in str(e) and n < 16


def test_a_class_with_a_single_row_left_after_the_check_rows_are_taken(host):
    images = small()
    n = images.n_train
    learn, check = explanation._parts(images, ())
    assert len(learn) + len(check) == n and len(check) >= 2
    rare = ["rare" if i in (0, n - 1) else "often" if i < n // 2 else "other" for i in range(60)]
    made = explain(host, replace(images, table=images.table.assign(rare=rare)), ["rare"], **KW)
    assert made.concepts[0].classes == ("often", "other", "rare")


def test_check_rows_without_a_pair_of_the_concept(host):
    images = small()
    cut = len(explanation._parts(images, ())[0])
    label = [f"s{i % 2}" if i < cut else None for i in range(60)]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        core._warned.clear()
        made = explain(host, replace(images, table=images.table.assign(early=label)), ["early"], **KW)
    assert made.layout.dims["early"] == 1 and any("share it" in str(w.message) for w in heard)


def test_a_concept_without_pairs_to_learn_from_is_refused(host):
    images = small()
    cut = len(explanation._parts(images, ())[0])
    label = [{0: "a", 1: "b", cut: "a", cut + 1: "b"}.get(i) for i in range(60)]
    for kw in ({}, {"dims": {"late": 1}}):
        with pytest.raises(DataError, match=r"factors \(late\): expected at least two rows that share it"):
            explain(host, replace(images, table=images.table.assign(late=label)), ["late"], **KW, **kw)


def test_unlabelled_rows(host):
    images = small()
    table = images.table.copy()
    table.loc[::2, "shape"] = None
    table.loc[1::3, "light"] = np.nan
    made = explain(host, replace(images, table=table), SPEC, **KW)
    assert made.concepts[0].classes == ("s0", "s1", "s2") and made.certificate.holds


def test_few_labels_put_more_rows_aside():
    images = small(200)
    few = replace(images, table=images.table.assign(shape=images.table["shape"].where(images.table.index % 4 == 0)))
    read = concepts_of(few.table, ["shape"])
    assert len(explanation._parts(few, read)[1]) == round(0.25 * few.n_train)
    assert len(explanation._parts(images, ())[1]) == len(explanation._parts(images, concepts_of(images.table, ["shape"]))[1])


def test_the_baseline_is_linear_and_trains_nothing(host, tmp_path):
    images = small()
    line = explain(host, images, SPEC, **(KW | {"recipe": None}))
    z = host.encode(images.images)
    middle = line.from_z((z[:1] + z[1:2]) / 2).z_tilde
    torch.testing.assert_close(middle, (line.from_z(z[:1]).z_tilde + line.from_z(z[1:2]).z_tilde) / 2, atol=1e-4, rtol=0)
    assert not line.history.rows and line.certificate.holds and line.layout.names == ("residual", "shape", "light")
    line.save(tmp_path/"line.iin")
    again = load(tmp_path/"line.iin", host)
    torch.testing.assert_close(again.from_z(z).z_tilde, line.from_z(z).z_tilde)
    assert "held out while training" not in repr(again)


def test_dead_units_work_with_one_warning():
    host = tapped(dead=2)
    core._warned.clear()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        made = explain(host, small(), SPEC, **KW)
        explain(host, small(), SPEC, **KW)
    assert [str(w.message) for w in heard if "constant" in str(w.message)] == [
        "flow.init_from: 2 of 6 dimensions are constant, e.g. 0; they pass T unchanged."]
    assert made.flow.config.dead == (0, 1) and made.certificate.holds
    assert (made.encode(small().images).residual[:, :2] == 0.25).all()
    with pytest.raises(DataError, match="constant"): explain(host, small(), SPEC, dims={"shape": 3, "light": 2}, **KW)


def test_a_host_of_constants_is_refused():
    with pytest.raises(IINError): explain(tapped(dead=6), small(), None, **KW)
    with pytest.raises(IINError): explain(tapped(dead=4), small(), SPEC, **KW)


# ---- what explain refuses, before training

@pytest.fixture
def no_training(monkeypatch):
    def never(*args, **kw): raise AssertionError("trained on bad input")
    monkeypatch.setattr(objective, "train", never)


@pytest.mark.parametrize("concepts, dims, match", [
    ({"shape": "shap"}, None, "Did you mean 'shape'"),
    (["flat"], None, "at least two values"),
    (["alone"], None, "at least two training rows per value"),
    ({"residual": "shape"}, None, "residual"),
    ({"a b": "shape"}, None, "f.name"),
    (["shape", "shape"], None, "twice"),
    ([], {"shape": 1}, "no factor but"),
    (SPEC, {"shape": 2}, "dims that name shape, light"),
    (SPEC, {"shape": 2, "ligth": 1}, "dims that name shape, light"),
    (SPEC, {"shape": 2, "light": 1, "age": 1}, "dims that name"),
    (SPEC, [2, 1], "dims that name"),
    (SPEC, {"shape": 3, "light": 3}, "sum to 6"),
    (SPEC, {"shape": 2, "light": 1, "residual": 2}, "sum to 6"),
    (SPEC, {"shape": 0, "light": 1}, "positive sizes"),
    (SPEC, {"shape": 2.5, "light": 1}, "whole numbers"),
])
def test_concepts_and_dims_that_cannot_be(host, no_training, concepts, dims, match):
    images = small(flat=1, alone=["x"] + ["y", "z"] * 29 + ["y"])
    place = images.table.index[images.table["alone"] == "x"][0]
    images.table.loc[[0, place], "alone"] = images.table.loc[[place, 0], "alone"].to_numpy()   # a training row
    with pytest.raises(DataError, match=match) as e: explain(host, images, concepts, dims=dims, **KW)
    assert "expected" in str(e.value) and ", got " in str(e.value)


def with_pixel(value, row):
    images = small()
    images.images[row, 0, 1, 1] = value
    return images


@pytest.mark.parametrize("images, error, match", [
    (lambda: with_pixel(float("nan"), 3), DataError, "finite images.*row 3"),
    (lambda: with_pixel(float("inf"), 59), DataError, "finite images.*row 59"),
    (lambda: replace(small(), images=torch.zeros(60, 3, 9, 9)), ShapeError, r"expected inputs \(B, …\) with rows \(3, 8, 8\)"),
    (lambda: replace(small(), images=torch.zeros(60, 1, 8, 8)), ShapeError, "expected inputs"),
    (lambda: replace(small(), images=small().images.double()), ShapeError, "torch.float32, got torch.float64"),
    (lambda: replace(small(), images=(small().images * 100).byte()), ShapeError, "expected inputs"),
    (lambda: small().images, DataError, "expected an ImageSet, got Tensor"),
    (lambda: small().table, DataError, "expected an ImageSet, got DataFrame"),
    (lambda: small().train, DataError, "2 held out, got 45 and 0"),
    (lambda: small().held_out, DataError, "at least 8 images for training and 2 held out, got 0 and 15"),
    (lambda: small().rows(0, 1), DataError, "got 1 and 0"),
    (lambda: small().rows(0, 0), DataError, "got 0 and 0"),
    (lambda: replace(small(), n_train=59), DataError, "got 59 and 1"),
])
def test_image_sets_that_cannot_be(host, no_training, images, error, match):
    with pytest.raises(error, match=match): explain(host, images(), SPEC, **KW)


def test_hosts_that_cannot_be(no_training):
    with pytest.raises(HostError, match="expected a Host, got Tiny. Tap a layer"): explain(Tiny(), small(), SPEC, **KW)
    nan = hosts.from_functions(lambda x: x.flatten(1)[:, :6] * float("nan"), lambda z: z[:, :3], small().images[:4])
    with pytest.raises(DataError, match="finite latents"): explain(nan, small(), SPEC, **KW)


@pytest.mark.parametrize("kw, match", [({"copies": 0}, "copies of 1"), ({"rho": 1.0}, "rho in"), ({"config": FlowConfig(5)}, r"\(B, 5\)"),
                                       ({"config": FlowConfig(6, context_dim=2)}, "context")])
def test_settings_that_cannot_be(host, no_training, kw, match):
    with pytest.raises(IINError, match=match): explain(host, small(), SPEC, **{**KW, **kw})


# ---- certificate

def linear_host(answer): return hosts.from_functions(lambda x: x, answer, torch.randn(4, 4), "linear")


def test_certificate_sees_a_broken_inverse(expl, host):
    class Broken(Flow):
        def inverse(self, z_tilde, context=None):
            z, logdet = super().inverse(z_tilde)
            return z + 0.01 * (torch.arange(6) == 2), logdet

    broken = Broken(expl.flow.config)
    broken.load_state_dict(expl.flow.state_dict())
    x = small().held_out.images
    c = certify(host, broken, x)
    z = host.encode(x)
    assert not c.holds and c.relative_error == pytest.approx(0.01 / float(z.abs().max()), rel=0.01)
    assert c.std_error == pytest.approx(0.01 / float(z.std(0, unbiased=False)[2]), rel=0.01)


def test_same_prediction_counts_changes_and_sets_near_ties_apart():
    z = torch.tensor([[3.0, 0, 0, 1], [0, 3, 0, 2], [1, 1.00005, 0, 3], [0, 2, 2.00005, 4]])
    flow = Flow(FlowConfig(4, n_blocks=1, hidden=4, linear=False)).init_from(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    host = linear_host(lambda z: z[:, :3])
    c = certify(host, flow, z)
    assert (c.n, c.near_ties, c.same_prediction) == (4, 2, 1.0) and "2 near ties apart" in str(c)
    calls = []
    flips = linear_host(lambda z: z[:, :3].flip(1) if calls.append(1) or len(calls) == 3 else z[:, :3])   # tap, before, after
    c = certify(flips, flow, z)
    assert c.same_prediction == 0.5 and c.near_ties == 2 and not c.holds and len(calls) == 3


def test_one_logit_is_read_against_zero():
    before = torch.tensor([[2.0], [-1.0], [0.00001], [1.0]])
    assert explanation._answers(before, before * torch.tensor([[1.0], [1], [-1], [-1]])) == (pytest.approx(2 / 3), 1)
    assert explanation._answers(before * 0, before) == (1.0, 4)


def test_certificate_needs_two_inputs(expl, host):
    for n in (0, 1):
        with pytest.raises(DataError, match=f"at least 2 held-out inputs, got {n}"): certify(host, expl.flow, small().images[:n])


@pytest.mark.parametrize("c, holds", [
    (Certificate(9, 1e-5, 1e-4, None), True), (Certificate(9, 1.1e-5, 1e-5, None), False), (Certificate(9, 1e-6, 1.1e-4, 1.0), False),
    (Certificate(9, 1e-6, 1e-5, 0.999), False), (Certificate(9, float("nan"), 1e-5, 1.0), False)])
def test_certificate_holds_within_its_limits(c, holds):
    assert c.holds == holds and ("holds" if holds else "FAILS") in str(c)


# ---- on disk

def test_round_trip_is_exact(expl, host, tmp_path):
    expl.save(tmp_path / "a.iin")
    again, x = load(tmp_path / "a.iin", host), small().images
    same_tensors(explanation._tensors(expl), explanation._tensors(again))
    assert torch.equal(again.encode(x).z_tilde, expl.encode(x).z_tilde)
    assert torch.equal(again.decode(again.encode(x)), expl.decode(expl.encode(x)))
    for name in ("layout", "concepts", "certificate", "history", "recipe"): assert getattr(again, name) == getattr(expl, name), name
    assert torch.equal(again.maps["z"], expl.maps["z"]) and not again.flow.training and again.host is host
    assert {p.name for p in (tmp_path / "a.iin").iterdir()} == FILES
    again.save(str(tmp_path / "b.iin"))
    for name in FILES: assert (tmp_path / "a.iin" / name).read_bytes() == (tmp_path / "b.iin" / name).read_bytes()


@pytest.mark.parametrize("config", [
    FlowConfig(6, n_blocks=1, hidden=4, linear=False), FlowConfig(6, n_blocks=1, hidden=4, joint=False, depth=0, zero=False),
    FlowConfig(6, n_blocks=3, hidden=5, depth=2, activation="leaky_relu", seed=9), FlowConfig(6, n_blocks=2, hidden=4, lead=4),
    FlowConfig(6, n_blocks=2, hidden=4, shape=(3, 1, 2)),
    FlowConfig(6, n_blocks=1, hidden=4, depth=0, joint=False, shape=(6, 1, 1))], ids=str)
def test_every_shape_of_flow_comes_back(host, tmp_path, config):
    made = explain(host, small(), SPEC, config=config, recipe=BRIEF)
    made.save(tmp_path / "x")
    same_tensors(explanation._tensors(made), explanation._tensors(load(tmp_path / "x", host)))


def test_dead_units_and_double_flows_come_back(tmp_path):
    host = tapped(dead=2)
    made = explain(host, small(), SPEC, **KW)
    made.save(tmp_path / "dead")
    assert load(tmp_path / "dead", host).flow.config.dead == (0, 1)
    made.flow.double()
    made.laws = {k: BlockLaw(law.bank.double(), law.mean.double(), law.root.double()) for k, law in made.laws.items()}
    made.save(tmp_path / "double")
    again = load(tmp_path / "double", host)
    assert next(again.flow.parameters()).dtype == torch.float64
    same_tensors(explanation._tensors(made), explanation._tensors(again))


def test_explanations_from_before_large_latents_load(expl, host, tmp_path):
    expl.save(tmp_path / "x")
    def as_it_was(said):
        del said["flow"]["lead"], said["flow"]["shape"]

    change(tmp_path / "x", as_it_was)
    same_tensors(explanation._tensors(expl), explanation._tensors(load(tmp_path / "x", host)))


def test_class_labels_keep_their_type(host, tmp_path):
    images = small(yes=[i % 2 == 0 for i in range(60)], number=np.arange(60) % 3, word=["ä", "ß"] * 30)
    made = explain(host, images, ["yes", "number", "word"], **KW)
    made.save(tmp_path / "x")
    assert [c.classes for c in load(tmp_path / "x", host).concepts] == [(False, True), (0, 1, 2), ("ß", "ä")]
    odd = replace(made, concepts=(replace(made.concepts[0], classes=(pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01"))),))
    with pytest.raises(DataError, match=r"explanation.save \(yes\): expected classes that are text or numbers, got Timestamp"):
        odd.save(tmp_path / "y")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_saving_replaces_an_explanation_and_nothing_else(expl, host, tmp_path):
    expl.save(tmp_path / "a")
    other = replace(expl, recipe={**expl.recipe, "copies": 99})
    other.save(tmp_path / "a")
    assert load(tmp_path / "a", host).recipe["copies"] == 99
    (tmp_path / "empty").mkdir()
    expl.save(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir(); (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    for name in ("file", "mine", "a"):
        with pytest.raises(DataError, match="something else"): expl.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    for kept in ("file", "mine/notes.txt", "a/notes.txt"): assert (tmp_path / kept).read_text() == "mine"


def test_saving_through_a_link_and_to_here(expl, host, tmp_path, monkeypatch):
    expl.save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    replace(expl, recipe={**expl.recipe, "copies": 7}).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and load(tmp_path / "real", host).recipe["copies"] == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]
    monkeypatch.chdir(tmp_path)
    expl.save("beside")
    assert load("beside", host).layout == expl.layout


def test_unwritable_places_leave_nothing(expl, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"explanation.save: expected room and permission to write .*, got .*\. \S"):
        expl.save(tmp_path / "file" / "x.iin")
    with pytest.raises(DataError): expl.save("/proc/nowhere/x.iin")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_leaves_what_was_there(expl, host, tmp_path, earlier):
    "No file may grow beyond 2 kB here, which the system reports much as it reports a full disk."
    resource = pytest.importorskip("resource")
    target = tmp_path / "new" / "a.iin"
    if earlier: expl.save(target)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
        with pytest.raises(DataError, match="room and permission") as e: replace(expl, recipe={}).save(target)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "free some disk" in str(e.value)
    if earlier: assert load(target, host).recipe == expl.recipe and [p.name for p in target.parent.iterdir()] == ["a.iin"]
    else: assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failing_at_the_last_step_puts_the_old_one_back(expl, host, tmp_path, monkeypatch, error):
    expl.save(tmp_path / "a")
    rename, calls = os.rename, []

    def fails(a, b):
        calls.append(1)
        if len(calls) == 2: raise error
        rename(a, b)

    monkeypatch.setattr(folders.os, "rename", fails)
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt): replace(expl, recipe={}).save(tmp_path / "a")
    monkeypatch.undo()
    assert load(tmp_path / "a", host).recipe == expl.recipe and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_interrupt_while_writing_leaves_nothing(expl, tmp_path, monkeypatch):
    def interrupted(*args, **kw): raise KeyboardInterrupt
    monkeypatch.setattr("safetensors.torch.save", interrupted)
    with pytest.raises(KeyboardInterrupt): save(expl, tmp_path / "deep" / "er" / "a")
    assert list(tmp_path.iterdir()) == []


def test_whoever_may_read_one_file_may_read_the_other(expl, tmp_path):
    expl.save(tmp_path / "a")
    assert len({f.stat().st_mode for f in (tmp_path / "a").iterdir()}) == 1


# ---- hosts at load

def test_the_host_must_be_the_one_that_was_explained(expl, host, tmp_path):
    expl.save(tmp_path / "a")
    with pytest.raises(HostError, match=r"the host 'tiny', tapped at 'body', got none. Pass it"): load(tmp_path / "a")
    stranger = Tiny()
    with torch.no_grad(): stranger.head.bias += 1
    with pytest.raises(HostError, match="other weights"): load(tmp_path / "a", hosts.tap(stranger, "body", small().images[:4]))
    with pytest.raises(HostError, match="Tap the same place"): load(tmp_path / "a", hosts.tap(host.model, "body.1", small().images[:4]))
    with pytest.raises(HostError, match="Tap the same place"): load(tmp_path / "a", linear_host(lambda z: z))
    with pytest.raises(HostError, match=r"expected a Host, got Tiny. Tap .* hosts.tap\(model, 'body', example\)"):
        load(tmp_path / "a", host.model)
    assert isinstance(load(tmp_path / "a", tapped()), Explanation), "the same weights in another object"


def test_a_shipped_host_is_found_by_name(tmp_path):
    digits = data.color_digits()
    some = data.ImageSet(digits.images[:120], digits.table[:120], 100)
    made = explain(zoo.load("digits-classifier"), some, None, config=FlowConfig(64, n_blocks=1, hidden=8), recipe=BRIEF)
    made.save(tmp_path / "a")
    assert torch.equal(load(tmp_path / "a").decode(made.encode(some.images)), made.decode(made.encode(some.images)))
    change(tmp_path / "a", lambda said: said["host"].update(fingerprint="0" * 64))
    with pytest.raises(HostError, match="other weights"): load(tmp_path / "a")


# ---- damaged and hostile folders

def change(folder, edit):
    said = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    said.pop("seal", None)   # or the seal would tell, and nothing else be tested
    said = edit(said) or said
    (folder / "explanation.json").write_text(json.dumps(said), encoding="utf-8")


def tensors(folder, edit):
    from safetensors.torch import load_file, save_file
    found = load_file(folder / "tensors.safetensors")
    edit(found)
    save_file(found, folder / "tensors.safetensors")
    change(folder, lambda said: {k: v for k, v in said.items() if k != "sha256"})   # or the sum would tell, and nothing else be tested


@pytest.fixture
def folder(expl, tmp_path):
    expl.save(tmp_path / "a.iin")
    return tmp_path / "a.iin"


class Bomb:
    def __reduce__(self): return os.system, ("touch exploded",)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "cut", "pickle", "noise", "folder"])
def test_damaged_files(folder, host, tmp_path, monkeypatch, name, damage):
    monkeypatch.chdir(tmp_path)
    path, raw = folder / name, (folder / name).read_bytes()
    path.unlink()
    if damage == "folder": path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "half": raw[:len(raw) // 2], "cut": raw[:-1], "pickle": pickle.dumps(Bomb()),
                          "noise": np.random.RandomState(0).bytes(5000)}[damage])
    with pytest.raises(DataError, match=r"explanation.load: expected .*, got .*\. \S"): load(folder, host)
    assert [p.name for p in tmp_path.iterdir()] == ["a.iin"], "nothing was executed"


@pytest.mark.parametrize("path", ["", "nothing", "a.iin/explanation.json"])
def test_paths_without_an_explanation(folder, host, tmp_path, path):
    with pytest.raises(DataError, match="explanation.load"): load(tmp_path / path, host)


KEYS = ["format", "host", "flow", "layout", "concepts", "certificate", "history", "recipe"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["missing", None, 7, "text", [1, 2], {"a": 1}])
def test_missing_keys_and_wrong_types(folder, host, key, value):
    if (key, value) == ("recipe", {"a": 1}): value = True   # any dict may describe a recipe
    change(folder, lambda said: said.pop(key) if value == "missing" else said.__setitem__(key, value))
    with pytest.raises(DataError, match="explanation.load"): load(folder, host)


@pytest.mark.parametrize("edit", [
    {"n_blocks": 10**9}, {"depth": 10**9}, {"hidden": 10**7}, {"dim": 10**7}, {"dim": 5}, {"context_dim": 10**6}, {"n_blocks": 0},
    {"n_blocks": -2}, {"n_blocks": 2.0}, {"n_blocks": "2"}, {"n_blocks": True}, {"hidden": None}, {"dim": 64.5}, {"joint": False},
    {"linear": False}, {"dead": [1]}, {"dead": list(range(1000))}, {"dead": ["x"]}, {"activation": "relu6"},
    {"activation": "__import__('os').system('true')"}, {"seed": 2**80}, {"seed": "0"}, {"extra": 1}, {"n_blocks": 1, "depth": 6},
    {"lead": 4}, {"lead": 10**9}, {"lead": -2}, {"lead": "4"}, {"lead": True}, {"shape": [3, 1, 2]}, {"shape": [6, 1, 1]}, {"shape": 6},
    {"shape": [-3, -1, 2]}, {"shape": ["3", 1, 2]}, {"shape": [10**9, 1, 1]}], ids=str)
def test_descriptions_of_another_flow(folder, host, edit):
    change(folder, lambda said: said["flow"].update(edit))
    with pytest.raises(DataError, match="explanation.load"): load(folder, host)


@pytest.mark.parametrize("edit", [
    lambda s: s.update(layout={"residual": 5, "shape": 1}),
    lambda s: s.update(layout={**s["layout"], "residual": 10**9}),
    lambda s: s.update(layout={"../../x": 1, "shape": 1, "light": 1, "residual": 3}),
    lambda s: s["certificate"].update(relative_error="0"),
    lambda s: s["certificate"].update(extra=1), lambda s: s["certificate"].pop("n"),
    lambda s: s["history"].update(rows=[{"step": 1}]),
    lambda s: s["history"].update(rows=[[1, 2]]), lambda s: s["concepts"][0].update(name="../x"),
    lambda s: s["concepts"][0].update(columns="shape"),
    lambda s: s["concepts"][0].update(classes=[["a"], {}]), lambda s: s["concepts"][1].update(mean=[]), lambda s: s["concepts"].append(3),
    lambda s: s["host"].pop("name"), lambda s: s["host"].update(extra=1), lambda s: s.update(format=2), lambda s: s.update(format="1"),
    lambda s: [s]])
def test_other_edits(folder, host, edit):
    change(folder, lambda said: found if isinstance(found := edit(said), list) else None)
    with pytest.raises(DataError, match="explanation.load"): load(folder, host)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "digits-judge", "/etc/passwd", "", "digits-classifier/../x"])
def test_a_host_name_leads_nowhere(folder, name):
    change(folder, lambda said: said["host"].update(name=name))
    with pytest.raises(HostError, match="got none"): load(folder)


@pytest.mark.parametrize("edit", [
    lambda t: t.pop("flow/order"), lambda t: t.pop("law/shape/root"), lambda t: t.update({"flow/extra": torch.zeros(1)}),
    lambda t: t.update({"flow/order": t["flow/order"].roll(1)}), lambda t: t.update({"flow/order": t["flow/order"] + 50}),
    lambda t: t.update({"flow/blocks.0.weight": torch.zeros(6, 6)}),
    lambda t: t.update({"flow/blocks.4.back": torch.zeros(6, dtype=torch.long)}),
    lambda t: t["flow/blocks.1.loc"].fill_(float("nan")), lambda t: t["law/shape/bank"].fill_(float("inf")),
    lambda t: t["map/z"].fill_(float("nan")), lambda t: t.update({"flow/blocks.1.ready": torch.tensor(False)}),
    lambda t: t.update({"law/shape/bank": torch.zeros(5, 9)}), lambda t: t.update({"law/light/mean": torch.zeros(7)}),
    lambda t: t.update({"law/light/bank": torch.zeros(0, 1)}), lambda t: t.update({"flow/blocks.1.loc": torch.zeros(7)}),
    lambda t: t.update({"flow/blocks.2.nets.0.0.weight": torch.zeros(8, 30)})])
def test_tensors_that_do_not_belong(folder, host, edit):
    tensors(folder, edit)
    with pytest.raises(DataError, match="explanation.load"): load(folder, host)


def test_copies_of_a_folder_are_as_good(folder, host, tmp_path):
    shutil.copytree(folder, tmp_path / "sent")
    assert load(tmp_path / "sent", host).layout == load(folder, host).layout


def test_unknown_shipped_names_are_refused():
    for name in ("digits", "../digits-classifier"):
        with pytest.raises(DataError): explanation.shipped(name)


@pytest.mark.parametrize("stopped, best, warns", [
    ("finished", 20, True), ("early", 20, True), ("finished", 80, False), ("interrupted", 20, False)])
def test_overfitting_is_said(stopped, best, warns):
    rows = [{"step": k, "held_out": abs(k - best) / 10} for k in (20, 40, 60, 80, 100)]
    core._warned.clear()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        explanation._warn_overfit(History(rows, stopped, best))
    assert [("best on pictures put aside at step 20 of 100" in str(w.message)) for w in heard] == [True] * warns


def test_encode_refuses_what_is_not_finite(host):
    made = explain(host, small(), SPEC, **KW)
    x = small().images[:3].clone()
    x[1] = math.nan
    with pytest.raises(DataError, match=r"explanation.encode: expected finite z, .* row 1"): made.encode(x)


def test_a_wrong_shipped_name_lists_the_right_ones():
    with pytest.raises(DataError, match="one of digits-classifier, digits-autoencoder, got 'digits'"): explanation.shipped("digits")
