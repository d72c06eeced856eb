"""The browse explorer: which points lie inside of a line, and that a selection on one map is seen on all."""
import numpy as np
import pytest
import torch
from test_explorer_factors import N, stand_in

from iin_nb.core import DataError
from iin_nb.data import ImageSet

pytest.importorskip("ipywidgets")
from iin_nb import explorers
from iin_nb.explorers import browse_panel as B

ALL = {"type": "rect", "x0": -1e3, "x1": 1e3, "y0": -1e3, "y1": 1e3, "xref": "x", "yref": "y"}


@pytest.fixture
def panel():
    made = explorers.browse(*stand_in("logits"))
    yield made
    made.close()


def around(panel, name, row, r=1e-3):
    "A small box around one input on a map."
    x, y = panel.state.xy[name][row].astype(float)
    return ALL | {"x0": x - r, "x1": x + r, "y0": y - r, "y1": y + r}


def drawn(panel, name, *shapes):
    "What the browser sends when lines are drawn."
    panel.maps[name]._js2py_relayout = {"relayout_data": {"selections": list(shapes)}, "source_view_id": "one"}


def lines(panel, name): return B.lines_of(panel.maps[name])


@pytest.mark.parametrize("k", [3, 4, 7, 40])
def test_inside_is_what_angles_say(k):
    g = np.random.RandomState(k)
    line = np.stack([np.cos(a := np.sort(g.rand(k) * 6.28)), np.sin(a)], 1) * g.uniform(0.5, 1.5, (k, 1))
    xy = g.uniform(-1.6, 1.6, (400, 2))
    to = line[None] - xy[:, None]
    turn = np.angle(np.roll(to[..., 0] + 1j * to[..., 1], -1, 1) / (to[..., 0] + 1j * to[..., 1])).sum(1)   # ±2π inside of a simple line
    assert np.array_equal(B.inside([line], xy), np.abs(turn) > np.pi)


def test_lines_come_as_boxes_and_paths():
    path = B.rings({"type": "path", "path": "M-1.5,2e-1L3,.5L1,4ZM0,0L1,0L1,1Z"})
    assert [len(r) for r in path] == [3, 3] and path[0][0].tolist() == [-1.5, 0.2]
    assert B.inside(B.rings(ALL), np.zeros((1, 2))).all()
    hole = B.rings(ALL) + B.rings(ALL | {"x0": -1, "x1": 1, "y0": -1, "y1": 1})
    assert B.inside(hole, np.array([[0.0, 0], [5, 5]])).tolist() == [False, True]


def test_a_selection_on_one_map_is_seen_on_all(panel):
    drawn(panel, "kind", around(panel, "kind", 7))
    assert panel.message.value == "" and panel.state.selected[7] and 1 <= panel.state.selected.sum() < N
    for fig in panel.maps.values(): assert list(fig.data[0].selectedpoints) == np.flatnonzero(panel.state.selected).tolist()
    assert panel.sheet.value.count("<i ") == panel.state.selected.sum()
    kinds = panel.state.labels["kind"][panel.state.selected]
    assert panel.shares["kind"].data[0].customdata.tolist() == np.bincount(kinds, minlength=3).tolist()


def test_another_map_takes_over_and_clear_lets_go(panel):
    drawn(panel, "kind", around(panel, "kind", 7))
    drawn(panel, "z", around(panel, "z", 3), around(panel, "z", 4))
    assert panel.state.selected[[3, 4]].all() and not lines(panel, "kind") and len(lines(panel, "z")) == 2
    panel.clear.click()
    assert panel.state.selected is None and not lines(panel, "z") and panel.maps["z"].data[0].selectedpoints is None


def test_what_the_browser_says_of_the_look_does_no_harm(panel):
    "It sends an undefined opacity, for which plotly puts an object that it does not take itself."
    drawn(panel, "z", around(panel, "z", 3) | {"opacity": "_undefined_", "line": {"dash": "dot"}})
    assert panel.message.value == "" and panel.state.selected[3]
    panel.maps["z"].to_json()


def test_an_empty_line_is_a_selection_of_nothing(panel):
    drawn(panel, "z", ALL | {"x0": 900})
    assert "<b>0</b>" in panel.says.value and list(panel.maps["kind"].data[0].selectedpoints) == [] and panel.message.value == ""
    drawn(panel, "z")
    assert panel.state.selected is None


