"""The analogies explorer: what stands in which cell, that nothing is decoded twice, and what a click does."""
import json
import re
import time

import numpy as np
import pytest
import torch
from test_explorer_factors import N, stand_in

from iin_nb import edit
from iin_nb.core import DataError

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import analogy_panel as A
from iin_nb.explorers import parts


def made(outputs="images", **more):
    expl, images = stand_in(outputs)
    return A.AnalogiesState(expl, images.images, parts.labels(expl, images), **more)


@pytest.fixture
def state(): return made(targets=[1, 5, 9], sources=[2, 20, 31, 40])


@pytest.fixture
def panel():
    expl, images = stand_in()
    built = explorers.analogies(expl, images, targets=[1, 5], sources=[2, 20, 31])
    yield built
    built.close()


# ---- the state

@pytest.mark.parametrize("factor", ["kind", "color", "residual"])
def test_a_cell_is_the_swap(state, factor):
    grid = state.grids()[factor]
    assert grid.shape == (3, 4, 3, 4, 4)
    known = state.expl.decode(edit.grid(state.encoded[[1, 5, 9]], state.encoded[[2, 20, 31, 40]], factor))
    assert torch.allclose(grid.flatten(0, 1), known, atol=1e-5)


def test_the_control_exchanges_as_many_dimensions_at_random(state):
    assert state.dims == 3
    t, s = state.encoded[[1] * 4], state.encoded[[2, 20, 31, 40]]
    known = edit.swap_random(t, s, 3, 0)
    assert ((known.z_tilde != t.z_tilde).sum(1) == 3).all()
    assert torch.allclose(state.grids()["control"][0], state.expl.decode(known), atol=1e-5)
    other = made(targets=[1], sources=[2], seed=4)
    assert not torch.allclose(other.grids()["control"][0, 0], state.grids()["control"][0, 0], atol=1e-3)


def test_rebuilt_is_the_plain_reconstruction(state):
    assert torch.allclose(state.rebuilt([5, 20]), state.images[[5, 20]], atol=1e-4)


def test_nothing_is_decoded_twice(state, monkeypatch):
    state.grids()
    runs, whole = [], state.expl.decode
    monkeypatch.setattr(state.expl, "decode", lambda f: runs.append(len(f)) or whole(f))
    state.grids()
    assert runs == []
    state.toggle("targets", 50)
    state.grids()
    assert runs == [4 * 4 + 1], "four sources in three factors and the control, and the new target alone"
    state.toggle("targets", 50)
    state.toggle("targets", 50)
    state.grids()
    state.toggle("sources", 50)
    state.grids()
    assert runs == [17, 16], "as a source it has been rebuilt already"


def test_a_toggle_takes_in_and_out(state):
    state.toggle("sources", 7)
    assert state.sources == [2, 20, 31, 40, 7]
    state.toggle("sources", 20)
    assert state.sources == [2, 31, 40, 7]
    for i in (50, 51, 52): state.toggle("sources", i)
    assert state.sources == [31, 40, 7, 50, 51, 52], "the oldest has made room"
    state.toggle("targets", 31)
    assert state.targets == [1, 5, 9, 31], "one input may be both"


def test_the_first_choice_is_of_different_classes():
    state = made()
    assert len(set(state.labels["kind"][state.targets])) == 3 and len(state.sources) == 5
    assert A.first_rows(None, 3, 4, 6) == [4, 5, 0] and A.first_rows(np.array([0, 0, 1, 0]), 3, 1, 4) == [1, 2, 3]


@pytest.mark.parametrize("slip", [
    lambda s: s.toggle("targets", N), lambda s: s.toggle("rows", 1), lambda s: s.choose([1, 1], [2]), lambda s: s.choose([], [2]),
    lambda s: s.choose(range(5), [2]), lambda s: s.choose([1], range(7)), lambda s: made(targets=[-1]),
])
def test_slips_are_refused_and_change_nothing(state, slip):
    with pytest.raises(DataError, match="expected .*, got .*"): slip(state)
    assert (state.targets, state.sources) == ([1, 5, 9], [2, 20, 31, 40])


