"""Sketches: strokes painted, strokes redrawn, and the set that a sketched concept is trained on."""
import numpy as np
import pandas as pd
import pytest
import torch

from iin_nb import data, sketches
from iin_nb.core import DataError
from iin_nb.pairs import Pairs, concepts


def scribble(px, size=32, color=sketches.INK, ground=sketches.PAPER):
    turn = np.linspace(0, 2 * np.pi, 60)
    loop = np.stack([0.5 + 0.33 * np.cos(turn), 0.34 + 0.2 * np.sin(turn)], 1).tolist()
    wave = np.stack([0.14 + 0.72 * turn / 6.3, 0.76 + 0.11 * np.sin(1.5 * turn)], 1).tolist()
    return sketches.rasterise([{"points": p, "size": px / 32, "color": color} for p in (loop, wave)], size, ground)


def bars(lean):
    at = [[[x + 0.3 * lean, 0.2], [x - 0.3 * lean, 0.8]] for x in (0.25, 0.5, 0.75)]
    return sketches.rasterise([{"points": p, "size": 0.08, "color": sketches.INK} for p in at])


@pytest.fixture(scope="module")
def digits():
    whole = data.color_digits()
    return data.ImageSet(whole.images[:160], whole.table[:160], 120, "few", whole.redraw)


@pytest.fixture(scope="module")
def both(digits):
    first = sketches.from_sketches(digits, bars(0), bars(0.6), "slant", ("upright", "leaning"), "slant")
    return sketches.from_sketches(first, scribble(1.8), scribble(4.6), "stroke", ("thin", "bold"))


# ---- strokes

@pytest.mark.parametrize("size", [8, 32, 65])
def test_painting_is_deterministic_and_in_range(size):
    a, b = scribble(3, size), scribble(3, size)
    assert a.shape == (3, size, size) and torch.equal(a, b) and a.min() >= -1 and a.max() <= 1 and a.min() < 0


def test_a_line_is_as_wide_as_its_brush():
    line = sketches.rasterise([{"points": [[0.1, 0.5], [0.9, 0.5]], "size": 0.25, "color": "#000000"}])
    assert float((1 - line[0, :, 16]).sum() / 2) == pytest.approx(8, abs=0.3)


def test_later_strokes_cover_earlier_ones_and_a_picture_can_be_the_ground():
    dots = [{"points": [[0.5, 0.5]], "size": 0.5, "color": c} for c in ("#ff0000", "#0000ff")]
    assert sketches.rasterise(dots)[:, 16, 16].tolist() == [-1, -1, 1]
    below = torch.rand(3, 32, 32).mul(255).round() / 127.5 - 1
    assert torch.allclose(sketches.rasterise([], picture=below), below, atol=1e-5)
    assert sketches.rasterise(dots, picture=below)[:, 16, 16].tolist() == [-1, -1, 1]


LINE = {"points": [[0, 0], [1, 1]], "size": 0.1, "color": "#000000"}


@pytest.mark.parametrize("slip", [
    "a line", [[0, 0]], [{"points": [[0, 0]]}], [LINE | {"more": 1}], [LINE | {"points": []}], [LINE | {"points": [[0]]}],
    [LINE | {"points": [[0, 1.01]]}], [LINE | {"points": [[0, float("nan")]]}], [LINE | {"points": [["0", 0]]}], [LINE | {"size": 0}],
    [LINE | {"size": 2}], [LINE | {"size": True}], [LINE | {"color": "red"}], [LINE | {"color": "#12345"}], [LINE | {"points": 3}]])
def test_strokes_that_cannot_be_drawn_are_refused(slip):
    with pytest.raises(DataError, match="expected .*, got .*"): sketches.rasterise(slip)


# ---- ink and lines

def test_ink_ground_and_pen_make_the_picture(digits):
    i, ground, pen = sketches.ink(digits.images)
    assert torch.allclose(sketches.inked(i, ground, pen), digits.images, atol=1e-5)
    assert i.min() >= 0 and i.max() <= 1 and i.shape == (160, 1, 32, 32)


def test_lines_are_thin_and_stay_in_one_piece(digits):
    from scipy.ndimage import label
    mask = (sketches.ink(digits.images)[0][:, 0] > 0.5).numpy()
    lines = sketches.centre_lines(mask)
    assert (lines <= mask).all() and lines.sum() < 0.6 * mask.sum()
    pieces = [[label(m, np.ones((3, 3)))[1] for m in part] for part in (mask, lines)]
    assert pieces[0] == pieces[1], "no stroke is broken and none is lost"
    assert np.array_equal(sketches.centre_lines(lines), lines), "a line is peeled no further"


def test_one_picture_or_many_is_the_same(digits):
    i = sketches.ink(digits.images[:70])[0]
    assert torch.equal(sketches.distances(i)[66:67], sketches.distances(i[66:67]))


# ---- redrawing

@pytest.mark.parametrize("px", [1.8, 3, 4.6])
def test_strokes_become_as_wide_as_the_sketchs(digits, px):
    made = sketches.stylise(digits.images, scribble(px))
    assert float(sketches.stroke_width(made).nanmean()) == pytest.approx(px, abs=0.7)
    assert torch.equal(made, sketches.stylise(digits.images, scribble(px)))
    before, after = sketches.ink(digits.images), sketches.ink(made)
    assert torch.allclose(before[1], after[1], atol=0.02), "the ground stays"


def test_slants_follow_the_sketch_and_widths_do_not(digits):
    slants = [float(sketches.moment_slant(sketches.stylise(digits.images, bars(h), "slant")).mean()) for h in (-0.4, 0, 0.4)]
    assert slants[0] < slants[1] - 0.2 < slants[2] - 0.4
    width = [float(sketches.stroke_width(x).nanmean()) for x in (digits.images, sketches.stylise(digits.images, bars(0), "slant"))]
    assert width[0] == pytest.approx(width[1], abs=0.3)


