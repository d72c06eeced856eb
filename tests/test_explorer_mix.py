"""The mix explorer: both recombinations are transfers, a picture with itself is its reconstruction, the page holds all pairs."""
import json
import re
import time

import numpy as np
import pytest
import torch
from toy_layers import LAYERS, N, image_set, layers

from iin_nb.core import DataError

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import mix_panel as P


@pytest.fixture
def state(): return P.MixState(layers(), image_set(), 3, 8)


@pytest.fixture
def panel():
    made = explorers.mix(layers(), image_set(), 3, 8)
    yield made
    made.close()


def test_mixes_are_transfers(state):
    a, b = state.images[3:4], state.images[8:9]
    for k, (one, other) in state.look().items():
        t = state.layers[k]
        torch.testing.assert_close(one.pictures, t.transfer(a, b, b), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(other.pictures, t.transfer(b, a, a), atol=1e-5, rtol=1e-4)
        assert one.answer == str(int(state.host.decode(state.host.encode(a)).argmax())), "taken beside the picture that gave z"


def test_with_itself_it_is_the_reconstruction(state):
    state.go(b=3)
    plain = state.rebuilt(state.x)
    for pair in state.look().values():
        for one in pair: torch.testing.assert_close(one.pictures, plain[:1], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("slip", [dict(a=N), dict(b=-1), dict(a=None), dict(c=1)])
def test_slips_are_refused_and_change_nothing(state, slip):
    with pytest.raises(DataError, match=r"explorers.mix: expected .*, got .*\. \S"): state.go(**{"b": 5, **slip})
    assert (state.a, state.b) == (3, 8)


def test_widgets_follow_and_lead(panel):
    assert panel.mixed.value.count("<span") == 2 * len(LAYERS) and panel.message.value == ""
    before = panel.mixed.value
    panel.swap.click()
    assert (panel.state.a, panel.state.b, panel.chosen["a"].value, panel.chosen["b"].value) == (8, 3, 8, 3) and panel.mixed.value != before
    panel.side.value = "b"
    panel.on_click([11])
    panel.chosen["a"].value = 2
    assert (panel.state.a, panel.state.b, panel.chosen["b"].value) == (2, 11, 11)
    assert list(panel.sheet.data[2].x) == [panel.sheet.data[1].x[11]], "the frame is around B"
    panel.on_click([])
    assert panel.state.b == 11


def test_wrong_answers_are_set_apart(panel):
    wrong = sum(sum(t.wrong) for pair in panel.state.look().values() for t in pair)
    assert panel.mixed.value.count("<b class=iin-wrong>") == wrong


def test_a_host_that_answers_nothing():
    panel = explorers.mix(layers("images"), image_set())
    assert panel.message.value == "" and "z of A" in panel.mixed.value
    panel.close()


def test_errors_are_shown_and_go_away(panel, monkeypatch):
    monkeypatch.setattr(panel.state, "look", lambda: 1 / 0)
    panel.swap.click()
    assert "ZeroDivisionError" in panel.message.value
    monkeypatch.undo()
    panel.swap.click()
    assert panel.message.value == ""


def test_the_page_holds_every_choice_and_leaves_the_panel_as_it_was(panel, tmp_path):
    text = panel.to_html(tmp_path/"page.html").read_text(encoding="utf-8")
    assert len(text) < 15e6 and not re.search(r"<(script|link|img)[^>]*(src|href)=['\"]https?:", text)
    known = json.loads(re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.S)[1], parse_constant=pytest.fail)
    assert [len(c["options"]) for c in known["controls"]] == [10, 10] and known["views"][0]["n"] == 100
    assert (panel.state.a, panel.state.b) == (3, 8)


def test_an_event_is_fast(panel):
    seconds = []
    for i in range(20):
        start = time.process_time()
        panel.on_click([i])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.06
