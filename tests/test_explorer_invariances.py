"""The invariances explorer: samples are those of `Invariances`, what layers say of them is right, the table grows between events."""
import asyncio
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_layers import LAYERS, N, image_set, layers

from iin_nb import core, invariance

ipywidgets = pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import invariance_panel as P
from iin_nb.explorers import parts


@pytest.fixture
def state(): return P.InvarianceState(layers(), image_set(), index=3)


@pytest.fixture
def panel():
    made = explorers.invariances(layers(), image_set(), n=3)
    yield made
    made.close()


# ---- the state

@pytest.mark.parametrize("name", ["invariances", "mix", "attack"])
def test_explorers_of_layers_say_what_they_take(name):
    inv, images, build, where = layers(), image_set(), getattr(explorers, name), f"^explorers.{name}: expected "
    with pytest.raises(core.DataError, match=f"{where}an ImageSet, got Tensor. Pass images.held_out."): build(inv, images.images)
    with pytest.raises(core.DataError, match=f"{where}an ImageSet, got NoneType"): build(inv, None)
    with pytest.raises(core.DataError, match=f"{where}Invariances, got ImageSet. Make them"): build(images, inv)


def test_samples_are_those_of_invariances(state):
    seen, known = state.look(), state.inv.sample(state.x, 5, seed=0)
    assert list(seen) == list(LAYERS)
    for k in LAYERS: torch.testing.assert_close(seen[k][0].pictures, known[k][:, 0])


def test_what_layers_say_is_fidelity(state):
    "The same cosines and answers as `fidelity` has, which looks at two inputs at least."
    x = torch.cat([state.x, state.x])
    for k, (seen, plain) in state.look().items():
        host, samples = state.layers[k].source.host, seen.pictures[:, None].expand(-1, 2, -1, -1, -1)
        known = invariance.fidelity(host, x, samples, state.rebuilt(x))
        assert float(seen.cosine.mean()) == pytest.approx(known.cosine, abs=1e-5)
        assert 1 - np.mean(seen.wrong) == pytest.approx(known.same_prediction)
        assert float(plain.cosine[0]) == pytest.approx(known.rebuilt, abs=1e-5)
        assert seen.share == pytest.approx((known.cosine - state.unrelated[k][0]) / (1 - state.unrelated[k][0]), abs=1e-4)


def test_the_input_itself_has_gone_the_whole_way(state):
    for k in LAYERS:
        own = state.taken(k, state.x, state.x)
        assert own.share == pytest.approx(1, abs=1e-4) and own.wrong == [False] and state.unrelated[k][0] < 0.999


def test_v_is_shared_by_layers_unless_told_otherwise(state):
    v = state.codes("head")
    assert all(torch.equal(state.codes(k), v) for k in LAYERS)
    state.go(same_v=False)
    assert torch.equal(state.codes(LAYERS[0]), v) and not torch.equal(state.codes("head"), v)
    state.go(seed=1)
    assert not torch.equal(state.codes(LAYERS[0]), v)


def test_the_table_is_of_invariances(state):
    assert sum(iter(state.step, False)) == 2 * len(LAYERS) and not state.step()
    some = state.images[torch.randperm(N, generator=torch.Generator().manual_seed(1))[:P.MANY]]
    assert state.trust == state.inv.fidelity(some, 2) and state.shares == state.inv.variance(some, P.EACH)


def test_layers_are_in_their_own_order(state):
    state.go(shown=("head", LAYERS[0]))
    assert list(state.look()) == [LAYERS[0], "head"]


# ---- the view

def test_it_opens_without_waiting(panel):
    assert panel.table.value.count("computing …") == 2 * len(LAYERS) and not panel.state.trust
    panel.finish()
    assert "computing" not in panel.table.value and panel.message.value == ""
    assert f"{panel.state.trust['head'].share:.2f} <small>(" in panel.table.value


