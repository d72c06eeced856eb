"""The attack explorer: signs are the gradient's, v is held over all three pictures, the host is left alone, the page holds all sizes."""

import re
from dataclasses import replace

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


# ---- where it opens

def turned(state, row, eps): return len({*P.AttackState(state.inv, state.data, row, eps).look().said[:2]}) == 2


@pytest.fixture
def later():
    "A size of the change that turns some picture, but not the first."
    sizes = [e for e in (0.5, 0.8, 0.2) if (P.AttackState(layers(), image_set(), None, e).index or 0) > 0]
    assert sizes, "none of these pictures is one to open on"
    return sizes[0]


def test_it_opens_on_a_picture_that_is_turned(later):
    panel = explorers.attack(layers(), image_set(), eps=later)
    i = panel.state.index
    assert turned(panel.state, i, later) and not any(turned(panel.state, k, later) for k in range(i))
    assert panel.chosen.value == i and f"Turned: {panel.state.look().said[0]} before" in panel.pictures.value
    assert explorers.attack(layers(), image_set(), 0, later).state.index == 0, "who names a picture gets it"
    panel.close()


def test_where_none_is_turned_it_says_so():
    panel = explorers.attack(layers(), image_set(), eps=1e-5)
    assert panel.state.index == 0 and "Not turned at ε 1e-05" in panel.pictures.value
    assert "Nor is any of the first 42 pictures: raise ε." in panel.pictures.value
    panel.eps.value = 0.3
    assert "Nor is" not in panel.pictures.value, "that was of another ε"
    page = panel.page()
    panel.close()
    named = explorers.attack(layers(), image_set(), 7, 1e-5)
    assert named.state.index == 7 and "Nor is" not in named.pictures.value, "nobody has looked"
    assert "Nor is any of the first 42" in named.page() and "Nor is" not in page, "now somebody has"
    named.close()


def chosen(page): return [int(re.search(r"#(\d+)", t)[1]) for t in re.findall(r"<option value='\d+' selected>([^<]*)<", page)]


def test_the_page_opens_on_one_that_is_turned(later):
    first = P.AttackState(layers(), image_set(), None, later).index
    plain = next(k for k in range(59, -1, -1) if not turned(P.AttackState(layers(), image_set(), 0), k, later))
    panel = explorers.attack(layers(), image_set(), plain, later)
    assert chosen(panel.page()) == [first], "the panel's is not turned"
    panel.on_click([first])
    assert chosen(panel.page()) == [first]
    panel.close()
    faint = explorers.attack(layers(), image_set(), plain, 1e-5)
    assert chosen(faint.page()) == [plain], "there is none"
    faint.close()


def test_truth_before_and_after_are_labelled(panel):
    seen = panel.state.look()
    told = re.sub(r"<[^>]*>", "|", panel.pictures.value)
    for name, answer in zip(P.ANSWERS[1:], seen.said, strict=True): assert re.search(rf"{name}\|+{answer}\|", told)
    assert panel.state.tags[3].endswith(panel.state.truth) and "<i>" not in panel.pictures.value.split("<table>")[1]
    panel.on_click([1])
    assert panel.state.truth == "<i>" and "&lt;i&gt;" in panel.pictures.value and "&lt;i&gt;" in P.numbers_html(panel.state, seen)
    bare = replace(image_set(), table=image_set().table[["source"]])
    assert P.AttackState(layers(), bare, 3).truth == "" and "–" in P.answers(P.AttackState(layers(), bare, 3), seen)[0]
    for head in ("own v", "v 1", "v 4"): assert panel.seen.value.count(f">{head}<") == len(LAYERS)
