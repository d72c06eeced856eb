"""The translation explorer: what a condition may be, that held codes stay, what the line is, how near a sentence is, what a page holds."""
import json
import re
import time

import numpy as np
import pandas as pd
import pytest
import torch

from iin_nb import data, hosts, latents
from iin_nb.core import DataError, HostError, IINError
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.translation import EmbedderConfig
from iin_nb.translation import translate as train

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import translate_panel as P

N, D = 60, 6
MIX = torch.randn(192, D, generator=torch.Generator().manual_seed(5)) / 8
SENTENCES = [f"{size} {thing}" for size in ("a small", "a large", "one") for thing in ("tree", "house", "boat", "e e")]


class Letters:
    "Texts to numbers, in a tiny way."
    def encode(self, texts): return torch.tensor([[float(t.count(k)) for k in "abcdelorst"] for t in texts]) + 0.1


def pictures(n=N): return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def painter(outputs="images"):
    back = torch.linalg.pinv(MIX)
    decode = (lambda z: (z @ back).reshape(-1, 3, 8, 8).clamp(-1, 1)) if outputs == "images" else lambda z: z[:, :3]
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, decode, pictures(4), "painter")


def image_set():
    g = torch.Generator().manual_seed(2)
    table = pd.DataFrame({"kind": np.resize(["a", "<i>", "c"], N), "light": torch.rand(N, generator=g).numpy()})
    return data.ImageSet(pictures(), table, 45, "noise")


def trained(kind, dst=None):
    "A translation of a few steps: what it paints means nothing, but all of it can be checked."
    quick = dict(config=FlowConfig(D, n_blocks=2, hidden=8), embedder=EmbedderConfig(width=6, hidden=8), batch=16, copies=1, baseline=False,
                 recipe=Recipe(n_steps=8, lr=3e-3, eval_every=4))
    if kind == "text": return train(Letters(), dst or painter(), ([SENTENCES[i % 12] for i in range(N)], pictures()), **quick)
    if kind == "columns": return train(["kind", "light"], dst or painter(), image_set(), **quick)
    if kind == "numbers": return train(None, dst or painter(), (pictures().flatten(1)[:, :4], pictures()), **quick)
    nine = hosts.from_functions(lambda x: x.flatten(1)[:, :9], lambda z: z, pictures(4), "nine")
    return train(nine, dst or painter(), image_set(), **quick)


@pytest.fixture(scope="module")
def ready():
    "{kind: (translation, what to choose from)}"
    given = {"text": SENTENCES, "columns": image_set(), "rows": image_set(), "numbers": pictures().flatten(1)[:, :4]}
    return {k: (trained(k), x) for k, x in given.items()}


OTHER = {"text": "a tall boat", "columns": {"kind": "c", "light": 0.25}, "rows": 7, "numbers": 7}
KINDS = pytest.mark.parametrize("kind", OTHER)


def read(x): return x.flatten(1)[:, :3] * 9


# ---- the state

@KINDS
def test_at_the_ends_it_is_sample(ready, kind):
    t, x = ready[kind]
    s = P.TranslateState(t, x, seed=3)
    s.go(b=OTHER[kind])
    for w, value in ((0.0, s.a), (1.0, s.b)):
        s.go(w=w)
        want = t.sample(s.conditions.inputs(value), v=t.draw(s.n, 1, 3))[:, 0]
        torch.testing.assert_close(s.look().output, want, atol=1e-5, rtol=1e-4)


