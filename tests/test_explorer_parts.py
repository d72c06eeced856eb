"""What the explorers share: manners of a panel, figures that share one script, the scene."""
import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from test_explorer_factors import stand_in

from iin_nb import explorers, figures
from iin_nb.core import DataError
from iin_nb.embed import Maps, atlas
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

    def more(self):
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
    monkeypatch.setattr(panel, "more", lambda: 1 / 0)
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


class Making(Maps):
    "UMAPs that come when the test says so: all of the atlas' names, at (row number, 0)."

    def __init__(self, atlas):
        self.atlas, self.names, self.coords, self.done = atlas, atlas.names, {}, False

    def over(self): return self.done
    def result(self, timeout=0.0): return self.atlas

    def come(self, *names):
        n = torch.arange(len(self.atlas.z), dtype=torch.float32)[:, None]
        self.coords = self.coords | {k: n if k.endswith("_1d") else torch.cat([n, 0 * n], 1) for k in names}


@pytest.mark.parametrize("name", ["factors", "walk", "response", "browse", "samples"])
def test_maps_are_swapped_when_they_come(name):
    expl, images = stand_in("logits")
    making = Making(atlas(expl, images.images, umap=False))
    panel = getattr(explorers, name)(expl, images, maps=making)
    charts = panel.charts if name == "factors" else panel.maps.values() if name == "browse" else [panel.map]
    on_z = next(c for c in charts if c.layout.title.text.startswith("z"))
    assert "PCA for now" in on_z.layout.title.text
    if name == "browse": panel.state.take([3])
    panel.take_maps()
    assert "PCA for now" in on_z.layout.title.text, "none has come"
    making.come("z")
    panel.take_maps()
    assert "UMAP" in on_z.layout.title.text and list(on_z.data[0].x) == list(range(len(images)))
    assert all("PCA for now" in c.layout.title.text for c in charts if c is not on_z), "the others are still to come"
    making.come(*making.names)
    making.done = True
    panel.finish()
    assert all("UMAP" in c.layout.title.text for c in charts) and panel.state.coming is None and not panel.message.value
    if name == "browse": assert list(on_z.data[0].selectedpoints) == [3] and on_z.layout.xaxis.range[1] > len(images) - 1
    if name in ("factors", "response", "samples"): assert abs(on_z.data[-1].x[0] - panel.state.index) < 0.5, "the × has moved along"
    if name == "walk": assert abs(on_z.data[-1].y[0]) < 1e-6
    panel.close()


@pytest.mark.parametrize("name", ["factors", "walk", "browse", "samples"])
def test_a_page_waits_for_no_map(name, tmp_path):
    "Nothing comes to a saved page: what is ready is taken, and a PCA is one for good."
    expl, images = stand_in("logits")
    making = Making(atlas(expl, images.images, umap=False))
    panel = getattr(explorers, name)(expl, images, maps=making)
    saved = panel.to_html(tmp_path/"page.html").read_text()
    assert "PCA, 2-D" in saved and "for now" not in saved and panel.state.coming is making, "the panel still waits"
    making.come("z")
    assert "UMAP, 2-D" in panel.to_html(tmp_path/"page.html").read_text()
    panel.close()


def test_maps_come_between_events():
    import asyncio
    expl, images = stand_in()
    making = Making(atlas(expl, images.images, umap=False))

    async def kernel():
        panel = explorers.walk(expl, images, maps=making)
        making.come(*making.names)
        await asyncio.sleep(0.8)
        assert "UMAP" in panel.map.layout.title.text
        panel.close()
        await asyncio.sleep(0.6)   # nobody waits for the rest any more

    asyncio.run(kernel())


def test_the_process_may_end_early():
    "What is missing stays the PCA, and says so no longer."
    expl, images = stand_in()
    making = Making(atlas(expl, images.images, umap=False))
    panel = explorers.walk(expl, images, maps=making)
    making.done = True
    panel.finish()
    assert "PCA, 2-D" in panel.map.layout.title.text and not panel.message.value
    panel.close()


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


@pytest.mark.parametrize("name", ["factors", "walk", "response", "analogies", "browse", "samples"])
def test_explorers_say_what_they_take(name):
    expl, images = stand_in("logits")
    build, where = getattr(explorers, name), f"^explorers.{name}: expected "
    with pytest.raises(DataError, match=f"{where}an ImageSet, got Tensor. Pass images.held_out."): build(expl, images.images)
    with pytest.raises(DataError, match=f"{where}an Explanation, got ImageSet. Make one"): build(images, expl)


