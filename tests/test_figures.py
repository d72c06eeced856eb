"""Figures: pictures at whole multiples and exact, one look, what must not be left out, and nothing that draws or runs on its own."""
import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iin_nb import figures as F
from iin_nb.core import DataError, ShapeError

go = pytest.importorskip("plotly.graph_objects")
rng = np.random.default_rng(0)


def pictures(*shape): return rng.uniform(-1, 1, (*shape, 3, 8, 8)).astype(np.float32)


def decoded(fig, n=0):
    from PIL import Image
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(fig.data[n].source.partition(",")[2]))))


def plot_size(fig):
    m = fig.layout.margin
    return fig.layout.width - m.l - m.r, fig.layout.height - m.t - m.b


COORDS, CLASSES = rng.normal(size=(60, 2)), rng.integers(0, 3, 60)
ALL = {
    "grid": lambda: F.picture_grid(pictures(2, 3), ["a", "b"], "xyz", "title", "below"),
    "analogies": lambda: F.analogies(pictures(2), pictures(3), {"digit": pictures(2, 3)}, pictures(2), pictures(2, 3)),
    "strips": lambda: F.strips({"z": pictures(5), "z̃": pictures(3)}),
    "map": lambda: F.embedding(COORDS, CLASSES, mark=(0, 0)),
    "lanes": lambda: F.embedding(COORDS[:, :1], CLASSES),
    "axes": lambda: F.factor_axes(COORDS[:, 0], COORDS[:, 1], "digit", "color", CLASSES),
    "walk": lambda: F.walk_map(COORDS, CLASSES, COORDS[:9], CLASSES[:9]),
    "response": lambda: F.response_bars({"digit": np.array([3, 0, 7])}, "abc", 2, {"digit": {"σ": 0.9}}),
    "probes": lambda: F.probe_matrix({"digit": {"digit": 0.9, "residual": 0.1}}, {"digit": 0.1}),
    "training": lambda: F.training_curve(pd.DataFrame({"step": [1, 2], "train": [3.0, 2.0], "held_out": [3.0, 4.0]}), "nats"),
    "dims": lambda: F.dims_bars({"ours": {"digit": 2, "residual": 3}}),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_figure_is_a_figure_in_our_look(make, capsys):
    fig = make()
    assert type(fig) is go.Figure and capsys.readouterr().out == ""
    assert fig.layout.template.layout.paper_bgcolor == "#ffffff"
    assert fig.update_layout(template="iin_dark").layout.template.layout.paper_bgcolor != "#ffffff"
    assert fig.layout.paper_bgcolor is None and fig.layout.font.color is None, "paper and ink come from the template alone"
    assert fig.layout.width <= F.WIDTH
    fig.to_json()


@pytest.mark.parametrize("shape, width", [((1, 1), 900), ((2, 3), 900), ((5, 17), 900), ((3, 40), 400)])
def test_pictures_are_shown_at_whole_multiples(shape, width):
    fig = F.picture_grid(pictures(*shape), [f"row {i}" for i in range(shape[0])], [str(i) for i in range(shape[1])], "a title", width=width)
    (w, h), x, y = plot_size(fig), fig.layout.xaxis.domain, fig.layout.yaxis.domain
    sheet = decoded(fig).shape
    across, down = w * (x[1] - x[0]) / sheet[1], h * (y[1] - y[0]) / sheet[0]
    assert across == pytest.approx(down) and across == pytest.approx(round(across)) and 1 <= round(across) <= 8


def test_panels_do_not_overlap_and_stay_inside():
    title = "a title that is much too long for a panel as small as this"
    parts = [F.Panel(pictures(2, n), ["row"] * 2, ["a long label"] * n, title) for n in (1, 4, 3)]
    fig = F.panels(parts, "three", per_row=2)
    boxes = [(fig.layout[f"xaxis{n}"].domain, fig.layout[f"yaxis{n}"].domain) for n in ("", 2, 3)]
    assert all(0 <= low < high <= 1 for box in boxes for low, high in box)
    for i, (x, y) in enumerate(boxes):
        for u, v in boxes[:i]: assert x[0] >= u[1] or u[0] >= x[1] or y[0] >= v[1] or v[0] >= y[1]


def test_pixels_are_exact():
    grid = pictures(2, 3)
    sheet = decoded(F.picture_grid(grid))
    assert (sheet[9:17, 18:26, :3] == ((grid[1, 2] + 1) * 127.5).round().transpose(1, 2, 0)).all()
    assert (sheet[8] == 0).all(), "rows are parted by a transparent line"


def test_gray_and_missing_pictures():
    gray = np.zeros((1, 2, 1, 4, 4), np.float32)
    gray[0, 1] = np.nan
    sheet = F.montage(gray)
    assert sheet.shape == (4, 9, 4) and (sheet[:, :4, :3] == 128).all() and (sheet[:, 5:, 3] == 0).all()


def test_enlarging_repeats_pixels():
    from PIL import Image
    sheet = F.montage(pictures(1, 1))
    big = np.asarray(Image.open(io.BytesIO(F.png(sheet, 3))))
    assert big.shape == (24, 24, 4) and (big[1::3, 1::3] == sheet).all() and (big[::3, ::3] == sheet).all()


def test_analogies_show_originals_reconstruction_and_control():
    targets, sources, swapped, rebuilt, control = pictures(2), pictures(3), pictures(2, 3), pictures(2), pictures(2, 3)
    fig = F.analogies(targets, sources, {"digit": swapped}, rebuilt, control)
    at = lambda sheet, r, c: sheet[r * 9:r * 9 + 8, c * 9:c * 9 + 8, :3]   # noqa: E731
    shown = lambda x: F.pixels(x)[..., :3]                                 # noqa: E731
    for n, grid in enumerate((swapped, control)):
        sheet = decoded(fig, n)
        assert (at(sheet, 2, 0) == shown(targets[1])).all() and (at(sheet, 2, 1) == shown(rebuilt[1])).all()
        assert (at(sheet, 0, 4) == shown(sources[2])).all() and (at(sheet, 2, 4) == shown(grid[1, 2])).all()
    with pytest.raises(TypeError, match="control"): F.analogies(targets, sources, {"digit": swapped}, rebuilt)


def test_classes_and_factors_keep_their_colors():
    assert F.class_colors([3])[0] == F.points(COORDS[:1], np.array([3])).marker.color[0] == F.class_colors(np.arange(10))[3]
    assert len({*F.CLASS_COLORS, *F.FACTOR_COLORS, F.HERE}) == 20
    assert F.FACTOR_COLORS[:4] == ("#4058e8", "#2fb98c", "#dc4fa7", "#7e981d")   # pages made earlier keep their look
    assert list(F.factor_colors(["residual", *"abcdefgh"]).values()) == list(F.FACTOR_COLORS)   # eight concepts, eight hues
    assert F.factor_colors(["residual", "digit", "color"]) == F.factor_colors(["digit", "color", "residual"])
    bars = {t.name: t.marker.color for t in F.dims_bars({"a": {"residual": 1, "digit": 1}}).data}
    assert bars == F.factor_colors(["residual", "digit"])


def test_unlabelled_points_are_gray_and_have_no_label():
    classes = np.array([-1, 0, 1])
    assert F.points(COORDS[:3], classes).marker.color[0] == F.GRAY
    assert len(F.class_labels(COORDS[:3], classes).text) == 2


def test_a_shared_label_reads_from_left_to_right():
    coords, classes = np.array([[0.3, 0], [0.0, 0], [9.0, 1], [9.1, 0]]), np.array([4, 7, 1, 2])
    assert set(F.class_labels(coords, classes).text) == {"<b>7, 4</b>", "<b>1</b>", "<b>2</b>"}


def test_mixed_classes_have_no_label():
    g = np.random.default_rng(0)
    clumps, classes = g.normal(size=(400, 2)) * 0.1, np.arange(400) % 4
    clumps[classes == 1] += [3, 0]
    clumps[classes == 2] += [0, 3]   # classes 0 and 3 lie on each other
    clumps[classes == 3] += [0.4, 0]
    assert set(F.class_labels(clumps, classes).text) == {"<b>0</b>", "<b>1</b>", "<b>2</b>", "<b>3</b>"}
    assert not F.class_labels(g.normal(size=(400, 2)), np.arange(400) % 4).text, "no place is any class's own"


def test_names_stay_inside_the_frame():
    places = np.array([[0.0, 0], [10, 10], [5, 5], [0, 5], [5, 10]])
    label = F.class_labels(places, np.arange(5))
    assert dict(zip(label.text, label.textposition, strict=True)) == {
        "<b>0</b>": "top right", "<b>1</b>": "bottom left", "<b>2</b>": "middle center", "<b>3</b>": "middle right",
        "<b>4</b>": "bottom center"}


def test_points_of_a_color_map_have_that_very_color():
    assert F.points(COORDS[:2], colors=[[0, 0.5, 1], [2, -1, 0]]).marker.color == ("rgb(0,128,255)", "rgb(255,0,0)")


def test_walk_ends_at_the_cross_and_begins_at_the_ring():
    path = rng.normal(size=(7, 2)).astype(np.float32)
    fig = F.walk_map(COORDS, CLASSES, path, None)
    rings = [t for t in fig.data if t.marker.symbol == "circle-open"]
    crosses = [t for t in fig.data if t.marker.symbol == "x"]
    assert all((t.x[0], t.y[0]) == tuple(path[0]) for t in rings) and all((t.x[0], t.y[0]) == tuple(path[-1]) for t in crosses)
    assert crosses[0].marker.color == ("white", F.HERE)
    assert "6 steps" in fig.layout.title.text


def test_response_keeps_the_class_order_and_marks_the_answer():
    counts = {"digit": np.array([3, 0, 7]), "residual": np.array([0, 0, 10])}
    fig = F.response_bars(counts, ["zero", "one", "two"], 2, {"digit": {"σ": 0.9}})
    assert list(fig.data[0].x) == ["zero", "one", "two"] and fig.layout.yaxis.type == "log"
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (1.5, 2.5)
    assert not F.response_bars({"digit": np.ones(3)}, "abc", None, {"digit": {"σ": 0.9}}).layout.shapes


def test_long_titles_are_wrapped_and_given_room():
    short, long = F.picture_grid(pictures(1, 2), title="a"), F.picture_grid(pictures(1, 2), title="many words " * 20)
    assert "<br>" in long.layout.title.text and long.layout.margin.t > short.layout.margin.t + 20


@pytest.mark.parametrize("call, error", [
    (lambda: F.pixels(np.zeros((8, 8, 3))), ShapeError),
    (lambda: F.montage(pictures(3)), ShapeError),
    (lambda: F.picture_grid(pictures(3)), ShapeError),
    (lambda: F.analogies(pictures(2), pictures(3), {"digit": pictures(3, 2)}, pictures(2), pictures(2, 3)), ShapeError),
    (lambda: F.points(COORDS[:, :1]), ShapeError),
    (lambda: F.points(COORDS[:0]), DataError),
    (lambda: F.embedding(COORDS[:0, :1]), DataError),
    (lambda: F.strips({}), DataError),
    (lambda: F.dims_bars({}), DataError),
    (lambda: F.walk_map(COORDS, CLASSES, COORDS[:0], None), DataError),
    (lambda: F.response_bars({"digit": np.ones(2)}, "abc", 0, {"digit": {"σ": 0.0}}), ShapeError),
    (lambda: F.training_curve(pd.DataFrame({"step": [], "train": [], "held_out": []}), "nats"), DataError),
])
def test_bad_input_is_refused_in_words(call, error):
    with pytest.raises(error, match=r"^figures\.\w+.*: expected .*, got .*\. \w"): call()


def test_the_feature_tables_pictures_are_drawn_for_their_size():
    "README shows them about 270 pixels wide: drawn at twice that, words of 22 pixels are read."
    from PIL import Image
    folder = Path(__file__).resolve().parent.parent/"docs/features"
    sizes = {p.stem: Image.open(p).size for p in folder.glob("*.png")}
    assert set(sizes) == {"iin", "net2net", "invariances"} and all(w == 540 and h < 800 for w, h in sizes.values()), sizes


@pytest.mark.parametrize("end, cut", [(2347.0, True), (-40.0, False)])
def test_a_rise_of_validation_leaves_the_rest_to_be_seen(end, cut):
    frame = pd.DataFrame({"step": [5, 10, 75, 525], "train": [-40.0, -48.0, -90.0, -240.0], "held_out": [-47.0, -51.0, -42.0, end]})
    fig = F.training_curve(frame, "nats", 10)
    said = [a.text for a in fig.layout.annotations]
    assert "kept: −51" in " ".join(said) and any("goes on to 2,347" in t for t in said) == cut
    assert (fig.layout.yaxis.range is not None) == cut
    if cut: assert fig.layout.yaxis.range[0] < -240 and -40 < fig.layout.yaxis.range[1] < 500, "all of training, and where the rise begins"
