"""Panels whose state takes `go`: slips change nothing, errors are told, a page holds every choice, an event is fast."""
import json
import re
import time

import numpy as np
import pytest
import toy_layers
import toy_translation

from iin_nb.core import DataError

pytest.importorskip("ipywidgets")
from iin_nb import explorers

GIVEN = {f"translate {kind}": {} for kind in toy_translation.OTHER}
GIVEN |= {"invariances": dict(index=3), "mix": dict(a=3, b=8), "attack": dict(index=3)}
NAMES = {"translate": ("a", "b", "w", "n", "temperature", "seed", "hold"), "invariances": ("index", "shown", "n", "seed", "same_v"),
         "mix": ("a", "b"), "attack": ("index", "eps", "n", "seed")}
DRAWS = [dict(n=0), dict(n=1000), dict(seed=-1)]
SLIPS = {"translate": [dict(a=None), dict(b=[1]), dict(w=1.1), dict(temperature=-0.1), *DRAWS],
         "invariances": [dict(index=-1), dict(index=None), dict(index=60), dict(shown=("x",)), *DRAWS],
         "mix": [dict(a=60), dict(b=-1), dict(a=None)], "attack": [dict(index=60), dict(eps=-0.1), dict(eps=3), *DRAWS]}
OTHER = {"translate": dict(w=0.9), "invariances": dict(same_v=False), "mix": dict(b=5), "attack": dict(eps=0.4)}   # asked for beside
CHOICES = {"invariances": [25, 4], "mix": [10, 10], "attack": [10, 9]}   # of a page


@pytest.fixture(params=GIVEN)
def panel(request):
    name, _, kind = request.param.partition(" ")
    given = toy_translation.ready(kind) if kind else (toy_layers.layers(), toy_layers.image_set())
    more = dict(read=toy_translation.read) if kind else {}
    made = getattr(explorers, name)(*given, **GIVEN[request.param], **more)
    made.name = name
    yield made
    made.close()


def told(panel): return {k: getattr(panel.state, k) for k in NAMES[panel.name]}


def test_slips_are_refused_and_change_nothing(panel):
    before, says = told(panel), rf"explorers.{panel.name}: expected .*, got .*\. \S"
    for slip in [dict(zebra=1), *SLIPS[panel.name]]:
        with pytest.raises(DataError, match=says): panel.state.go(**OTHER[panel.name] | slip)
        assert told(panel) == before, slip


def test_errors_are_shown_and_go_away(panel, monkeypatch):
    button = getattr(panel, "again", None) or panel.swap
    monkeypatch.setattr(panel.state, "look", lambda: 1 / 0)
    button.click()
    assert "ZeroDivisionError" in panel.message.value
    monkeypatch.undo()
    button.click()
    assert panel.message.value == ""


def test_the_page_holds_every_choice_and_leaves_the_panel_as_it_was(panel, tmp_path):
    for name, value in dict(w=0.25, hold=False, same_v=False, eps=0.07, seed=5).items():
        if name in NAMES[panel.name]: getattr(panel, name).value = value
    if panel.name != "translate": panel.on_click([30])
    before = told(panel)
    text = panel.to_html(tmp_path/"page.html").read_text(encoding="utf-8")
    assert len(text) < 15e6 and not re.search(r"<(script|link|img)[^>]*(src|href)=['\"]https?:", text)
    known = json.loads(re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.S)[1], parse_constant=pytest.fail)
    choices, n = [len(c["options"]) for c in known["controls"]], [len(v.get("at", ())) or v.get("n", 0) for v in known["views"]]
    a, b, *rest = CHOICES.get(panel.name, choices)
    assert choices == [a, b, *rest] and max(n) == np.prod(choices) and (panel.name != "translate" or a == b <= 12 and rest == [7])
    assert told(panel) == before and "computing" not in text.split("id='data'")[1]
    assert re.search(r"Computed before: [^.]*\d", text), "it says what it holds"


def test_an_event_is_fast(panel):
    seconds = []
    for i in range(20):
        start = time.process_time()
        if hasattr(panel, "eps"): panel.eps.value = i / 50
        elif hasattr(panel, "w"): panel.w.value = i / 20
        else: panel.on_click([i])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.06