def test_a_moved_line_counts_anew(panel):
    drawn(panel, "z", around(panel, "z", 3))
    panel.maps["z"]._js2py_relayout = {"relayout_data": {"selections[0].x0": -1e3, "selections[0].x1": 1e3, "selections[0].y0": -1e3,
                                                         "selections[0].y1": 1e3}, "source_view_id": "one"}
    assert panel.state.selected.all()


def test_answers_are_those_of_the_host(panel):
    seen = panel.state.look()
    direct = panel.state.expl.decode(panel.state.encoded).argmax(1).numpy()
    assert np.array_equal(seen.votes, direct)


def test_answers_that_take_long_come_by_and_by(monkeypatch):
    expl, images = stand_in()
    monkeypatch.setitem(B.PORTION, "images", 7)
    panel = explorers.browse(expl, images, read=lambda x: x.flatten(1)[:, :3])
    assert panel.sheet.value.count("…") > 0 and "7 of the selected so far" in panel.asked.layout.title.text
    panel.finish()
    assert "…" not in panel.sheet.value and panel.asked.layout.title.text.endswith(", selected") and not len(panel.state.left())
    assert (panel.state.look().votes >= 0).sum() == len(images)


def test_more_than_are_drawn():
    expl, images = stand_in("logits")
    many = ImageSet(images.images.repeat(30, 1, 1, 1), images.table.iloc[np.tile(np.arange(N), 30)].reset_index(drop=True), 0, "noise")
    panel = explorers.browse(expl, many)
    assert len(panel.state.dots) == 1500 and "1,800 points, 1,500 drawn" in panel.maps["z"].layout.title.text.replace("<br>", " ")
    before = panel.maps["z"].layout.images[0].source
    drawn(panel, "z", around(panel, "z", 5))
    assert panel.state.selected.sum() >= 30, "counted among all, drawn or not"
    assert panel.maps["z"].layout.images[0].source != before
    shown = panel.state.dots[list(panel.maps["residual"].data[0].selectedpoints)]
    assert panel.state.selected[shown].all() and set(shown) == set(panel.state.dots) & set(np.flatnonzero(panel.state.selected))


def test_the_image_has_every_point():
    xy = np.random.RandomState(0).rand(500, 2)
    seen = B.cloud(xy, np.full((500, 3), 99.0), None, 64)
    left, right, low, high = B.frame(xy)
    at = ((xy - [left, low]) / [right - left, high - low] * 64).astype(int)
    assert (seen[63 - at[:, 1], at[:, 0], 3] > 0).all() and (seen[..., 3] > 0).sum() == len({tuple(p) for p in at})
    faint = B.cloud(xy, np.full((500, 3), 99.0), np.arange(500) == 3, 64)
    assert (faint[..., 3] > 120).sum() == 1


def test_pictures_without_a_reader_and_the_page():
    expl, images = stand_in()
    panel = explorers.browse(expl, images)
    assert panel.asked is None and "<b>" not in panel.sheet.value
    panel.by.value = "color"
    page = panel.page()
    assert page.partition("<body>")[2].count("data:image/png") == 1 and len(page) < 15e6 and panel.message.value == ""


@pytest.mark.parametrize("slip", [
    lambda s: s.select("colour", []), lambda s: s.select("z", [{"path": "M0,0L1,1Z"}]), lambda s: s.take([N]),
])
def test_slips_are_refused_in_words(panel, slip):
    panel.state.take([1, 2])
    with pytest.raises(DataError, match="expected .*, got .*"): slip(panel.state)
    assert panel.state.selected.sum() == 2, "and leave the selection as it was"


def test_unlabelled_rows_are_not_counted():
    expl, images = stand_in("logits")
    table = images.table.copy()
    table.loc[:9, "kind"] = None
    table.loc[:9, "r"] = np.nan
    panel = explorers.browse(expl, ImageSet(images.images, table, 0, "noise"))
    assert panel.shares["kind"].data[0].customdata.sum() == N - 10 and panel.message.value == ""
    assert torch.is_tensor(panel.state.z)
