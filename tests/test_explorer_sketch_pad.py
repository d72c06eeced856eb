"""The sketch pad without a browser: strokes are set, the picture is read."""
import base64
import io
import json
import re

import numpy as np
import pytest
import torch

from iin_nb import figures, sketches
from iin_nb.core import DataError

pytest.importorskip("anywidget")
from iin_nb import explorers
from iin_nb.explorers import sketch_pad_widget as P

LINE = {"points": [[0.1, 0.5], [0.9, 0.5]], "size": 0.2, "color": "#1f2430"}


@pytest.fixture
def pad():
    made = explorers.sketch_pad(32)
    yield made
    made.close()


def test_blank_paper(pad):
    assert pad.image.shape == (3, 32, 32) and (pad.image == 1).all() and pad.seen.startswith("data:image/png;base64,")


def test_strokes_in_picture_out(pad):
    before = pad.seen
    pad.strokes = [LINE]
    assert torch.equal(pad.image, sketches.rasterise([LINE])) and pad.seen != before
    pad.strokes = pad.strokes[:-1]
    assert (pad.image == 1).all() and pad.seen == before


def test_what_is_shown_back_is_what_python_reads(pad):
    pad.strokes = [LINE]
    back = P.picture_of(pad.seen, 32)
    assert torch.allclose(back, pad.image, atol=1.01 / 127.5)


def test_from_a_browser_the_same_strokes_arrive(pad):
    "A message as the browser sends it: JSON has no tuples and no torch."
    pad.set_state({"strokes": json.loads(json.dumps([LINE])), "ground": "#102030", "brush": 0.25, "color": "#ffffff"})
    assert torch.equal(pad.image, sketches.rasterise([LINE], 32, "#102030")) and pad.brush == 0.25 and pad.color == "#ffffff"


def test_a_loaded_picture_is_the_ground(pad):
    picture = np.full((3, 40, 60), -1, np.float32)
    pad.picture = figures.data_uri(figures.pixels(picture))
    assert (pad.image == -1).all()
    pad.strokes = [LINE | {"color": "#ffffff"}]
    assert pad.image[:, 16, 16].tolist() == [1, 1, 1] and pad.image[:, 2, 2].tolist() == [-1, -1, -1]
    pad.clear()
    assert (pad.image == 1).all() and pad.strokes == [] and pad.picture == ""


@pytest.mark.parametrize("name, value", [
    ("strokes", [LINE | {"points": [[0, 2]]}]), ("strokes", ["x"]), ("strokes", [LINE | {"size": -1}]),
    ("strokes", [LINE | {"color": "blue"}]),
    ("ground", "white"), ("color", "#fff"), ("brush", 0.0), ("brush", 1.5), ("size", 3), ("picture", "data:image/png;base64,AAAA"),
    ("picture", "https://example.org/cat.png"), ("picture", "data:image/png;base64,*")])
def test_slips_are_refused_and_change_nothing(pad, name, value):
    pad.strokes = [LINE]
    before, seen = getattr(pad, name), pad.image
    with pytest.raises(DataError, match="explorers.sketch_pad.*: expected .*, got .*"): setattr(pad, name, value)
    assert getattr(pad, name) == before and torch.equal(pad.image, seen)


def test_builder_passes_everything_on():
    pad = explorers.sketch_pad(48, [LINE], "#f0f0f0", "#b03a2e", 0.1)
    assert pad.image.shape == (3, 48, 48) and (pad.ground, pad.color, pad.brush, len(pad.strokes)) == ("#f0f0f0", "#b03a2e", 0.1, 1)


def test_the_script_stands_alone():
    "No import, no address: nothing is fetched. Every trait the browser uses is synchronised."
    assert "import" not in P.SCRIPT and "http" not in P.SCRIPT and "export default { render }" in P.SCRIPT
    used = set(re.findall(r'(?:get|set|send)\("(\w+)"', P.SCRIPT))
    synced = set(P.SketchPad.class_traits(sync=True))
    assert used and used <= synced and {"strokes", "picture", "ground", "brush", "color", "seen", "size"} <= used


def test_a_transparent_or_gray_picture_can_be_loaded(pad):
    from PIL import Image
    for mode in ("L", "RGBA", "P"):
        out = io.BytesIO()
        Image.new(mode, (20, 20)).save(out, "PNG")
        pad.picture = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
        assert pad.image.shape == (3, 32, 32)
