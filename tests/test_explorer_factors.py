"""The factors explorer: a state that is complete without a browser, and a view whose traits follow it."""
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from iin_nb import data, explanation, flow, hosts, pairs
from iin_nb.core import DataError
from iin_nb.factors import BlockLaw, Layout
from iin_nb.fit import History

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.embed import Atlas
from iin_nb.explorers import factor_panel as P
from iin_nb.explorers import parts

N, SIDE = 60, 4


def stand_in(outputs="images", concepts=("kind", "color")):
    "Pictures (N, 3, 4, 4) that are their own latent, and a random flow as T: what it says means nothing, but all of it can be checked."
    torch.manual_seed(0)
    x = torch.rand(N, 3, SIDE, SIDE) * 2 - 1
    table = pd.DataFrame({"kind": np.resize(["a", "b", "c"], N), **dict(zip("rgb", torch.rand(3, N).numpy(), strict=True))})
    head = torch.randn(48, 3)
    decode = (lambda z: z.reshape(-1, 3, SIDE, SIDE).clamp(-1, 1)) if outputs == "images" else lambda z: z @ head
    host = hosts.from_functions(lambda x: x.flatten(1), decode, x[:2])
    t = flow.Flow(flow.FlowConfig(48, n_blocks=2, hidden=16, zero=False)).init_from(x.flatten(1)).eval()
    columns = {"kind": "kind", "color": ["r", "g", "b"]}
    layout = Layout.of({c: {"kind": 2, "color": 3}[c] for c in concepts}, 48)
    with torch.no_grad(): blocks = layout.split(t(x.flatten(1))[0])
    laws = {n: BlockLaw.fit(b) for n, b in blocks.items()}
    read = pairs.concepts(table, {c: columns[c] for c in concepts} or None)
    expl = explanation.Explanation(host, t, layout, read, laws, explanation.certify(host, t, x), History(), {"images": "noise"})
    return expl, data.ImageSet(x, table, 0, "noise")


@pytest.fixture
def state():
    expl, images = stand_in()
    return P.FactorsState(expl, images.images, parts.labels(expl, images))


@pytest.fixture
def panel():
    made = explorers.factors(*stand_in())
    yield made
    made.close()


def close(a, b, tolerance=1e-5):
    return torch.allclose(torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32), atol=tolerance)


# ---- the state

@pytest.mark.parametrize("index", [0, 17, N - 1])
def test_at_rest_it_is_the_input(state, index):
    state.choose(index)
    seen = state.look()
    assert close(seen.factors.z_tilde, state.encoded.z_tilde[index, None])
    assert close(seen.output, state.images[index], 1e-4) and close(seen.z, state.z[index, None], 1e-4) and seen.error < 1e-5


@pytest.mark.parametrize("name", ["kind", "color", "residual"])
def test_a_slider_moves_its_own_block_only(state, name):
    state.anchor(name, "B", 5)
    state.move(name, 1)
    f = state.look().factors
    assert close(f[name], state.encoded[name][5, None])
    assert all(torch.equal(f[n], state.encoded[n][:1]) for n in state.names if n != name)
    state.move(name, 0.5)
    assert close(state.block(name), (state.encoded[name][:1] + state.encoded[name][5, None]) / 2)


def test_a_direction_is_of_the_blocks_own_law(state):
    steps, shares = state.directions["color"]
    law = state.expl.laws["color"]
    assert close(steps.T @ steps, law.root @ law.root.T, 1e-4)
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    state.follow("color", 2)
    assert state.range("color") == (-3, 3) and state.t["color"] == 0
    state.move("color", -1.5)
    assert close(state.block("color"), state.encoded.color[:1] - 1.5 * steps[1])


def test_reset_gives_the_input_back(state):
    state.anchor("kind", "A", 9)
    state.move("kind", 0.3)
    state.follow("color", 1)
    state.move("color", 2)
    assert not close(state.look().factors.z_tilde, state.encoded.z_tilde[:1])
    state.reset()
    assert close(state.look().factors.z_tilde, state.encoded.z_tilde[:1])


