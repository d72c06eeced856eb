"""One loop: best weights back, every way out of it clean, the same seed the same run, nothing outside touched."""
import io
import math
import pickle
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn
from tqdm import std as tqdm_std

from iin_nb.core import DataError, IINError
from iin_nb.fit import History, Recipe, TrainingStopped, learning_rate, train

FLAT = {"schedule": "constant", "weight_decay": 0.0}
LONG = Recipe(n_steps=1000, lr=0.01, eval_every=10, **FLAT)


class Dial(nn.Module):
    "One weight that training pushes up by about lr a step; the held-out loss is a curve over it."

    def __init__(self, start=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(float(start)))

    def value(self): return self.w.item()


def turn(module, held_out, recipe, at=None, action=None, **kw):
    "Push the weight up; do `action` in the step `at`."
    def train_loss(step):
        if step == at: return action()
        return -module.w

    return train(module, train_loss, lambda: held_out(module.value()), recipe, **kw)


def interrupt(): raise KeyboardInterrupt


def nan(): return torch.tensor(float("nan"), requires_grad=True) * 1


# ---- recipe, schedule

@pytest.mark.parametrize("wrong", [{"n_steps": 0}, {"eval_every": 0}, {"lr": 0.0}, {"lr": math.nan}, {"lr": math.inf}, {"clip": 0.0},
                                   {"weight_decay": -1.0}, {"patience": -1}, {"max_seconds": -1.0}, {"first_eval": -1},
                                   {"schedule": "cosine"}])
def test_recipe_refuses(wrong):
    with pytest.raises(DataError, match=f"fit.Recipe: expected {next(iter(wrong))} to be"): Recipe(**wrong)


@pytest.mark.parametrize("lr", [1e-4, 3.0])
def test_one_cycle(lr):
    rates = [learning_rate(i / 1000, Recipe(lr=lr)) for i in range(1001)]
    assert max(rates) == pytest.approx(lr) and rates.index(max(rates)) == 200
    assert rates[:201] == sorted(rates[:201]) and rates[200:] == sorted(rates[200:], reverse=True)
    assert rates[0] == pytest.approx(0.04 * lr) and rates[-1] == pytest.approx(0.01 * lr)
    assert max(abs(a - b) for a, b in zip(rates, rates[1:], strict=False)) < 0.01 * lr, "a jump"


def test_constant(): assert {learning_rate(p / 10, Recipe(lr=2.0, schedule="constant")) for p in range(11)} == {2.0}


# ---- the best weights

def test_early_looks_change_nothing_but_what_may_be_kept():
    "At 5, 10, 20 … until eval_every: a best that passes at once is found, and otherwise the run is the same."
    early, late = Dial(), Dial()
    recipe = Recipe(n_steps=200, lr=0.01, eval_every=50, **FLAT)
    looked = turn(early, lambda w: (w - 0.1) ** 2, replace(recipe, first_eval=5))
    assert [r["step"] for r in looked.rows] == [5, 10, 20, 40, 50, 100, 150, 200]
    assert (looked.best_step, looked.by_heart) == (10, True) and early.value() == pytest.approx(0.1, abs=0.02)
    plain = turn(late, lambda w: (w - 0.1) ** 2, recipe)
    assert [r["step"] for r in plain.rows] == [50, 100, 150, 200] and plain.best_step == 50
    assert [r["held_out"] for r in plain.rows] == [r["held_out"] for r in looked.rows[4:]]
    assert [r["step"] for r in turn(Dial(), lambda w: -w, replace(recipe, first_eval=60)).rows] == [50, 100, 150, 200]
    assert not turn(Dial(), lambda w: -w, replace(recipe, first_eval=5)).by_heart
    assert turn(Dial(), lambda w: w, replace(recipe, first_eval=5, patience=3)).stopped == "early"


def test_best_weights_come_back():
    dial = Dial()
    history = turn(dial, lambda w: (w - 0.5) ** 2, Recipe(n_steps=100, lr=0.01, eval_every=10, **FLAT))
    assert dial.value() == pytest.approx(0.5, abs=0.02)
    assert (history.stopped, history.best_step) == ("finished", 50)
    assert history.best == pytest.approx((dial.value() - 0.5) ** 2, abs=1e-9)
    assert [r["step"] for r in history.rows] == list(range(10, 101, 10))


def test_early_stopping():
    dial = Dial()
    history = turn(dial, lambda w: abs(w - 0.5), Recipe(n_steps=1000, lr=0.01, eval_every=10, patience=3, **FLAT))
    assert (history.stopped, history.best_step, history.rows[-1]["step"]) == ("early", 50, 80)
    assert dial.value() == pytest.approx(0.5, abs=0.02)