@KINDS
def test_the_line_is_interpolate_with_the_samples_own_codes(ready, kind):
    t, x = ready[kind]
    s = P.TranslateState(t, x, b=OTHER[kind])
    assert s.line() == [] and sum(iter(s.line_step, False)) == P.CODES
    for k, row in enumerate(s.line()):
        want = t.interpolate(*(s.conditions.inputs(v) for v in (s.a, s.b)), P.STEPS, v=s.codes(P.CODES)[k:k + 1])[:, 0]
        torch.testing.assert_close(row.output, want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(row.output[0], s.look().output[k], atol=1e-5, rtol=1e-4)
    s.go(temperature=0.5)
    assert s.line() == [], "another temperature, another line"


@KINDS
def test_v_is_held_unless_told_otherwise(ready, kind):
    s = P.TranslateState(*ready[kind])
    v = s.codes(4)
    s.go(a=OTHER[kind], w=0.3)
    assert torch.equal(s.codes(4), v) and s.seed == 0
    s.go(hold=False)
    assert s.seed == 0, "nothing has moved yet"
    s.go(w=0.4)
    assert s.seed == 1 and not torch.equal(s.codes(4), v)
    s.go(w=0.5, seed=8)
    assert s.seed == 8
    s.go(temperature=0.0)
    assert s.look().output.std(0).max() < 1e-5


@KINDS
@pytest.mark.parametrize("slip", [dict(a=None), dict(b=[1]), dict(w=1.1), dict(n=0), dict(n=1000), dict(temperature=-0.1), dict(seed=-1),
                                  dict(z=1)])
def test_slips_are_refused_and_change_nothing(ready, kind, slip):
    s = P.TranslateState(*ready[kind])
    before = s.a, s.b, s.w, s.n, s.temperature, s.seed
    with pytest.raises(DataError, match=r"expected .*, got .*\. \S"): s.go(**{"w": 0.9, **slip})
    assert (s.a, s.b, s.w, s.n, s.temperature, s.seed) == before


def test_what_cannot_be_asked_is_refused(ready):
    for kind in ("text", "rows", "numbers"):
        with pytest.raises(DataError, match="explorers.translate"): explorers.translate(ready[kind][0])
    with pytest.raises(DataError, match="row 0 to 59"): P.TranslateState(*ready["rows"], a=60)
    with pytest.raises(IINError): P.TranslateState(*ready["columns"], a={"kind": "z", "light": 0.0})
    alone = train(None, None, (pictures().flatten(1)[:, :4], latents.from_array(pictures().flatten(1) @ MIX, image_set().table)),
                  FlowConfig(D, n_blocks=1, hidden=8), recipe=Recipe(n_steps=2, eval_every=2), baseline=False)
    for t in (alone, trained("rows", painter("logits"))):
        with pytest.raises(HostError, match="a host that paints"): explorers.translate(t, image_set())


def test_columns_need_no_data(ready):
    s = P.TranslateState(ready["columns"][0])
    light = s.t.source.concepts[1]
    assert (s.a["kind"], s.b["kind"]) == ("<i>", "c") and s.a["light"] == pytest.approx(light.mean[0], abs=0.01)


def test_a_sentence_alone_is_enough(ready):
    s = P.TranslateState(ready["text"][0], a="a small tree")
    assert s.kind == "text" and s.b == s.a and s.known.line(s.a) == "" and not s.known.step()


def test_how_near_a_sentence_is(ready):
    known = P.Known(*ready["text"])
    assert known.nearest("a small boat") is None and known.line("x") == "", "not before all are encoded"
    while known.step(): pass
    assert known.nearest("a small boat") == ("a small boat", pytest.approx(1, abs=1e-5))
    assert known.line("a small boat") == "one of the known sentences"
    z = torch.nn.functional.normalize(Letters().encode(["dddddd", *SENTENCES]), dim=1)
    assert known.nearest("dddddd") == (SENTENCES[int((z[1:] @ z[0]).argmax())], pytest.approx(float((z[1:] @ z[0]).max()), abs=1e-5))
    assert "iin-wrong" in known.line("dddddd") and known.usual > 0.5
    assert "iin-wrong" not in P.Known(ready["text"][0], SENTENCES[:2]).line("dddddd")


# ---- the view

@pytest.fixture(params=OTHER)
def panel(request, ready):
    made = explorers.translate(*ready[request.param], read=read, names=("<b>", "y"))
    made.kind = request.param
    yield made
    made.close()


def test_widgets_follow_and_lead(panel):
    panel.finish()
    assert panel.message.value == "" and panel.way.value.count("<span") == P.CODES * P.STEPS and panel.drawn.value.count("<span") == P.DRAWS
    before, way = panel.drawn.value, panel.way.value
    panel.ask["a"].value = OTHER[panel.kind]
    assert panel.state.a == OTHER[panel.kind] and panel.drawn.value != before
    panel.finish()
    assert panel.way.value != way
    panel.w.value, panel.temperature.value = 0.5, 0.5
    assert (panel.state.w, panel.state.temperature) == (0.5, 0.5) and "50% of the way" in panel.says.value
    panel.again.click()
    assert panel.state.seed == panel.seed.value == 1
    panel.hold.value = False
    panel.w.value = 1.0
    assert panel.state.seed == panel.seed.value == 2 and "samples of B" in panel.says.value


def test_a_click_on_the_sheet_is_a_condition(ready):
    panel = explorers.translate(*ready["rows"])
    panel.on_click([9])
    assert panel.state.a == 9 == panel.ask["a"].value and panel.ask["a"].picture.value
    panel.side.value = "b"
    panel.on_click([4])
    assert (panel.state.a, panel.state.b) == (9, 4)
    panel.on_click([])
    assert panel.state.b == 4 and panel.message.value == ""
    panel.close()


def test_a_blank_sentence_is_told_and_set_back(ready):
    panel = explorers.translate(*ready["text"])
    panel.ask["b"].parts[""].value = "  "
    assert "expected a sentence" in panel.message.value and panel.ask["b"].value == SENTENCES[1] == panel.state.b
    panel.again.click()
    assert panel.message.value == ""
    panel.close()


def test_errors_are_shown_and_go_away(panel, monkeypatch):
    monkeypatch.setattr(panel.state, "look", lambda: 1 / 0)
    panel.again.click()
    assert "ZeroDivisionError" in panel.message.value
    monkeypatch.undo()
    panel.again.click()
    assert panel.message.value == ""


def test_names_are_escaped(panel):
    panel.finish()
    assert not any("<b>\"" in w or "[<b>]" in w or "as <b>" in w for w in (panel.says.value, panel.drawn.value, panel.way.value))
    assert "&lt;b&gt;" in panel.says.value + panel.drawn.value


def test_the_page_holds_every_choice_and_leaves_the_panel_as_it_was(panel, tmp_path):
    panel.w.value, panel.hold.value, panel.seed.value = 0.25, False, 5
    text = panel.to_html(tmp_path/"page.html").read_text(encoding="utf-8")
    assert len(text) < 15e6 and not re.search(r"<(script|link|img)[^>]*(src|href)=['\"]https?:", text)
    known = json.loads(re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.S)[1], parse_constant=pytest.fail)
    a, b, w = (len(c["options"]) for c in known["controls"])
    assert a == b and 2 <= a <= 5 and w == 7 and max(v.get("n", 0) for v in known["views"]) == a * b * w
    s = panel.state
    assert (s.w, s.hold, s.seed, panel.seed.value) == (0.25, False, 5, 5)


def test_the_file_is_named_after_both_hosts(ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = explorers.translate(*ready["columns"])
    panel.save.click()
    assert [p.name for p in tmp_path.iterdir()] == ["kind-light-to-painter-translate.html"], panel.message.value
    panel.close()


def test_an_event_is_fast(panel):
    seconds = []
    for i in range(20):
        start = time.process_time()
        panel.w.value = i / 20
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.06