def test_b_is_of_another_class(state):
    for index in (0, 10, N - 1):
        state.choose(index)
        assert state.labels["kind"][state.b["kind"]] != state.labels["kind"][index]
        assert all(b != index for b in state.b.values())


def test_the_cross_lies_on_the_inputs_own_point(state):
    state.choose(4)
    for names, mark in zip(state.charts, state.look().marks, strict=True):
        assert close(mark, torch.cat([state.atlas.coords[n][4] for n in names]), 0.05)


def test_own_coordinates_and_an_atlas_are_used():
    expl, images = stand_in()
    own = torch.arange(2.0 * N).reshape(N, 2)
    state = P.FactorsState(expl, images.images, maps={"z": own})
    assert torch.equal(state.atlas.coords["z"], own)
    assert state.atlas.method == dict.fromkeys(state.atlas.names, "PCA") | {"z": "given"}
    zeros = {n: torch.zeros(N, 1 + (not n.endswith("1d"))) for n in state.atlas.coords}
    atlas = Atlas(state.z, state.encoded.z_tilde, expl.layout, zeros, dict.fromkeys(zeros, "UMAP"))
    assert all(close(torch.tensor(m), torch.zeros(2), 1e-6) for m in P.FactorsState(expl, images.images, maps=atlas).look().marks)


@pytest.mark.parametrize("concepts, charts", [((), 2), (("kind",), 3), (("color",), 3), (("kind", "color"), 3)])
def test_any_number_of_concepts(concepts, charts):
    expl, images = stand_in(concepts=concepts)
    panel = explorers.factors(expl, images)
    assert len(panel.charts) == charts and len(panel.rows) == len(concepts) + 1 and panel.message.value == ""


@pytest.mark.parametrize("slip", [
    lambda s: s.choose(N), lambda s: s.choose(-1), lambda s: s.move("colour", 0), lambda s: s.anchor("kind", "B", None),
    lambda s: s.anchor("kind", "A", N), lambda s: s.follow("color", 4), lambda s: P.FactorsState(s.expl, s.images[0]),
    lambda s: P.FactorsState(s.expl, s.images[:1]),
    lambda s: P.FactorsState(s.expl, s.images, maps={"z": torch.zeros(3, 2)}),
])
def test_slips_are_refused_in_words(state, slip):
    with pytest.raises(DataError, match="expected .*, got .*"): slip(state)
    assert close(state.look().factors.z_tilde, state.encoded.z_tilde[:1]), "and leave the state as it was"


def test_without_pictures_it_says_so():
    with pytest.raises(DataError, match="pictures"): explorers.factors(stand_in()[0])


# ---- the view

def test_a_drag_moves_picture_and_crosses(panel):
    before, places = panel.picture.value, [tuple(c.data[-1].x) for c in panel.charts]
    panel.rows["residual"].slider.value = 1.0
    assert panel.state.t["residual"] == 1 and panel.picture.value != before
    after = [tuple(c.data[-1].x) for c in panel.charts]
    assert after[0] != places[0], "the residual moves on its own map"
    assert after[1] == pytest.approx(places[1], abs=1e-3), "and not on the concepts'"


def test_the_menu_changes_the_range_and_not_the_picture(panel):
    row = panel.rows["color"]
    row.slider.value = 0.7
    row.way.value = 1
    assert (row.slider.min, row.slider.max, row.slider.value) == (-3, 3, 0) and panel.state.way["color"] == 1
    row.way.value = 0
    assert (row.slider.min, row.slider.max, row.slider.value) == (0, 1, 0) and panel.message.value == ""