def test_the_last_one_stays():
    state = made(targets=[1], sources=[2])
    with pytest.raises(DataError, match="1 to 4"): state.toggle("targets", 1)
    assert state.targets == [1]


@pytest.mark.parametrize("concepts, grids", [((), 2), (("kind",), 3), (("color",), 3)])
def test_any_number_of_concepts(concepts, grids):
    expl, images = stand_in(concepts=concepts)
    panel = explorers.analogies(expl, images)
    assert len(panel.grids) == grids and panel.message.value == "" and all("<img" in g.value for g in panel.grids.values())


# ---- the view

def test_every_cell_says_what_it_is(panel):
    cells = re.findall(r"title='(target [^']*)'", panel.grids["color"].value)
    assert cells == [f"target #{t} · {'abc'[t % 3]}, color of #{s} · {'abc'[s % 3]}" for t in (1, 5) for s in (2, 20, 31)]
    assert panel.grids["color"].value.count("<img") == 3 + 2 * 5, "sources, targets and what they are rebuilt as, swaps"
    assert "3 random dimensions" in panel.grids["control"].value


def test_a_click_toggles_for_the_role(panel):
    panel.role.value = "targets"
    panel.on_click([30])
    assert panel.state.targets == [1, 5, 30] and "target #30" in panel.grids["kind"].value
    panel.on_click([30])
    assert panel.state.targets == [1, 5] and "target #30" not in panel.grids["kind"].value
    panel.role.value = "sources"
    panel.on_click([30])
    panel.on_click([])
    assert panel.state.sources == [2, 20, 31, 30]


def test_the_sheet_is_marked(panel):
    spots = panel.sheet.data[1]
    for traces, rows in ((panel.sheet.data[3:5], [1, 5]), (panel.sheet.data[5:7], [2, 20, 31])):
        for t in traces: assert list(t.x) == [spots.x[i] for i in rows] and list(t.y) == [spots.y[i] for i in rows]


def test_an_error_is_shown_and_goes_away(panel):
    for i in (2, 20): panel.on_click([i])
    panel.on_click([31])
    assert "DataError" in panel.message.value and panel.state.sources == [31]
    panel.on_click([4])
    assert panel.message.value == ""


def test_letters_where_the_host_answers():
    expl, images = stand_in("logits")
    panel = explorers.analogies(expl, images, targets=[1, 5], sources=[2, 20, 31])
    s, swaps = panel.state, panel.grids["kind"].value
    found = re.findall(r"title='target [^']*'>(.)</span>", swaps)
    assert found == ["012"[i] for i in s.grids()["kind"].argmax(2).flatten().tolist()]
    color = A.figures.CLASS_COLORS[int(s.grids()["kind"][0, 0].argmax())]
    assert f"border-bottom: 5px solid {color}" in swaps and swaps.count("nothing exchanged") == 5, "an answer beside each original"


def test_names_are_escaped():
    expl, images = stand_in("logits")
    object.__setattr__(expl.concepts[0], "classes", ("<i>", "b", "c"))
    images.table["kind"] = images.table["kind"].replace("a", "<i>")
    panel = explorers.analogies(expl, images, targets=[0], sources=[3])
    assert all("<i>" not in g.value for g in panel.grids.values()) and "&lt;i&gt;" in panel.grids["kind"].value


def test_the_page_holds_every_set_of_targets(panel, tmp_path):
    text = panel.to_html(tmp_path/"page.html").read_text(encoding="utf-8")
    assert len(text) < 15e6 and not re.search(r"<(script|link|img)[^>]*(src|href)=['\"]https?:", text)
    known = json.loads(re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.S)[1], parse_constant=pytest.fail)
    assert len(known["controls"][0]["options"]) == 8 and [len(v["frames"]) for v in known["views"]] == [8] * 4
    assert known["views"][1]["frames"][0] == panel.grids["color"].value and len(set(known["views"][1]["frames"])) == 8
    assert panel.state.targets == [1, 5], "saving changes nothing"


def test_a_click_is_fast(panel):
    seconds = []
    for i in range(30, 50):
        start = time.process_time()
        panel.on_click([i])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.06