def test_last_step_is_evaluated():
    history = turn(Dial(), lambda w: -w, Recipe(n_steps=25, lr=0.01, eval_every=10, **FLAT))
    assert [r["step"] for r in history.rows] == [10, 20, 25] and history.best_step == 25


def test_buffers_come_back_too():
    norm = nn.BatchNorm1d(2)
    scores = iter([0.0, 1.0])
    kept = []
    def held_out():
        kept.append(norm.running_mean.clone())
        return next(scores)
    def train_loss(step): return norm(torch.full((4, 2), float(step)) + torch.randn(4, 2)).square().mean()
    train(norm, train_loss, held_out, Recipe(n_steps=2, eval_every=1))
    assert torch.equal(norm.running_mean, kept[0]) and not torch.equal(kept[0], kept[1])


def test_max_seconds():
    history = turn(Dial(), lambda w: -w, Recipe(n_steps=10**9, lr=0.1, eval_every=10**8, max_seconds=0.3))
    assert history.stopped == "time" and 0.3 <= history.seconds < 3
    assert len(history.rows) == 1 and history.rows[0]["lr"] == pytest.approx(1e-3)   # cooled down by the clock, evaluated once


def test_eval_mode_and_gradients():
    seen = []
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    def held_out():
        seen.append((model.training, torch.is_grad_enabled()))
        return 1.0
    def train_loss(step):
        assert model.training and torch.is_grad_enabled()
        return model(torch.ones(4, 1)).sum()
    model.eval()
    train(model, train_loss, held_out, Recipe(n_steps=4, eval_every=2))
    assert seen == [(False, False)] * 2 and not model.training


def test_gradients_are_clipped():
    dial = Dial()
    train(dial, lambda step: 1e6 * dial.w if step == 1 else dial.w, lambda: dial.value(), Recipe(n_steps=2, lr=1e-3, clip=1.0, **FLAT))
    assert dial.value() == pytest.approx(-2e-3, rel=1e-3)   # AdamW's second step would be far from lr had the first gradient been 1e6


# ---- ways out

def test_ctrl_c_keeps_the_best(capsys):
    dial = Dial()
    history = turn(dial, lambda w: abs(w - 0.5), LONG, 95, interrupt, desc="dial", unit="bits")
    assert (history.stopped, history.best_step) == ("interrupted", 50) and dial.value() == pytest.approx(0.5, abs=0.02)
    said = capsys.readouterr().out
    assert "dial: interrupted after step 94; keeping the best state so far (step 50, held out" in said and "bits" in said
    assert not dial.training


def test_ctrl_c_before_the_first_evaluation_keeps_the_present(capsys):
    dial = Dial()
    history = turn(dial, lambda w: w, Recipe(n_steps=1000, lr=0.01, **FLAT), 31, interrupt)
    assert dial.value() == pytest.approx(0.3, abs=0.01) and (history.best_step, history.rows) == (0, [])
    assert math.isnan(history.best)
    assert "interrupted after step 30; keeping the present state" in capsys.readouterr().out


def test_ctrl_c_before_the_first_evaluation_does_not_keep_broken_weights():
    dial = Dial(0.25)
    def spoil():
        with torch.no_grad(): dial.w.fill_(float("nan"))
        raise KeyboardInterrupt
    turn(dial, lambda w: w, Recipe(n_steps=1000, lr=0.01, **FLAT), 31, spoil)
    assert dial.value() == 0.25


def test_ctrl_c_during_evaluation():
    dial = Dial()
    seen = []
    def held_out(w):
        seen.append(w)
        if len(seen) == 3: raise KeyboardInterrupt
        return w
    history = turn(dial, held_out, Recipe(n_steps=100, lr=0.01, eval_every=10, **FLAT))
    assert (history.stopped, history.best_step, len(history.rows)) == ("interrupted", 10, 2) and dial.value() == pytest.approx(seen[0])


@pytest.mark.parametrize("action", [nan, lambda: torch.tensor(float("inf"), requires_grad=True) * 1])
def test_nan_names_the_batch_and_keeps_the_best(action):
    dial = Dial()
    said = r"fit.train \(dial\): expected a finite loss, got NaN or Inf in the batch of step 95\. The last good state"
    with pytest.raises(TrainingStopped, match=said) as e: turn(dial, lambda w: abs(w - 0.5), LONG, 95, action, desc="dial")
    assert dial.value() == pytest.approx(0.5, abs=0.02) and not dial.training
    history = e.value.history
    assert (history.stopped, history.best_step, history.rows[-1]["step"]) == ("nan", 50, 90) and isinstance(e.value, IINError)
    assert pickle.loads(pickle.dumps(e.value)).history == history


