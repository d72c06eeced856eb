"""The walk explorer: one walk, looked at step by step, forwards and back."""
import re

import numpy as np
import pytest
import torch
from test_explorer_factors import stand_in

from iin_nb import edit, explorers
from iin_nb.core import DataError
from iin_nb.explorers import walk_panel as P


@pytest.fixture
def panel():
    expl, images = stand_in("logits")
    made = explorers.walk(expl, images, n_steps=30)
    yield made
    made.close()


def test_it_is_the_walk_of_the_library(panel):
    s = panel.state
    assert torch.equal(s.path.z_tilde, edit.walk(s.expl, s.encoded[0], s.factor, 30, s.a, 0).z_tilde)
    seen, direct = s.look(30), s.expl.decode(s.path).argmax(1).numpy()
    assert np.array_equal(seen.votes, direct) and len(seen.film) == P.FILM and len(seen.places) == 31


def test_to_and_fro_it_is_the_same(panel):
    "What is seen at a step does not depend on how one came there."
    s = panel.state
    there = s.look(20)
    s.look(30)
    again = s.look(20)
    assert np.array_equal(there.votes, again.votes) and np.array_equal(there.film, again.film) and there.told == again.told
    for t in (-1, 31):
        with pytest.raises(DataError, match="a step 0 to 30"): s.look(t)


def test_the_rest_is_held(panel):
    s = panel.state
    for k in s.names:
        moved = (s.path[k] - s.encoded[k][:1]).abs().amax()
        assert (moved > 0.1) == (k == s.factor)


def test_a_step_is_shown(panel):
    panel.step.value = 12
    assert "step 12 of 30" in panel.says.value and len(panel.map.data[2].x) == 13 and panel.film.value.count("<img") == 13
    assert panel.map.data[-1].x[0] == panel.map.data[1].x[12] and len(panel.votes.data[0].y) == 13
    panel.step.value = 3
    assert len(panel.map.data[2].x) == 4


def test_another_walk_begins_at_its_start(panel):
    panel.step.value = 12
    panel.on_click([5])
    assert (panel.state.index, panel.chosen.value, panel.step.value) == (5, 5, 0) and "step 0" in panel.says.value
    before = panel.state.path.z_tilde.clone()
    panel.again.click()
    assert not torch.equal(before, panel.state.path.z_tilde) and panel.state.seed == 1
    panel.which.value, panel.length.value, panel.a.value = "residual", 50, 0.9
    assert (panel.state.factor, panel.step.max, panel.play.max, panel.state.a) == ("residual", 50, 50, 0.9) and panel.message.value == ""


def test_a_slip_changes_nothing(panel):
    before = panel.state.path
    for slip in (dict(index=10**6), dict(factor="hue"), dict(a=1.5), dict(n_steps=0), dict(pace=2)):
        with pytest.raises(DataError): panel.state.go(**slip)
    assert panel.state.path is before


def test_a_host_of_pictures_without_a_reader():
    expl, images = stand_in()
    panel = explorers.walk(expl, images, n_steps=10)
    assert panel.votes is None and panel.state.n_answers == 0
    panel.step.value = 4
    assert "4 steps" in panel.says.value and "visited" not in panel.says.value and panel.message.value == ""


def test_the_saved_page_leaves_the_panel_as_it_was(panel):
    panel.which.value = "residual"
    panel.step.value = 4
    page = panel.page()
    assert panel.state.factor == "residual" and len(page) < 15e6 and page.count("<select") == 1
    assert re.search(r"max='(\d+)' value='4'", page)[1] == str(panel.state.n_steps), "it begins where the panel stands"