def test_the_table_grows_between_events():
    async def session():
        panel = explorers.invariances(layers(), image_set())
        assert "computing …" in panel.table.value
        await asyncio.sleep(0)
        panel.chosen.value = 5
        assert panel.state.index == 5
        await asyncio.wait_for(panel._task, 60)
        assert "computing" not in panel.table.value and panel.message.value == ""
        panel.close()

    asyncio.run(session())


def test_widgets_follow_and_lead(panel):
    assert panel.drawn.value.count("<span") == 3 * len(LAYERS)
    before, picture = panel.drawn.value, panel.picture.value
    panel.on_click([9])
    assert (panel.state.index, panel.chosen.value) == (9, 9) and panel.picture.value != picture and panel.drawn.value != before
    panel.again.click()
    assert panel.state.seed == panel.seed.value == 1
    before = panel.drawn.value
    panel.same_v.value = False
    assert panel.drawn.value != before
    panel.ticks["head"].value = False
    assert panel.state.shown == LAYERS[:2] and "<b>head</b>" not in panel.drawn.value
    for box in panel.ticks.values(): box.value = False
    assert "no layer is ticked" in panel.drawn.value and panel.message.value == ""
    panel.on_click([])
    assert panel.state.index == 9


def test_wrong_answers_are_set_apart(panel):
    seen = panel.state.look()
    assert panel.drawn.value.count("<b class=iin-wrong>") == sum(sum(t.wrong) for t, _ in seen.values())


def test_names_are_escaped(panel):
    panel.on_click([1])
    assert panel.state.tags[1] == "#1 · <i>" and "<b>#1 · &lt;i&gt;</b>" in P.numbers_html(panel.state, panel.state.look())


def test_a_host_that_answers_nothing():
    panel = explorers.invariances(layers("images"), image_set())
    panel.finish()
    assert panel.message.value == "" and "same prediction" not in panel.drawn.value and panel.said.value == ""
    panel.close()


def test_a_warning_that_the_table_shows_is_left_to_the_user(state, monkeypatch):
    variance = invariance.Invariances.variance
    def suspect(self, *args):
        core.warn_once("a share is missed")
        return variance(self, *args)
    monkeypatch.setattr(core, "_warned", set())
    monkeypatch.setattr(invariance.Invariances, "variance", suspect)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        while state.step(): pass
        assert state.shares and not [w for w in heard if "a share" in str(w.message)]
        state.inv.variance(state.images[:16], 8)
    assert len([w for w in heard if "a share" in str(w.message)]) == 1


def test_the_page_names_its_rows_and_columns(panel):
    page = panel.page().partition("<body>")[2]
    assert re.findall(r"<span title='(.*?)'>", page) == ["input", "rebuilt", "v 1", "v 2", "v 3", *LAYERS]
    assert page.index("<figcaption>") < page.index("class='sprite'")
    for box in panel.ticks.values(): box.value = False
    with pytest.raises(core.DataError, match="expected a layer, got none"): panel.page()


def test_the_note_explains_what_is_there(panel):
    panel.finish()
    note = lambda: panel.table.value.partition("</table>")[2]
    shares = panel.state.shares
    for k in shares: shares[k] = {name: replace(e, read=0.0) for name, e in shares[k].items()}
    panel.table.value = P.table_html(panel.state)
    assert "≤" not in panel.table.value and "v of z̄, the autoencoder’s latent" in note()
    shares["head"] |= {name: replace(e, read=1.0) for name, e in shares["head"].items()}
    panel.table.value = P.table_html(panel.state)
    assert "<td" in panel.table.value and "≤ 0.00 <small>τ" in panel.table.value and "≤: a regression" in note()


def test_one_word_for_one_thing(panel):
    said = panel.page() + "".join(w.value for w in parts._below(panel) if isinstance(w, ipywidgets.HTML))
    assert "rebuilt: of the input, encoded and decoded" in said and "plain reconstruction" not in said


def test_few_inputs_have_no_variance():
    panel = explorers.invariances(layers(), image_set(7))
    panel.finish()
    assert panel.message.value == "" and not panel.state.shares and "v of" not in panel.table.value
    panel.close()
