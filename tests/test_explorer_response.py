"""The response explorer: which inputs are asked, what is kept, what the table says, and that nobody waits for the Sobol indices."""
import asyncio
import json
import re
import time

import numpy as np
import pytest
import torch
from test_explorer_factors import N, stand_in

from iin_nb import response
from iin_nb.core import DataError, HostError

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import parts
from iin_nb.explorers import response_panel as R


def read(x): return x.flatten(1)[:, :3] * 9


@pytest.fixture
def state():
    expl, images = stand_in("logits")
    return R.ResponseState(expl, images.images, parts.labels(expl, images), n=40, members=5)


@pytest.fixture
def panel():
    expl, images = stand_in("logits")
    made = explorers.response(expl, images, n=40)
    yield made
    made.close()


# ---- the state

@pytest.mark.parametrize("law", ["own", "gaussian", "standard"])
def test_one_input_is_what_response_answers(state, law):
    state.choose(index=7, law=law)
    seen = state.look()
    for k in state.names:
        known = response.answers(state.expl, state.encoded[7], k, 40, law)
        assert torch.equal(seen.answers[k].counts, known.counts) and seen.before == int(known.start)
    assert list(seen.counts) == ["kind", "color", "residual"] and all(c.sum() == 40 for c in seen.counts.values())


def test_a_class_is_of_the_inputs_own(state):
    state.choose(index=4, over="class")
    seen = state.look()
    assert len(seen.rows) == 5 and set(state.labels["kind"][seen.rows]) == {state.labels["kind"][4]} and "“b”" in seen.said
    mean = torch.stack([response.answers(state.expl, state.encoded[int(i)], "color", 400).share[0] for i in seen.rows]).mean(0)
    assert np.abs(seen.counts["color"] / 40 - mean.numpy()).max() < 0.2, "a mean over its members"


def test_random_inputs_do_not_depend_on_the_input(state):
    state.choose(over="random")
    first = state.look()
    state.choose(index=9)
    assert state.look() is first and len(set(first.rows.tolist())) == 5


def test_inputs_that_differ_have_no_answer_before(state):
    state.choose(over="random")
    seen = state.look()
    starts = state.expl.decode(state.encoded[seen.rows]).argmax(1)
    assert (seen.before is None) == (len(starts.unique()) > 1) and len(starts.unique()) > 1


def test_what_was_asked_is_kept(state, monkeypatch):
    seen = state.look()
    monkeypatch.setattr(R, "every_answer", lambda *a, **k: 1 / 0)
    assert state.look() is seen
    state.choose(n=41)
    with pytest.raises(ZeroDivisionError): state.look()


def test_neighbours_are_nearest_in_z(state):
    state.choose(index=3)
    apart = (state.z - state.z[3]).norm(dim=1)
    assert state.neighbours().tolist() == apart.argsort()[1:7].tolist()


