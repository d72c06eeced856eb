"""The command line: what it refuses and how, what it says while it works, what it leaves behind."""
import functools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version

import pytest

from iin_nb import cli, core, data, embed, explanation, objective, report, response, scores, zoo
from iin_nb.fit import History


class Made:
    "Maps that are ready: those the atlas has."

    def __init__(self, atlas): self.atlas = atlas

    def result(self, timeout): return self.atlas


def few_digits():
    "700 of the embedded digits in color, 200 of them held out."
    gray, labels = data.digits()
    return data.color_set(data.strokes(gray[:700]), labels[:700], 500)


EXPLAIN = functools.partial(explanation.explain, recipe=replace(objective.RECIPE, n_steps=6, eval_every=3), copies=1)


@pytest.fixture(scope="module")
def explained(): return EXPLAIN(zoo.load("digits-classifier"), few_digits(), cli.CONCEPTS)


@pytest.fixture
def small(monkeypatch):
    "The whole demo in small: 700 digits, six steps of T, a handful of draws, no UMAP."
    monkeypatch.setattr(data, "color_digits", few_digits)
    monkeypatch.setattr(explanation, "explain", EXPLAIN)
    monkeypatch.setattr(scores, "score", functools.partial(scores.score, n_inputs=5, n_draws=4, n_walks=1))
    monkeypatch.setattr(scores, "judged_swaps", functools.partial(scores.judged_swaps, n=40))
    monkeypatch.setattr(report, "answers", lambda expl, f, k, n, **kw: response.answers(expl, f, k, 30, **kw))
    monkeypatch.setattr(zoo, "judge", lambda: lambda x: x.flatten(1)[:, 500:510])
    monkeypatch.setattr(embed, "start_maps", lambda atlas, names, seed, after: Made(atlas))
    monkeypatch.setattr(embed, "SHIPPED", ())
    for kind in cli.KINDS: monkeypatch.setitem(zoo.RECIPES, kind, replace(zoo.RECIPES[kind], n_steps=2, eval_every=1))


@pytest.fixture
def hollow(small, explained, monkeypatch):
    "The same without training, measuring and drawing; what `report.write` was given."
    given = []
    monkeypatch.setattr(explanation, "explain", lambda *a, **kw: explained)
    monkeypatch.setattr(scores, "score", lambda *a, **kw: {"seconds": 0.0})
    monkeypatch.setattr(report, "write", lambda folder, images, judge, found, **kw: given.append(found) or {})
    monkeypatch.setattr(report, "table", lambda made: "")
    return given


def interrupted(*args, **kw): raise KeyboardInterrupt


# ---- what it refuses