def test_a_click_takes_the_role(panel):
    for role, reads in {"kind: A": lambda s: s.a["kind"], "color: B": lambda s: s.b["color"], "the input": lambda s: s.index}.items():
        panel.role.value = role
        panel.on_click([8])
        assert reads(panel.state) == 8
    assert panel.chosen.value == 8
    panel.on_click([])
    assert panel.state.index == 8


def test_menu_reset_and_colors(panel):
    panel.chosen.value = 6
    assert panel.state.index == 6
    panel.rows["kind"].slider.value = 0.5
    panel.restart.click()
    assert panel.rows["kind"].slider.value == 0 and panel.state.t["kind"] == 0
    panel.by.value = "color"
    assert panel.charts[0].data[0].marker.color[0].startswith("rgb(") and panel.legend.value == ""


def test_the_certificate_is_in_sight(panel):
    assert "round trip" in panel.certificate.value and "✓" in panel.certificate.value and "✗" not in panel.certificate.value


def test_a_failed_certificate_is_marked(panel):
    panel.state.expl.certificate = explanation.Certificate(5, 0.1, 0.1, 0.5)
    panel.refresh()
    assert panel.certificate.value.count("✗") == 2


def test_classes_instead_of_pictures():
    panel = explorers.factors(*stand_in("logits"))
    assert sum(panel.bars.data[0].y) == pytest.approx(1, abs=1e-5) and list(panel.bars.data[0].text) == ["0", "1", "2"]
    before = tuple(panel.bars.data[0].y)
    panel.rows["residual"].slider.value = 1.0
    assert tuple(panel.bars.data[0].y) != before and "100%" in panel.certificate.value


def test_a_reader_names_what_was_painted():
    expl, images = stand_in()
    panel = explorers.factors(expl, images, read=lambda x: x.flatten(1)[:, :3] * 9)
    assert panel.answer.value.startswith("<b>class ") and "read by the judge" in panel.bars.layout.xaxis.title.text


def test_errors_are_shown_and_go_away(panel, monkeypatch):
    monkeypatch.setattr(panel.state, "look", lambda: 1 / 0)
    panel.rows["kind"].slider.value = 0.2
    assert "ZeroDivisionError" in panel.message.value
    monkeypatch.undo()
    panel.rows["kind"].slider.value = 0.3
    assert panel.message.value == ""


def test_names_are_escaped():
    expl, images = stand_in()
    object.__setattr__(expl.concepts[0], "classes", ("<b>", "b", "c"))
    assert "&lt;b&gt;" in parts.legend(P.FactorsState(expl, images.images), "kind")


def test_two_panels_do_not_disturb_each_other(panel):
    other = explorers.factors(*stand_in())
    panel.rows["kind"].slider.value = 0.9
    assert other.rows["kind"].slider.value == 0 and other.state.t["kind"] == 0


def test_a_step_is_fast(panel):
    seconds = []
    for t in np.linspace(0.01, 1, 20):
        start = time.perf_counter()
        panel.rows["color"].slider.value = float(t)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.06


def test_large_pictures_fit():
    assert parts.thumbnails(torch.zeros(2, 3, 100, 50)).shape == (2, 3, 32, 16)
    assert [parts.crisp(np.zeros((3, side, side)), 256)["width"] for side in (28, 60, 300)] == ["224", "240", "300"]


def test_opening_the_folder_loads_no_widgets():
    code = "import sys, iin_nb.explorers as e; assert 'factors' in dir(e); print([m for m in ('ipywidgets', 'plotly') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no_such"): _ = explorers.no_such


def test_the_button_saves_a_page_under_a_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = explorers.factors(*stand_in())
    for n in (1, 2):
        panel.save.click()
        assert len(list(tmp_path.glob("*-factors*.html"))) == n and "saved: " in panel.message.value
    monkeypatch.setattr(type(panel), "page", lambda self: 1 / 0)
    panel.save.click()
    assert "ZeroDivisionError" in panel.message.value and len(list(tmp_path.iterdir())) == 2
