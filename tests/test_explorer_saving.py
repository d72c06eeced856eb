"""One page that answers alone: what is in it, and what is refused."""
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from iin_nb.core import DataError
from iin_nb.explorers.saving import Control, Moving, Pictures, Pointed, Texts, saved_page

X = np.zeros((6, 3, 4, 4), np.float32)
CONTROLS = [Control("kind", ["a", "b"], slider=False), Control("step", ["0", "1", "2"], start=1)]


def told(page):
    "What the page's script is given, by a JSON that knows no NaN."
    def refuse(token): raise AssertionError(token)
    return json.loads(re.search(r"<script type='application/json' id='data'>(.*?)</script>", page, re.S)[1], parse_constant=refuse)


def test_every_choice_has_its_frame():
    moving = Moving(go.Figure(go.Scatter(x=[0], y=[0])), {0: {"y": [[i, np.nan] for i in range(6)]}})
    data = told(saved_page("T", "lead", CONTROLS, [Pictures(X, "c"), [Texts(list("abcdef")), moving]], "foot"))
    assert [c["options"] for c in data["controls"]] == [["a", "b"], ["0", "1", "2"]]
    pictures, texts, figure = data["views"]
    assert pictures["n"] == 6 and texts["frames"] == list("abcdef") and figure["traces"][0]["frames"]["y"][5] == [5, None]


@pytest.mark.parametrize("view", [Pictures(X[:5], "c"), Texts(["a"] * 7), Moving(go.Figure(go.Scatter()), {0: {"y": [[0]] * 2}})])
def test_a_missing_frame_is_refused(view):
    with pytest.raises(DataError, match="explorers.saved_page: expected 6 frames, one a choice"): saved_page("T", "", CONTROLS, [view])


def test_one_picture_is_for_all_choices(): assert told(saved_page("T", "", CONTROLS, [Pictures(X[:1], "c")]))["views"][0]["n"] == 1


def test_choices_may_share_a_picture():
    made = told(saved_page("T", "", CONTROLS, [Pictures(X[:2], "c", at=[0, 1, 1, 0, 1, 1])]))["views"][0]
    assert made["n"] == 2 and made["at"] == [0, 1, 1, 0, 1, 1]
    with pytest.raises(DataError, match="expected 6 frames, one a choice, got 5"):
        saved_page("T", "", CONTROLS, [Pictures(X[:2], "c", at=[0] * 5)])


def test_what_is_seen_is_told_above_it():
    views = [Pictures(X, "squares", rows=["above", "<below>"], columns=["left"]), Moving(go.Figure(), caption="a plot"), Pictures(X)]
    body = saved_page("T", "", CONTROLS, views).partition("<body>")[2]
    for k, caption in enumerate(("squares", "a plot")):
        assert 0 < body.index(f"<figcaption>{caption}</figcaption>") < body.index(f"id='v{k}'")
    assert body.count("<figcaption>") == 2 and body.count("class='grid'") == 1
    assert "<span title='&lt;below&gt;'>&lt;below&gt;</span></div><div id='v0'" in body


def test_a_list_stands_below_a_tuple_side_by_side():
    dots = [Texts(list("abcdef"))] * 2
    body = saved_page("T", "", CONTROLS, [dots, tuple(dots)]).partition("<body>")[2]
    assert re.search(r"<div class='row'><div><div id='v0'.*<div id='v1'.*</div><div class='row'><div id='v2'.*<div id='v3'", body)


def test_nothing_said_breaks_out():
    evil = "</script><!--<script>alert(1)</script>"
    page = saved_page(evil, "", [Control(evil, [evil, "b"], slider=False)], [Texts([evil, "b"]), Pictures(X[:1], evil)])
    body = page.partition("<body>")[2]
    assert body.count("</script>") == 2 and "<!--" not in body and "&lt;/script&gt;" in body
    assert told(page)["controls"][0]["options"][0] == evil


def test_nothing_comes_from_elsewhere():
    page = saved_page("T", "", CONTROLS, [Pictures(X, "c"), Pointed(X, [f"<b>{i}</b>" for i in range(6)])])
    body = page.partition("<body>")[2]
    assert not re.search(r"(src|href)=['\"](?!data:)", body) and "<link" not in page and "<!doctype html>" in page
    assert told(page)["views"][1]["titles"][3] == "3"


def test_pictures_are_no_css_variable():
    "Chromium drops one over 2 MB without a word."
    page = saved_page("T", "", CONTROLS, [Pictures(X, "c"), Pointed(X, list("abcdef"))])
    assert not re.search(r"--[a-z]+: *url", page)
    assert all(f"#v{k}.sprite, #v{k} .sprite {{background-image: url(data:" in page for k in (0, 1))