@pytest.mark.parametrize("argv, said", [
    ([], "expected a command, got none"),
    (["demo", "--fast"], "unrecognized arguments: --fast"),
    (["dmeo"], "invalid choice: 'dmeo'"),
    (["demo", "--seed", "one"], "expected a whole number from 0"),
    (["demo", "--seed=-1"], "expected a whole number from 0"),
    (["demo", "--seed", str(2**32)], "expected a whole number from 0"),
    (["demo", "--quick", "--from-scratch"], "expected --quick or --from-scratch, got both"),
])
def test_a_wrong_command_line(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end: cli.main(argv)
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"iin-nb {version('iin_nb')}\n"
    with pytest.raises(SystemExit) as end: cli.main(["demo", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--out", "--from-scratch", "--quick", "--seed"))


def test_it_answers_before_pytorch_is_loaded():
    code = "import sys, iin_nb.cli as c; c.main(['--version']); print('torch' in sys.modules)"
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[-1] == "False" and time.perf_counter() - start < 10


@pytest.mark.parametrize("out, said", [
    ("file", "room and permission"), ("file/below", "room and permission"), ("taken", "a folder of that name")])
def test_a_folder_that_cannot_be_written_is_refused_at_once(out, said, tmp_path, capsys, monkeypatch):
    (tmp_path/"file").write_text("in the way")
    (tmp_path/"taken"/"scores.json").mkdir(parents=True)
    monkeypatch.setattr(data, "color_digits", lambda: pytest.fail("work was begun"))
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["demo", "--out", str(tmp_path/out)]) == 2
    assert said in (err := capsys.readouterr().err) and err.startswith("iin-nb: ") and "Choose another" in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_trial_leaves_nothing(tmp_path):
    cli.check_folder(tmp_path/"a"/"b")
    assert not list(tmp_path.iterdir())
    (tmp_path/"kept.txt").write_text("mine")
    cli.check_folder(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_a_damaged_checkpoint_is_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path/"registry.json").write_bytes((core.assets()/"registry.json").read_bytes())
    monkeypatch.setattr(core, "assets", lambda: tmp_path)
    assert cli.main(["demo", "--out", str(tmp_path/"out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("iin-nb: core.asset: expected the shipped file") and err.count("\n") == 1 and not (tmp_path/"out").exists()


def test_a_fault_of_ours_is_not_dressed_up(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "demo", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError): cli.main(["demo", "--out", str(tmp_path)])


# ---- interrupts

@pytest.mark.parametrize("where, what", [(zoo, "judge"), (explanation, "explain"), (scores, "score"), (report, "write")])
def test_ctrl_c_anywhere_leaves_nothing(hollow, where, what, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(where, what, interrupted)
    assert cli.main(["demo", "--out", str(tmp_path/"out")]) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_ctrl_c_while_t_trains_is_no_result(hollow, explained, tmp_path, capsys, monkeypatch):
    "Training itself keeps the best state; the demo does not report on it."
    monkeypatch.setattr(explanation, "explain", lambda *a, **kw: replace(explained, history=History(stopped="interrupted")))
    assert cli.main(["demo", "--out", str(tmp_path/"out")]) == 130 and not list(tmp_path.iterdir())


def test_ctrl_c_while_a_host_trains_is_no_result(hollow, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "train", lambda *a, **kw: (zoo.Classifier(), History(stopped="interrupted")))
    assert cli.main(["demo", "--from-scratch", "--out", str(tmp_path/"out")]) == 130 and not list(tmp_path.iterdir())


# ---- the run

@pytest.mark.parametrize("flags", [pytest.param([], marks=pytest.mark.slow), ["--from-scratch", "--seed", "3"]])
def test_the_demo_in_small(small, flags, tmp_path, capsys):
    out = tmp_path/"new"/"out"
    assert cli.main(["demo", "--out", str(out), *flags]) == 0
    said = capsys.readouterr().out
    pages = ["factors-autoencoder.html", "factors-classifier.html", "response-classifier.html"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*pages, "report.html", "scores.json"])
    text = (out/"report.html").read_text(encoding="utf-8")
    assert all(f'href="{name}"' in text and "<div class='control'>" in (out/name).read_text(encoding="utf-8") for name in pages)
    assert all(str(out.resolve()/name) in said for name in (*pages, "report.html")) and "the digit classifier’s answer" in said
    made = json.loads((out/"scores.json").read_text(encoding="utf-8"))
    assert made["seed"] == (3 if flags else 0)
    for kind in cli.KINDS:
        s = made[kind]
        assert s["certificate"]["relative_error"] < 1e-4 and sum(s["dims"].values()) == 64
        assert s["seconds"] > s["scoring_seconds"] > 0 and s["training_seconds"] > 0
        assert f"{kind}: training T" not in said and f"{kind}: scoring on 200 held-out digits" in said
        assert (f"{kind}: training the host" in said) == ("--from-scratch" in flags)
    assert said.splitlines()[0].split("s  ")[1].startswith("loading PyTorch") and "Open the first of these:" in said
    assert made["classifier"]["certificate"]["same_prediction"] == 1.0
    if flags: assert made["classifier"]["accuracy"] < 0.9, "two steps of training are reported as they are"


def test_quick_loads_the_shipped_t(hollow, explained, tmp_path, monkeypatch):
    made = {f"digits-{kind}": replace(explained, recipe={"of": kind}) for kind in cli.KINDS}
    monkeypatch.setattr(explanation, "shipped", lambda name: made[name])
    monkeypatch.setattr(explanation, "explain", lambda *a, **kw: pytest.fail("T was trained"))
    assert cli.main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    assert {kind: expl for kind, (expl, _, _) in hollow[0].items()} == {kind: made[f"digits-{kind}"] for kind in cli.KINDS}


def test_idle_threads_sleep():
    "Set before PyTorch is loaded, and never against the user's own setting."
    code = "import sys, os, iin_nb; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for own, after in ({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"):
        said = subprocess.run([sys.executable, "-c", code], env=clean | own, capture_output=True, text=True, check=True).stdout
        assert said.strip() == after


def test_only_missing_maps_are_made(hollow, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(embed, "start_maps", lambda atlas, names, seed, after: (asked.append((names, seed)), Made(atlas))[1])
    assert cli.main(["demo", "--seed", "5", "--out", str(tmp_path)]) == 0
    assert asked == [(["z", "digit_1d", "color_1d"], 5)] * 2
