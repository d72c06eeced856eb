"""The samples explorer: what is held stays, what is drawn comes from its law, the same seed is the same draw."""
import numpy as np
import pytest
import torch
from test_explorer_factors import N, stand_in

from iin_nb import edit
from iin_nb.core import DataError

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import sample_panel as P


@pytest.fixture
def state():
    expl, images = stand_in()
    return P.SampleState.of(expl, images, index=4)


@pytest.fixture
def panel():
    made = explorers.samples(*stand_in())
    yield made
    made.close()


@pytest.mark.parametrize("law", P.LAWS)
@pytest.mark.parametrize("held", [(), ("kind",), ("color", "residual"), ("kind", "color", "residual")])
def test_the_held_stay_and_the_rest_is_the_same_draw(state, law, held):
    state.go(held=held, law=law, seed=5)
    f, free = state.look().factors, edit.sample(state.expl, state.n, law=law, seed=5)
    for k in state.names:
        want = state.encoded[k][4, None].repeat(state.n, 1) if k in held else free[k]
        assert torch.equal(f[k], want)


def test_all_held_is_the_input(state):
    state.go(held=("kind", "color", "residual"))
    seen = state.look()
    assert torch.allclose(seen.output, state.images[4, None].repeat(state.n, 1, 1, 1), atol=1e-4)
    assert np.allclose(seen.places, state.atlas.coords["z"][4].numpy(), atol=0.05)


def test_seeds(state):
    a = state.look().factors.z_tilde
    state.go(seed=1)
    assert not torch.equal(state.look().factors.z_tilde, a)
    state.go(seed=0)
    assert torch.equal(state.look().factors.z_tilde, a)


@pytest.mark.parametrize("slip", [dict(index=N), dict(index=-1), dict(held=("kinds",)), dict(law="uniform"), dict(n=0), dict(sead=1)])
def test_slips_are_refused_in_words(state, slip):
    with pytest.raises(DataError, match="expected .*, got .*"): state.go(**{"seed": 9, **slip})
    assert (state.index, state.held, state.law, state.n, state.seed) == (4, (), "own", P.DRAWS["images"], 0)


def test_ticks_buttons_and_menus(panel):
    before = panel.drawn.value
    panel.hold["kind"].value = True
    assert panel.state.held == ("kind",) and panel.drawn.value != before and "kind held" in panel.says.value
    panel.again.click()
    assert panel.state.seed == panel.seed.value == 1 and "seed 1" in panel.says.value
    panel.seed.value = 7
    panel.law.value = "standard"
    panel.on_click([9])
    assert (panel.state.seed, panel.state.law, panel.state.index, panel.chosen.value) == (7, "standard", 9, 9)
    assert len(panel.map.data[1].x) == panel.state.n and panel.message.value == "" and panel.bars is None


def test_answers_instead_of_pictures():
    expl, images = stand_in("logits")
    panel = explorers.samples(expl, images, held=("kind", "color", "residual"))
    assert not panel.painted and max(panel.bars.data[0].y) == 1 and panel.state.n == P.DRAWS["logits"]
    panel.hold["residual"].value = False
    votes = expl.decode(panel.state.draw()).argmax(1)
    assert list(panel.bars.data[0].y) == pytest.approx((torch.bincount(votes, minlength=3) / 200).tolist())


def test_a_reader_names_what_was_painted():
    expl, images = stand_in()
    panel = explorers.samples(expl, images, read=lambda x: x.flatten(1)[:, :3] * 9)
    assert panel.drawn.value.count("<b>") == panel.state.n and sum(panel.bars.data[0].y) == pytest.approx(1)


@pytest.mark.parametrize("outputs", ["images", "logits"])
def test_the_page_holds_every_choice_and_leaves_the_panel_as_it_was(outputs):
    panel = explorers.samples(*stand_in(outputs), held=("color",), seed=3)
    page = panel.page()
    assert page.count("<option") == 8 and "<option value='2' selected>color</option>" in page and len(page) < 15e6
    assert (panel.state.held, panel.state.seed) == (("color",), 3)


def test_errors_are_shown_and_go_away(panel, monkeypatch):
    monkeypatch.setattr(panel.state, "look", lambda: 1 / 0)
    panel.again.click()
    assert "ZeroDivisionError" in panel.message.value
    monkeypatch.undo()
    panel.again.click()
    assert panel.message.value == ""