def test_a_sketchs_own_colors_do_not_matter(digits):
    one, other = scribble(3), scribble(3, color="#f0e0a0", ground="#102030")
    assert torch.allclose(sketches.stylise(digits.images, one), sketches.stylise(digits.images, other), atol=0.06)


def test_pictures_without_ink_stay(digits):
    blank = torch.full((3, 3, 32, 32), 0.25)
    for how in sketches.STYLES: assert torch.equal(sketches.stylise(blank, scribble(3), how), blank)
    assert sketches.stroke_width(blank).isnan().all()


@pytest.mark.parametrize("shape", [(1, 20, 28), (3, 64, 64)])
def test_other_sizes(shape):
    x = torch.full((2, *shape), -1.0)
    x[:, :, 5:15, 8:11] = 1
    for how in sketches.STYLES:
        made = sketches.stylise(x, scribble(3), how)
        assert made.shape == x.shape and made.isfinite().all()


def test_own_style_functions(digits):
    made = sketches.stylise(digits.images[:2], scribble(3), lambda i, sketch: 1 - i)
    assert torch.allclose(sketches.ink(digits.images[:2])[1] + sketches.ink(digits.images[:2])[2], made[:, :, :1, :1], atol=1e-5)


# ---- the set

def test_the_two_lots_are_independent(both):
    assert both.table.fillna("own").groupby(["slant", "stroke"]).size().shape == (9,)


def test_the_rest_of_the_table_is_kept(digits, both):
    twice = np.arange(len(digits)).repeat(2)
    assert both.n_train == 240 and both.table[list(digits.table)].equals(digits.table.iloc[twice].reset_index(drop=True))
    own = (both.table["stroke"].isna() & both.table["slant"].isna()).to_numpy()
    assert own.any() and torch.equal(both.images[own], digits.images[twice][own])
    assert not (both.images[~own] == digits.images[twice][~own]).all(3).all(2).all(1).any()


def test_redrawing_a_part_keeps_its_rows_and_throws_a_new_lot(both):
    part = both.train.split(0.3)[1]
    again, same = part.redraw(part, 5), part.redraw(part, 5)
    for c in ("class", "source", "drawn_from"): assert again.table[c].tolist() == part.table[c].tolist()
    assert torch.equal(again.images, same.images) and not torch.equal(again.images, part.images)
    assert again.table["stroke"].fillna("").tolist() != part.table["stroke"].fillna("").tolist()
    widths = sketches.stroke_width(again.images)
    mean = {v: float(widths[(again.table["stroke"] == v).to_numpy()].nanmean()) for v in ("thin", "bold")}
    assert mean["bold"] > mean["thin"] + 2


def test_without_a_redraw_below_the_originals_come_back(digits):
    made = sketches.from_sketches(data.ImageSet(digits.images[:30], pd.DataFrame(index=range(30)), 20), scribble(1.8), scribble(4.6))
    again = made.redraw(made.redraw(made, 1), 2)
    own = again.table["stroke"].isna().to_numpy()
    assert own.any() and torch.equal(again.images[own], digits.images[:30].repeat_interleave(2, 0)[own])


def test_pairs_share_the_sketch_and_twins_all_else(both):
    pairs = Pairs(both.train.table, concepts(both.train.table, ["stroke"]))
    a, b, shared = pairs.sample(500, torch.Generator().manual_seed(0))
    said = both.train.table["stroke"].fillna("").to_numpy()
    assert shared[:, 1].tolist() == [float(u == v != "") for u, v in zip(said[a], said[b], strict=True)] and shared[:, 1].mean() > 0.2
    twin, source = (both.train.table[c].to_numpy() for c in ("twin", "source"))
    same = twin[a] == twin[b]
    assert 0.2 < same.mean() < 0.8 and (same == (source[a] == source[b])).all(), "a picture is never paired with itself but as a twin"
    assert shared[:, 0].tolist() == same.astype(float).tolist()


def test_twins_differ_in_the_sketch_alone(digits):
    made = sketches.from_sketches(digits, scribble(1.8), scribble(4.6), "stroke", ("thin", "bold"))
    for some in (made, made.redraw(made.train, 3)):
        kinds = some.table["stroke"].fillna("own").to_numpy().reshape(-1, 2)
        assert (kinds[:, 0] != kinds[:, 1]).all() and {"own", "thin", "bold"} == set(kinds.ravel())
        rest = some.table.drop(columns=["stroke", "drawn_from"])
        assert rest.iloc[::2].reset_index(drop=True).equals(rest.iloc[1::2].reset_index(drop=True)), "one color, one class, one deformation"


@pytest.mark.parametrize("slip", [
    lambda d: sketches.stylise(d.images, torch.ones(3, 32, 32)), lambda d: sketches.stylise(d.images, scribble(3)[None]),
    lambda d: sketches.stylise(d.images, scribble(3).byte()), lambda d: sketches.stylise(d.images[0], scribble(3)),
    lambda d: sketches.stylise(d.images, scribble(3), "dots"), lambda d: sketches.stylise(d.images, scribble(3) * float("nan")),
    lambda d: sketches.from_sketches(d.images, scribble(2), scribble(4)),
    lambda d: sketches.from_sketches(d, scribble(2), scribble(4), "class"),
    lambda d: sketches.from_sketches(d, scribble(2), scribble(4), values=("a", "a")),
    lambda d: sketches.from_sketches(d, scribble(2), torch.ones(3, 32, 32))])
def test_slips_are_refused_in_words(digits, slip):
    with pytest.raises(DataError, match="expected .*, got .*"): slip(digits)
