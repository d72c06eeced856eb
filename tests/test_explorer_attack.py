"""The attack explorer: signs are the gradient's, v is held over all three pictures, the host is left alone, the page holds all sizes."""

import pytest
import torch
from toy_layers import LAYERS, image_set, layers

from iin_nb.core import HostError

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import attack_panel as P


@pytest.fixture
def state(): return P.AttackState(layers(), image_set(), 3)


@pytest.fixture
def panel():
    made = explorers.attack(layers(), image_set(), 3)
    yield made
    made.close()


# ---- the attack

def test_the_host_is_left_as_it_was(state, snapshot):
    before = snapshot(state.host.model)
    with torch.no_grad(): state.look()
    before.check()


def test_no_attack_without_answers():
    with pytest.raises(HostError, match="logits"): explorers.attack(layers("images"), image_set())


# ---- the state

def test_v_is_held_and_z_is_swapped(state):
    state.go(eps=0.3, seed=2)
    seen = state.look()
    x = seen.pictures
    assert torch.equal(x[0], state.images[3]) and (x - x[:1]).abs().max() <= 0.3 + 1e-6 and x.abs().max() <= 1
    for k, t in state.layers.items():
        v = torch.cat([t.residual(x[:1], x[:1]), t.draw(4, seed=2)])
        for i in range(3): torch.testing.assert_close(seen.samples[k][i], t.sample(x[i:i + 1], v=v)[:, 0], atol=1e-5, rtol=1e-4)
        z = t.source.host.encode(x)
        assert seen.cosine[k] == pytest.approx(torch.cosine_similarity(z[1:], z[:1]).tolist(), abs=1e-5)
        torch.testing.assert_close(seen.samples[k][0, 0], state.rebuilt(x[:1])[0], atol=1e-4, rtol=1e-3)
    assert seen.said == [str(i) for i in state.host.decode(state.host.encode(x)).argmax(1).tolist()]


def test_without_a_change_all_three_are_one(state):
    state.go(eps=0.0)
    seen = state.look()
    assert len(set(seen.said)) == 1
    for s in seen.samples.values(): torch.testing.assert_close(s[0], s[1], atol=1e-5, rtol=1e-4)


# ---- the view

def test_widgets_follow_and_lead(panel):
    assert panel.seen.value.count("<span role") == 3 * 5 * len(LAYERS) and panel.pictures.value.count("<span role") == 4
    before, shown = panel.seen.value, panel.pictures.value
    panel.eps.value = 0.4
    assert panel.state.eps == 0.4 and panel.seen.value != before and panel.pictures.value != shown
    panel.again.click()
    panel.on_click([9])
    assert (panel.state.seed, panel.seed.value, panel.state.index, panel.chosen.value, panel.message.value) == (1, 1, 9, 9, "")
    panel.on_click([])
    assert panel.state.index == 9