def answering(order):
    "A host whose output j means kind order[j] of a, b, c, by its own answers."
    expl, images = stand_in("logits")
    said = np.array(list("abc"))[np.array(order)[expl.decode(expl.encode(images.images)).argmax(1)]]
    return expl, replace(images, table=images.table.assign(kind=said))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_answers_have_the_names_the_host_gives_them(order):
    "In every explorer, whatever the alphabet says; a picture is told wrong only if it is."
    expl, images = answering(order)
    names, colors = [["a", "b", "c"][j] for j in order], figures.class_colors(order)
    scene = P.Scene.of(expl, images)
    assert list(scene.named.names) == names and scene.vote_colors([0, 1, 2]) == colors and scene.answer == "predicted class"
    shown = [explorers.factors(expl, images).bars, explorers.samples(expl, images).bars, explorers.browse(expl, images).asked]
    for fig in shown: assert list(fig.data[0].text) == names and list(fig.data[0].marker.color) == colors
    walk, response, browse = (getattr(explorers, k)(expl, images) for k in ("walk", "response", "browse"))
    assert list(walk.votes.layout.yaxis.ticktext) == list(response.bars.layout.xaxis.ticktext) == names
    first = images.table["kind"][0]
    assert f"answer before: <b>“{first}”</b>" in response.says.value and f"<b>“{first}”</b>" in explorers.factors(expl, images).answer.value
    browse.finish()
    assert "iin-wrong" not in browse.sheet.value
    assert f">{first}</span>" in explorers.analogies(expl, images, targets=[0]).grids["color"].value


@pytest.mark.parametrize("data", [stand_in("logits"), (answering((2, 0, 1))[0], stand_in()[1])])
def test_answers_that_no_column_agrees_with_have_numbers(data):
    scene = P.Scene.of(*data)
    assert scene.named.names == ("0", "1", "2") and scene.named.concept is None and scene.named.said(1) == "class 1"
    browse = explorers.browse(*data)
    browse.finish()
    assert "iin-wrong" not in browse.sheet.value and "answer before: <b>class" in explorers.response(*data).says.value


def test_a_host_that_answers_needs_no_reader():
    expl, images = answering((2, 0, 1))
    assert P.Scene.of(expl, images, read=lambda y: 1 / 0).named.names == ("c", "a", "b")


def shown(fig): return next(t for t in fig.data if t.mode == "text")


def stripes(n=300):
    "Classes in stripes side by side, and rows of one map."
    g = np.random.RandomState(0)
    kinds = np.arange(n) % 3
    return kinds, torch.tensor(np.stack([kinds * 2.0 + 0.2 * g.randn(n), g.rand(n)], 1)).float()


def small(names, xy, classes):
    fig = figures.factor_axes(xy[:, 0], xy[:, 1], "shape", "color", classes, names=names, width=198, height=170)
    P.small_names(fig, xy.numpy(), classes, names)
    return shown(fig)


def test_long_names_find_room_on_small_maps():
    classes, xy = stripes()
    xy[classes == 0, 0] += 1   # nearer to each other than their names are wide
    words = "circle", "square", "triangle"
    found = small(words, xy, classes)
    assert sorted(found.text) == [f"<b>{w}</b>" for w in words] and found.textfont.size == 12
    assert np.ptp(found.y) > 0.25, "one stands above the others, or below"
    digits = figures.factor_axes(xy[:, 0], xy[:, 1], "shape", "color", classes, names=("1", "2", "3"), width=198, height=170)
    before = tuple(shown(digits).text)
    P.small_names(digits, xy.numpy(), classes, ("1", "2", "3"))
    assert shown(digits).text == before and shown(digits).textfont.size == 16, "short ones stay large"


def test_classes_that_are_mixed_have_no_names_on_small_maps():
    classes, xy = stripes()
    mixed = np.random.RandomState(1).permutation(classes)
    assert small(("circle", "square", "triangle"), xy, mixed).text == ()


def test_a_name_of_many_words_is_broken():
    classes, xy = stripes()
    xy[classes == 2, 0] -= 2   # two classes share a place and a name
    xy[:, 1] = xy[:, 1] / 10 + torch.from_numpy(classes == 0)
    said = small(("circle", "a red square", "a triangle"), xy, classes).text
    assert set(said) & {"<b>a red square,<br>a triangle</b>", "<b>a triangle,<br>a red square</b>"}


def test_maps_side_by_side_are_level():
    look, titles = dict(what="UMAP", width=198, height=170), ("z", "the shape of it × the color of it")
    figs = [P.live(figures.embedding(np.random.rand(9, 2), title=t, **look)) for t in titles]
    tops = [f.layout.margin.t for f in figs]
    at = [(1 - f.layout.title.y) * f.layout.height for f in figs]
    assert tops[0] < tops[1]
    P.level(figs)
    assert {f.layout.margin.t for f in figs} == {tops[1]} and len({f.layout.height for f in figs}) == 1
    assert [(1 - f.layout.title.y) * f.layout.height for f in figs] == pytest.approx(at), "titles hang from the top as before"


def test_contact_sheets():
    x = np.linspace(-1, 1, 3 * 3 * 4 * 4).reshape(3, 3, 4, 4).astype(np.float32)
    made = P.contact_sheet(x, ["<a>", "b", "c"], [False, True, False])
    assert made.count("<i ") == 3 and made.count("iin-wrong") == 1 and "&lt;a&gt;" in made and "<a>" not in made
    assert P.contact_sheet(x[:0]).count("<i ") == 0
    assert P.thumbnails(torch.zeros(1, 3, 100, 50)).shape == (1, 3, 32, 16) and P.thumbnails(torch.zeros(1, 3, 9, 9)).shape == (1, 3, 9, 9)
