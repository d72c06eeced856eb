"""What the tour of the explorers says of the shipped models is so: nbs/gallery/explorers.ipynb."""
import json
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets")
from iin_nb import explanation, explorers

TOUR = Path(__file__).resolve().parent.parent/"nbs/gallery/explorers.ipynb"


@pytest.fixture(scope="module")
def autoencoder(): return explanation.shipped("digits-autoencoder")


def test_the_tour_leaves_its_panels_open():
    source = "".join("".join(c["source"]) for c in json.loads(TOUR.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    assert not any(word in source for word in ("close()", "assert", "finish()")), "it is to be looked at"
    assert all(f"explorers.{name}(" in source for name in explorers.__all__)


def test_the_digit_changes_the_answer_and_the_rest_is_ignored():
    response = explorers.response(explanation.shipped("digits-classifier"), index=2)
    while response.state.grow(): pass
    moved = {k: float(r.flip_rate[0]) for k, r in response.state.look().answers.items()}
    assert moved["digit"] > 0.5 > 0.1 > max(moved["color"], moved["residual"])
    response.close()


def test_the_residuals_cross_stands_still_while_the_digit_moves(autoencoder):
    panel = explorers.factors(autoencoder, index=1)
    at = panel.state.charts.index(("residual",))
    still = panel.state.look().marks[at]
    panel.rows["digit"].slider.value = 0.7
    assert panel.state.look().marks[at] == still and panel.state.look().error < 1e-5
    panel.close()


def test_a_walk_in_the_digit_gets_about_and_one_in_the_residual_stays(autoencoder):
    walk, seen = explorers.walk(autoencoder, index=2), {}
    for factor in walk.state.names:
        walk.which.value = factor
        seen[factor] = len(set(walk.state.look(200).votes.tolist()))
    assert seen["digit"] >= 5 and seen["color"] <= 2 and seen["residual"] <= 2
    walk.close()


def test_draws_with_the_digit_held_keep_it(autoencoder):
    samples = explorers.samples(autoencoder, index=9, held=("digit",))
    assert (samples.state.look().votes == samples.state.labels["digit"][9]).mean() >= 0.8
    samples.close()
