"""The mix explorer: both recombinations are transfers, a picture with itself is its reconstruction, the page holds all pairs."""
import re

import pytest
import torch
from toy_layers import LAYERS, image_set, layers


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


def test_the_page_names_its_rows_and_columns(panel):
    assert re.findall(r"<span title='(.*?)'>", panel.page().partition("<body>")[2]) == ["input", "rebuilt", *LAYERS, "A", "B"]


def test_wrong_answers_are_set_apart(panel):
    wrong = sum(sum(t.wrong) for pair in panel.state.look().values() for t in pair)
    assert panel.mixed.value.count("<b class=iin-wrong>") == wrong


def test_a_host_that_answers_nothing():
    panel = explorers.mix(layers("images"), image_set())
    assert panel.message.value == "" and "z of A" in panel.mixed.value
    panel.close()
