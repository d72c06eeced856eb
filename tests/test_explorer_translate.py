"""The translation explorer: what a condition may be, that held codes stay, what the line is, how near a sentence is."""
import re
from dataclasses import replace

import pytest
import torch
from toy_translation import MIX, OTHER, SENTENCES, D, Letters, image_set, painter, pictures, read, ready, trained

from iin_nb import latents
from iin_nb.core import DataError, HostError, IINError
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.translation import translate as train

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import translate_panel as P

KINDS = pytest.mark.parametrize("kind", OTHER)


# ---- the state

@KINDS
def test_at_the_ends_it_is_sample(kind):
    t, x = ready(kind)
    s = P.TranslateState(t, x, seed=3)
    s.go(b=OTHER[kind])
    for w, value in ((0.0, s.a), (1.0, s.b)):
        s.go(w=w)
        want = t.sample(s.conditions.inputs(value), v=t.draw(s.n, 1, 3))[:, 0]
        torch.testing.assert_close(s.look().output, want, atol=1e-5, rtol=1e-4)


@KINDS
def test_the_line_is_interpolate_with_the_samples_own_codes(kind):
    t, x = ready(kind)
    s = P.TranslateState(t, x, b=OTHER[kind])
    assert s.line() == [] and sum(iter(s.line_step, False)) == P.CODES
    for k, row in enumerate(s.line()):
        want = t.interpolate(*(s.conditions.inputs(v) for v in (s.a, s.b)), P.STEPS, v=s.codes(P.CODES)[k:k + 1])[:, 0]
        torch.testing.assert_close(row.output, want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(row.output[0], s.look().output[k], atol=1e-5, rtol=1e-4)
    s.go(temperature=0.5)
    assert s.line() == [], "another temperature, another line"


@KINDS
def test_v_is_held_unless_told_otherwise(kind):
    s = P.TranslateState(*ready(kind))
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


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(DataError, match="^explorers.translate: expected a Translation, got ImageSet. Make one"):
        explorers.translate(image_set(), ready("rows")[0])
    for kind in ("text", "rows", "numbers"):
        with pytest.raises(DataError, match="explorers.translate"): explorers.translate(ready(kind)[0])
    with pytest.raises(DataError, match="row 0 to 59"): P.TranslateState(*ready("rows"), a=60)
    with pytest.raises(IINError): P.TranslateState(*ready("columns"), a={"kind": "z", "light": 0.0})
    alone = train(None, None, (pictures().flatten(1)[:, :4], latents.from_array(pictures().flatten(1) @ MIX, image_set().table)),
                  FlowConfig(D, n_blocks=1, hidden=8), recipe=Recipe(n_steps=2, eval_every=2), baseline=False)
    for t in (alone, trained("rows", painter("logits"))):
        with pytest.raises(HostError, match="a host that paints"): explorers.translate(t, image_set())


def test_columns_need_no_data():
    s = P.TranslateState(ready("columns")[0])
    light = s.t.source.concepts[1]
    assert (s.a["kind"], s.b["kind"]) == ("<i>", "c") and s.a["light"] == pytest.approx(light.mean[0], abs=0.01)


def test_a_sentence_alone_is_enough():
    s = P.TranslateState(ready("text")[0], a="a small tree")
    assert s.kind == "text" and s.b == s.a and s.known.line(s.a) == "" and not s.known.step()


def test_how_near_a_sentence_is():
    known = P.Known(*ready("text"))
    assert known.nearest("a small boat") is None and known.line("x") == "", "not before all are encoded"
    while known.step(): pass
    assert known.nearest("a small boat") == ("a small boat", pytest.approx(1, abs=1e-5))
    assert known.line("a small boat") == "one of the known sentences"
    z = torch.nn.functional.normalize(Letters().encode(["dddddd", *SENTENCES]), dim=1)
    assert known.nearest("dddddd") == (SENTENCES[int((z[1:] @ z[0]).argmax())], pytest.approx(float((z[1:] @ z[0]).max()), abs=1e-5))
    assert "iin-wrong" in known.line("dddddd") and known.usual > 0.5
    assert "iin-wrong" not in P.Known(ready("text")[0], SENTENCES[:2]).line("dddddd")


# ---- the view

@pytest.fixture(params=OTHER)
def panel(request):
    made = explorers.translate(*ready(request.param), read=read, names=("<b>", "y"))
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


def test_a_click_on_the_sheet_is_a_condition():
    panel = explorers.translate(*ready("rows"))
    panel.on_click([9])
    assert panel.state.a == 9 == panel.ask["a"].value and panel.ask["a"].picture.value
    panel.side.value = "b"
    panel.on_click([4])
    assert (panel.state.a, panel.state.b) == (9, 4)
    panel.on_click([])
    assert panel.state.b == 4 and panel.message.value == ""
    panel.close()


def test_a_blank_sentence_is_told_and_set_back():
    panel = explorers.translate(*ready("text"))
    panel.ask["b"].parts[""].value = "  "
    assert "expected a sentence" in panel.message.value and panel.ask["b"].value == SENTENCES[1] == panel.state.b
    panel.again.click()
    assert panel.message.value == ""
    panel.close()


@KINDS
def test_a_page_shows_what_the_panel_would(kind):
    "Every condition that there is room for, as A and as B; the way back is the way there."
    s = P.TranslateState(*ready(kind), n=3, read=read)
    chosen, known = P.page_conditions(s, 4)
    assert s.a in chosen and s.b in chosen and len(chosen) == min(known, 12)
    assert known == {"text": 12, "columns": 4, "rows": 60, "numbers": 60}[kind]
    chosen = chosen[:3]
    seen, at = P.page_frames(s, chosen, 4)
    assert len(seen) == 3 + 3 * 2 and len(at) == 3 * 3 * 4
    for i, (a, b, w) in enumerate((a, b, w) for a in chosen for b in chosen for w in (0, 1 / 3, 2 / 3, 1)):
        s.go(a=a, b=b, w=w)
        torch.testing.assert_close(seen[at[i]].output, s.look().output, atol=1e-5, rtol=1e-4)
        assert len(seen[at[i]].votes) == 3


def test_a_page_says_which_conditions_it_has(monkeypatch):
    t, x = ready("text")
    panel = explorers.translate(t, x, n=2)
    assert "all pairs of 12 sentences, at 7 places from A to B; 2 samples" in (page := panel.page()) and page.count("<option") == 24
    monkeypatch.setattr(P, "PAGE_PIXELS", 2 * 64 * 21)   # 2 samples of 8 × 8 pixels; 3 conditions are 3 + 3 · 5 frames, 4 are 34
    panel.w.value = 0.5
    assert "all pairs of 3 of 12 sentences (all would make too large a file), at 7" in (page := panel.page()) and page.count("<option") == 6
    assert panel.state.w == 0.5 and "max='6' value='3'" in page
    panel.close()


def menus(page):
    "The options of A, and which is chosen."
    found = re.findall(r"<option value='\d+'( selected)?>(.*?)</option>", page)
    found = found[:len(found) // 2]
    return [t for _, t in found], next(t for chosen, t in found if chosen)


def test_a_menu_is_in_order_with_a_chosen():
    t, x = ready("columns")
    panel = explorers.translate(t, x, {"kind": "c", "light": 0.25}, {"kind": "<i>", "light": 0.5}, n=2)
    options, chosen = menus(page := panel.page())
    assert options == [f"kind {k}" for k in ("&lt;i&gt; · light 0.25", "&lt;i&gt; · light 0.50", "a · light 0.25", "c · light 0.25")]
    assert chosen == options[3]
    assert "all pairs of 4 conditions (A and B as they were set, and A with any one class changed), at 7 places" in page
    panel.close()
    rows = explorers.translate(*ready("rows"), a=9, b=4, n=2)
    options, chosen = menus(rows.page())
    assert options[:2] == ["#0 · a", "#4 · &lt;i&gt;"] and chosen == "#9 · a" and rows.ask["a"].parts[""].options[9] == ("#9 · a", 9)
    rows.close()


def test_negative_nats_have_a_minus_sign():
    t = replace(ready("text")[0], record={"nats": -3.25, "nats_unconditional": -1.5})
    assert P.told_line(t).endswith("· −3.2 nats a sample, −1.5 without the condition")


def test_names_are_escaped(panel):
    panel.finish()
    assert not any("<b>\"" in w or "[<b>]" in w or "as <b>" in w for w in (panel.says.value, panel.drawn.value, panel.way.value))
    assert "&lt;b&gt;" in panel.says.value + panel.drawn.value


def test_the_file_is_named_after_both_hosts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = explorers.translate(*ready("columns"))
    panel.save.click()
    assert [p.name for p in tmp_path.iterdir()] == ["kind-light-to-painter-translate.html"], panel.message.value
    panel.close()