def test_nan_in_the_gradient_alone():
    dial = Dial(1.0)
    with pytest.raises(TrainingStopped, match="a finite gradient, .* step 3"):
        turn(dial, lambda w: w, Recipe(n_steps=10, **FLAT), 3, lambda: (dial.w - dial.w).sqrt())
    assert math.isfinite(dial.value()) and dial.value() > 1


def test_nan_before_the_first_evaluation_keeps_what_was_learned():
    dial = Dial()
    with pytest.raises(TrainingStopped): turn(dial, lambda w: w, Recipe(n_steps=1000, lr=0.01, **FLAT), 31, nan)
    assert dial.value() == pytest.approx(0.3, abs=0.01)


def test_a_batch_of_nan_does_not_stay_in_batch_norm():
    norm = nn.BatchNorm1d(2)
    with pytest.raises(TrainingStopped):
        train(norm, lambda step: norm(torch.full((4, 2), float("nan"))).mean(), lambda: 0.0, Recipe(n_steps=5))
    assert all(torch.isfinite(t).all() for t in norm.state_dict().values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_held_out_nan_is_not_silent(value):
    dial = Dial()
    with pytest.raises(TrainingStopped, match="finite held-out loss, got (nan|inf) after step 20") as e:
        turn(dial, lambda w: 1.0 if w < 0.15 else value, Recipe(n_steps=100, lr=0.01, eval_every=10, **FLAT))
    assert dial.value() == pytest.approx(0.1, abs=0.01) and len(e.value.history.rows) == 1


def test_other_errors_come_through_with_the_best_weights():
    dial = Dial()
    def boom(): raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError): turn(dial, lambda w: abs(w - 0.5), LONG, 95, boom)
    assert dial.value() == pytest.approx(0.5, abs=0.02) and not dial.training


def test_nothing_to_train():
    with pytest.raises(DataError, match="parameters to train"): train(nn.ReLU(), lambda step: None, lambda: 0.0)


# ---- seeds

def noisy(recipe):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    torch.manual_seed(99)
    history = train(model, lambda step: model(torch.randn(16, 3)).square().mean(), lambda: model(torch.ones(4, 3)).square().mean(), recipe)
    return model, history, torch.rand(3).tolist()


def test_same_seed_same_run_and_outside_untouched():
    recipe = Recipe(n_steps=40, eval_every=10, seed=3)
    (a, first, after), (b, second, _) = noisy(recipe), noisy(recipe)
    other, *_ = noisy(Recipe(n_steps=40, eval_every=10, seed=4))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert [r["held_out"] for r in first.rows] == [r["held_out"] for r in second.rows]
    assert not torch.equal(a[0].weight, other[0].weight)
    torch.manual_seed(99)
    assert torch.rand(3).tolist() == after


# ---- what is seen of it

def test_progress_bar_shows_held_out_and_unit():
    text = io.StringIO()
    class Caught(tqdm_std.tqdm):
        def __init__(self, *args, **kw):
            super().__init__(*args, **kw | {"file": text, "disable": False, "mininterval": 0, "ncols": 120})
    with mock.patch("tqdm.auto.tqdm", Caught):
        turn(Dial(), lambda w: 7.125, Recipe(n_steps=4, eval_every=2), desc="dial", unit="bits")
    last = [part for part in text.getvalue().split("\r") if "held out" in part][-1]
    assert last.startswith("dial:") and "4/4" in last and "held out 7.125 bits" in last


def test_history_frame():
    history = turn(Dial(), lambda w: 1.0, Recipe(n_steps=6, eval_every=2))
    assert list(history.frame().columns) == ["step", "seconds", "train", "held_out", "lr"]
    assert history.frame()["step"].tolist() == [2, 4, 6] and history.frame()["seconds"].is_monotonic_increasing
    assert list(History().frame().columns) == ["step", "seconds", "train", "held_out", "lr"]
    assert "finished after 6 steps" in repr(history) and "nats" in repr(history)


def test_train_is_the_mean_since_the_last_evaluation():
    dial = Dial()
    history = train(dial, lambda step: dial.w * 0 + step, lambda: 0.0, Recipe(n_steps=6, eval_every=3))
    assert [r["train"] for r in history.rows] == [2, 5]
