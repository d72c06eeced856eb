"""What the explorers share: manners of a panel, figures that share one script, the scene."""
import gc
import threading
import weakref

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from test_explorer_factors import stand_in

from iin_nb.core import DataError
from iin_nb.explorers import parts as P


class Counter(P.Panel):
    "A button that counts, and three steps of work that nobody waits for."

    def __init__(self, state):
        self.clicks, self.left, self.said = 0, 3, []
        super().__init__(state, [])

    @P.told
    def on_click(self, wrong=False):
        self.said.append(self.busy.value)
        self.clicks += 1
        if wrong: raise ValueError("<b>a slip</b>")

    def step(self):
        self.left -= 1
        return self.left > 0


@pytest.fixture
def panel():
    expl, images = stand_in()
    made = Counter(P.Scene.of(expl, images))
    yield made
    made.close()


def test_it_says_that_it_computes_and_what_went_wrong(panel):
    panel.on_click()
    assert panel.said == [P.BUSY] and panel.busy.value == ""
    panel.on_click(wrong=True)
    assert "ValueError: &lt;b&gt;a slip&lt;/b&gt;" in panel.message.value and panel.busy.value == "", "told, as text, and not busy any more"
    panel.on_click()
    assert panel.message.value == ""


def test_it_does_not_answer_itself(panel):
    with panel.quiet(): panel.on_click()
    assert panel.clicks == 0


def test_one_at_a_time(panel):
    "A host with hooks is for one thread: who comes second waits."
    with panel.lock:
        other = threading.Thread(target=panel.on_click)
        other.start()
        other.join(0.1)
        assert other.is_alive() and panel.clicks == 0
    other.join(5)
    assert panel.clicks == 1


def test_steps_are_done_and_their_errors_told(panel, monkeypatch):
    panel.finish()
    assert panel.left == 0
    panel.go_on()   # no kernel, no loop: nothing happens
    assert panel.left == 0
    monkeypatch.setattr(panel, "step", lambda: 1 / 0)
    panel.finish()
    assert "ZeroDivisionError" in panel.message.value


def test_steps_go_between_events(panel):
    import asyncio

    async def kernel():
        panel.go_on()
        panel.go_on()   # already under way
        panel.on_click()
        await asyncio.sleep(0.2)

    asyncio.run(kernel())
    assert panel.left == 0 and panel.clicks == 1


def test_closed_it_is_free():
    expl, images = stand_in()
    made = Counter(P.Scene.of(expl, images))
    held, widgets = weakref.ref(made.state), P._below(made)
    made.close()
    gc.collect()
    assert held() is None and all(w.comm is None for w in widgets)
    assert not made._one(), "and what was left to do is not done"


def test_figures_share_one_script():
    one, two = (P.live(go.Figure(go.Scatter(y=[1, 2]))) for _ in range(2))
    assert one.script == two.script and len(one._esm) < 12000 and one.script in one.get_state()["script"]
    one.close()
    assert P.LiveFigure(go.Figure()).script == two.script, "a figure that ends does not take it away"
    P._script().close()
    assert P.LiveFigure(go.Figure()).script != two.script, "who closed it gets another"


@pytest.mark.parametrize("values, first", [
    (np.array([0, 1, -1]), "#"), (np.array([[0.0, 0.5, 1.0]] * 3), "rgb"), (np.array([[3.0], [4.0], [np.nan]]), "rgb")])
def test_points_have_colors(values, first):
    found = P.point_colors(values)
    assert len(found) == 3 and all(c.startswith(first) for c in found[:2])


def test_a_scene_says_what_it_needs():
    expl, images = stand_in()
    for wrong, says in ((lambda: P.Scene.of(expl), "pictures to choose from"),
                        (lambda: P.Scene(expl, images.images[:1]), "at least two pictures"),
                        (lambda: P.Scene(expl, images.images[0]), "at least two pictures"),
                        (lambda: P.Scene.of(expl, images, {"z": torch.zeros(3, 2)}), "rows of map 'z'"),
                        (lambda: P.Scene.of(expl, images).check_row(len(images)), "a picture 0 to")):
        with pytest.raises(DataError, match=says): wrong()


def test_contact_sheets():
    x = np.linspace(-1, 1, 3 * 3 * 4 * 4).reshape(3, 3, 4, 4).astype(np.float32)
    made = P.contact_sheet(x, ["<a>", "b", "c"], [False, True, False])
    assert made.count("<i ") == 3 and made.count("iin-wrong") == 1 and "&lt;a&gt;" in made and "<a>" not in made
    assert P.contact_sheet(x[:0]).count("<i ") == 0
    assert P.thumbnails(torch.zeros(1, 3, 100, 50)).shape == (1, 3, 32, 16) and P.thumbnails(torch.zeros(1, 3, 9, 9)).shape == (1, 3, 9, 9)