def test_sobol_in_steps_is_sobol(state):
    steps = sum(1 for _ in state.sobol_steps())
    rows = state.encoded[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    assert steps > 5 and state.sobol == response.sobol(state.expl, rows)
    assert not list(state.sobol_steps()), "once is enough"


@pytest.mark.parametrize("slip", [dict(index=N), dict(over="all"), dict(law="uniform"), dict(n=0), dict(seed=3)])
def test_slips_are_refused_and_change_nothing(state, slip):
    with pytest.raises(DataError, match="expected .*, got .*"): state.choose(**{"index": 2, **slip})
    assert (state.index, state.over, state.law, state.n) == (0, "input", "own", 40)


def test_a_class_that_nobody_knows_is_refused():
    expl, images = stand_in("logits", concepts=("color",))
    state = R.ResponseState(expl, images.images, parts.labels(expl, images), n=5)
    with pytest.raises(DataError, match="class"): state.choose(over="class")
    expl, images = stand_in("logits")
    state = R.ResponseState(expl, images.images, {"kind": np.full(N, -1)}, n=5)
    with pytest.raises(DataError, match="class"): state.choose(over="class")


def test_pictures_need_a_reader():
    expl, images = stand_in()
    with pytest.raises(HostError, match="read="): explorers.response(expl, images)
    panel = explorers.response(expl, images, read=read)
    assert panel.state.n < 250 and panel.message.value == ""


# ---- the view

def test_it_opens_without_waiting(panel):
    assert panel.state.sobol is None and panel.table.value.count("computing …") == 3
    panel.finish()
    assert "computing" not in panel.table.value and f"{panel.state.sobol.total['kind']:.3f}" in panel.table.value


def test_sobol_arrives_between_events():
    expl, images = stand_in("logits")

    async def session():
        panel = explorers.response(expl, images, n=20)
        assert "computing …" in panel.table.value
        await asyncio.sleep(0.03)
        panel.chosen.value = 5                       # answered while the indices are being computed
        assert panel.state.index == 5 and "#5" in panel.says.value and "computing …" in panel.table.value
        await asyncio.wait_for(panel._task, 30)
        assert "computing" not in panel.table.value and panel.message.value == ""

    asyncio.run(session())


def test_a_closed_panel_computes_no_more():
    expl, images = stand_in("logits")

    async def session():
        panel = explorers.response(expl, images, n=20)
        await asyncio.sleep(0.02)
        task = panel._task
        panel.close()
        await asyncio.wait_for(task, 5)

    asyncio.run(session())


def test_the_bars_are_the_answers(panel):
    panel.chosen.value = 8
    seen = panel.state.look()
    for trace, (k, counts) in zip(panel.bars.data[2:], seen.counts.items(), strict=True):
        assert trace.name == k and np.allclose(np.array(trace.y, float), counts, atol=1e-5)
    assert panel.bars.data[0].x[0] == seen.before - 0.5, "the gray band is at the answer before"
    assert panel.bars.layout.yaxis.type == "log" and "log" in panel.bars.layout.yaxis.title.text
    assert "treats labels as numbers" in panel.table.value


def test_over_many_the_band_goes(panel):
    panel.over.value = "random"
    assert panel.state.look().before is None and len(panel.bars.data[0].x) == 0
    assert panel.bars.layout.yaxis.range[0] < -1, "less than one answer in n is seen"


def test_clicks_and_menus(panel):
    panel.on_click([6])
    assert (panel.state.index, panel.chosen.value) == (6, 6)
    panel.on_click([])
    assert panel.state.index == 6
    panel.law.value, panel.n.value = "standard", 10
    assert (panel.state.law, panel.state.n) == ("standard", 10) and panel.bars.layout.yaxis.title.text.startswith("answers of 10")


def test_a_slip_sets_the_menus_back(panel):
    panel.state.labels["kind"] = np.full(N, -1)
    panel.over.value = "class"
    assert "DataError" in panel.message.value and panel.over.value == "input" == panel.state.over
    panel.on_click([1])
    assert panel.message.value == ""


def test_names_are_escaped():
    expl, images = stand_in("logits")
    object.__setattr__(expl.concepts[0], "classes", ("<i>", "b", "c"))
    images.table["kind"] = images.table["kind"].replace("a", "<i>")
    panel = explorers.response(expl, images, n=5)
    panel.over.value = "class"
    assert "&lt;i&gt;" in panel.says.value and "&lt;i&gt;" in panel.near.value
    assert not any("<i>" in w.value for w in (panel.says, panel.near, panel.table))


def test_the_page_holds_every_choice(panel, tmp_path):
    panel.chosen.value = 2
    text = panel.to_html(tmp_path/"page.html").read_text(encoding="utf-8")
    assert len(text) < 15e6 and not re.search(r"<(script|link|img)[^>]*(src|href)=['\"]https?:", text)
    found = re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.S)[1]
    known = json.loads(found, parse_constant=pytest.fail)   # a browser's JSON knows no NaN
    inputs, laws = (len(c["options"]) for c in known["controls"])
    assert (inputs, laws) == (25, 3), "24 inputs, the panel's own among them, and a mean"
    bars = next(v for v in known["views"] if v["kind"] == "figure")
    assert [len(t["frames"]["y"]) for t in bars["traces"]] == [75] * 5
    assert np.array_equal(np.nan_to_num(np.array(bars["traces"][2]["frames"]["y"][0], dtype=float)), panel.state.look().counts["kind"])
    assert (panel.state.index, panel.state.over, panel.state.law) == (2, "input", "own"), "saving changes nothing"
    assert "computing" not in text.split("id='data'")[1]


def test_a_click_is_fast(panel):
    seconds = []
    for i in range(20, 40):
        start = time.process_time()
        panel.on_click([i])
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.06
