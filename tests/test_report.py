"""The report: complete, self-contained, honest about what fails, written whole or not at all."""
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from browser import opened
from toy_digits import CONCEPTS, SIZES, explain_digits, judge, toy_digits

from iin_nb import embed, report, scores
from iin_nb.core import DataError, HostError
from iin_nb.fit import History


@pytest.fixture(scope="module")
def found():
    "Both kinds of host, explained and scored in small."
    out, images = {}, toy_digits()[0]
    for kind, outputs in {"classifier": "logits", "autoencoder": "images"}.items():
        expl = explain_digits(outputs)
        out[kind] = expl, scores.score(expl, images, judge, n_inputs=10, n_draws=10, n_walks=2), embed.maps_of(expl, images.images)
    return out


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    "The folder of a written report, and what `write` gave back."
    folder = tmp_path_factory.mktemp("report")
    return folder, report.write(folder, toy_digits()[0], judge, found, seed=7, seconds=12.0)


class Page(HTMLParser):
    "What of a page could ask for another file, its text, and its figures."

    def __init__(self, text):
        super().__init__()
        self.asks, self.ids, self.text, self.open, self.figures, self.captions = [], [], [], [], 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.asks += [v for k, v in attrs.items()
                      if k in ("src", "href", "srcset", "action", "data") and not v.startswith(("data:", "#"))]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.figures, self.captions = self.figures + (tag == "figure"), self.captions + (tag == "figcaption")
        if tag in ("script", "style"): self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag: self.open.pop()

    def handle_data(self, data):
        if not self.open: self.text.append(data)


@pytest.fixture(scope="module")
def page(written): return Page((written[0]/"report.html").read_text(encoding="utf-8"))


# ---- what it says

@pytest.mark.parametrize("flips, said", [
    ((0.9, 0.001, 0.0), "What changes my net’s answer: the digit. What is ignored: the color and the residual."),
    ((0.9, 0.1, 0.3), "What changes my net’s answer: the digit and the residual. What sometimes changes it: the color."),
    ((0.2, 0.0, 0.0), "What sometimes changes my net’s answer: the digit. What is ignored: the color and the residual."),
    ((0.0, 0.0, 0.0), "What does not change my net’s answer: the digit, the color and the residual."),
])
def test_the_headline_says_what_changes_the_answer(flips, said):
    made = {"response": {k: {"flip_rate": v} for k, v in zip(("digit", "color", "residual"), flips, strict=True)}}
    assert report.finding("my net", made) == said
    judged = made | {"swap": {"digit": {"judge": 0.9}}}
    assert "the class that a judge reads in my net’s picture" in report.finding("my net", judged) and report.finding("my net", {}) == ""


def numbers(z_digit, z_color, mlp=None):
    "Scores with nothing but the probes."
    made = lambda d, c: {"digit": {"z": d}, "color": {"z": c}}   # noqa: E731
    return {"probe": made(z_digit, z_color), "chance": {"digit": 0.1, "color": 0.0}} | ({"probe_mlp": made(*mlp)} if mlp else {})


@pytest.mark.parametrize("digit, color, mlp, said", [
    (0.99, -0.08, None, "Its layer keeps the digit. It loses the color."),
    (0.99, 0.97, None, "Its layer keeps the digit and the color."),
    (0.99, 0.2, None, "Its layer keeps the digit. It barely keeps the color."),
    (0.6, 0.5, None, "Its layer half keeps the digit and the color."),
    (0.1, -0.5, None, "Its layer loses the digit and the color."),
    (0.99, -0.08, (0.9, 0.9), "Its layer keeps the digit and the color."),   # lost means that no probe finds it
])
def test_the_second_line_follows_the_probes(digit, color, mlp, said):
    assert report.kept(numbers(digit, color, mlp)) == said


def test_what_only_the_concepts_block_shows_counts():
    "The block is a function of z: z knows no less."
    found = numbers(0.99, -0.08, None)
    found["probe"]["color"]["color"] = 0.2
    assert report.kept(found).endswith("It barely keeps the color.")


def test_the_page_says_what_was_found(page, written):
    text = " ".join(page.text)
    assert "What changes the digit classifier’s answer: the digit. What is ignored: the color and the residual." in text
    assert "Its layer keeps the digit and the color." in text and text.count("Model card") == 2 and "Words on this page" in text
    for must in ("Certificate holds for the classifier.", "Certificate holds for the autoencoder.", "400 held-out pictures",
                 "Seed 7, 12 s in all", "judge sees the right digit", "Esser, Rombach, Ommer", "MNIST"): assert must in text, must
    assert "nan" not in text.lower().split() and "None " not in text and "{" not in text


def test_every_figure_says_how_to_read_it(page):
    assert page.figures == page.captions == " ".join(page.text).count("How to read it:") == 7 + 10
    names = {i.partition("-")[2] for i in page.ids if "-" in i}
    assert names == {"probe", "response", "walk-digit", "walk-color", "axes", "dims", "training", "analogies", "strips", "samples"}
    assert len(page.ids) == len(set(page.ids))


def test_a_certificate_that_fails_is_not_hidden(found):
    expl, s, maps = found["classifier"]
    broken = replace(expl, certificate=replace(expl.certificate, relative_error=0.02))
    said = report._certificates({"classifier": (broken, s, maps)})
    assert "CERTIFICATE FAILS for the classifier" in said and 'class="fails"' in said and "2.0 × 10<sup>−2</sup>" in said


def test_a_lost_concept_reads_well():
    found = {"probe": {"color": {"z": -0.07, "color": -0.01, "residual": -0.2}}, "chance": {"color": 0.0}, "dims": {"color": 1}}
    line = report._concept_line(found, "color", "R²")
    assert "no probe reads it from z (R² ≤ 0; chance is 0)" in line
    found["probe"]["color"] = {"z": 0.97, "color": 0.95, "residual": 0.01}
    assert "R² 0.970 from z" in (line := report._concept_line(found, "color", "R²")) and "own block of 1 dimension " in line


@pytest.mark.parametrize("x, said", [
    (None, "–"), (math.nan, "–"), (math.inf, "–"), (0.0, "0"), (0.98765, "0.988"), (-0.05, "−0.050"), (-0.0002, "0.000"),
    (28.66, "28.7"), (12345.6, "12,346")])
def test_numbers(x, said): assert report._number(x) == said


def test_the_table_of_a_run(written):
    text = report.table(written[1])
    lines = text.splitlines()
    assert sum(line.startswith(("classifier", "autoencoder")) for line in lines) == 2
    for must in ("held-out accuracy", "nats per pair", "digit from residual / digit / color / z", "walk in color", "digit swapped"):
        assert must in text, must


# ---- self-contained

def test_nothing_is_asked_from_anywhere(page, written):
    assert page.asks == []
    text = (written[0]/"report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))", text.partition("<script>")[0])
    assert text.startswith("<!doctype html>") and text.endswith("</body></html>") and len(text) < 12e6


@pytest.mark.browser
def test_it_draws_itself_without_a_network(written):
    with opened(700, 900) as page:
        page.goto((written[0]/"report.html").as_uri())
        page.wait_for_function("document.querySelectorAll('figure .main-svg').length >= 17")
        wide = page.evaluate("document.documentElement.scrollWidth")
        cut = page.evaluate("[...document.querySelectorAll('figure, .wide')].filter(e => e.scrollWidth > e.clientWidth + 1).length")
        asked, errors = page.asked, page.errors
    assert (asked, errors, wide, cut) == ([], [], 700, 0), "no request, no error, nothing scrolls sideways"


# ---- scores.json

def strict(text):
    def refuse(token): raise AssertionError(f"{token} is no JSON")
    return json.loads(text, parse_constant=refuse)


def test_scores_json_is_strict_and_complete(written):
    made = strict((written[0]/"scores.json").read_text(encoding="utf-8"))
    assert made == written[1] and made["seed"] == 7 and {"iin_nb", "torch", "python"} <= set(made["versions"])
    keys = "accuracy certificate nll dims block_scale probe swap response walk seconds".split()
    for kind in ("classifier", "autoencoder"):
        assert set(keys) <= set(made[kind])
        assert set(made[kind]["certificate"]) >= {"relative_error", "std_error", "same_prediction"}
        for key in ("dims", "block_scale", "swap", "response", "walk"): assert set(made[kind][key]) == set(SIZES), key
        assert set(made[kind]["probe"]) == set(CONCEPTS)
    assert made["classifier"]["certificate"]["same_prediction"] == 1.0
    assert made["autoencoder"]["certificate"]["same_prediction"] is None


def test_what_is_not_finite_becomes_null():
    made = report.plain({"a": math.nan, 1: [math.inf, 2.0, (True, None, "x", -math.inf)]})
    assert made == {"a": None, "1": [None, 2.0, [True, None, "x", None]]}
    assert strict(json.dumps(made, allow_nan=False)) == made


def test_a_report_with_gaps(found, tmp_path):
    "Sobol indices of a host whose answer never varies are NaN: the page has a dash, the file a null."
    expl, s, maps = found["classifier"]
    gaps = {**s, "response": {k: {**r, "sobol_first": math.nan, "sobol_total": math.nan} for k, r in s["response"].items()}}
    made = report.write(tmp_path, toy_digits()[0], judge, {"classifier": (expl, gaps, maps)})
    assert made["classifier"]["response"]["digit"]["sobol_total"] is None
    assert "total Sobol –" in report.table(made) and "NaN" not in (tmp_path/"scores.json").read_text()


def test_nothing_is_left_where_nothing_can_be_written(found, tmp_path):
    (tmp_path/"file").write_text("in the way")
    with pytest.raises(DataError, match="room and permission to write .*report.html"):
        report.write(tmp_path/"file", toy_digits()[0], judge, {"classifier": found["classifier"]})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# ---- maps

# ---- one's own

def own_set(classes=None):
    "The toy digits as somebody's own set, with a column of words and one of amounts."
    images, _ = toy_digits()
    words = images.table["class"].map(classes) if classes else images.table["class"]
    return replace(images, table=images.table.assign(**{"class": words}), n_train=200, name="my digits")


@pytest.mark.parametrize("outputs, read, figures", [
    ("logits", None, {"response", "probe", "training"}), ("images", None, {"analogies", "probe", "training"}),
    ("images", judge, {"response", "analogies", "probe", "training"})])
def test_a_page_of_ones_own(outputs, read, figures, tmp_path):
    path = report.page_of(explain_digits(outputs), own_set(), tmp_path/"mine.html", read)
    made = Page(path.read_text(encoding="utf-8"))
    text = " ".join(made.text)
    assert made.asks == [] and figures <= set(made.ids) and not ({"response", "analogies"} - figures) & set(made.ids)
    for must in ("Certificate holds for the model.", "Model card", "200 inputs to learn from, 200 held out", "linear map: digit",
                 "digit (10 classes: class), color (amount: r, g, b)", "Limits", "Words on this page",
                 "Its layer keeps the digit and the color."): assert must in text, must
    assert ("What changes" in text) == ("response" in figures) and "nan" not in text.lower().split() and "None" not in text


def test_a_page_of_its_own_without_concepts(tmp_path):
    expl = replace(explain_digits("logits", {"residual": 17}), concepts=())
    text = " ".join(Page(report.page_of(expl, own_set(), tmp_path/"page.html").read_text(encoding="utf-8")).text)
    assert "What changes the model’s answer: the residual." in text and "concepts: none" in text


@pytest.mark.parametrize("best, few", [(10, True), (80, False)])
def test_a_page_says_at_its_top_that_t_had_few_pictures(best, few, tmp_path):
    expl = explain_digits("logits")
    rows = [{"step": k, "seconds": 1.0, "train": 1.0, "held_out": abs(k - best) / 10, "lr": 1e-3} for k in (10, 20, 40, 80)]
    expl.history = History(rows, "early", best)
    page = report.page_of(expl, own_set(), tmp_path/"page.html").read_text(encoding="utf-8")
    text = " ".join(Page(page).text)
    assert ("T had too few pictures" in text) == (f"T was best at step {best} of 80" in text) == few
    assert "<nav></nav>" in page, "one section needs no links to itself"


def test_figures_take_words_for_classes():
    expl, images = explain_digits(), own_set(dict(enumerate("zero one two three four five six seven eight nine".split())))
    expl.concepts = (replace(expl.concepts[0], classes=tuple(sorted(set(images.table["class"])))), expl.concepts[1])
    rows = report._pick(images, 10, 0, "class")
    assert images.table["class"].iloc[rows.numpy()].tolist() == sorted(set(images.table["class"]))
    few = replace(images, table=images.table.assign(**{"class": [None, "a", "b", float("nan")] * 100}))
    assert few.table["class"].iloc[report._pick(few, 6, 0, "class").numpy()].tolist()[:2] == ["a", "b"]
    assert len(report.analogy_figure(expl, images).data)


def test_analogies_of_answers_are_refused_in_words():
    with pytest.raises(HostError, match="report.analogy_figure: expected a host that puts out pictures, got .* logits. Look at"):
        report.analogy_figure(explain_digits("logits"), toy_digits()[0])


def test_the_card_says_what_not_to_conclude(found):
    expl, s, _ = found["classifier"]
    row = lambda residual, digit, color: {"residual": residual, "digit": digit, "color": color, "z": 0.9}   # noqa: E731
    weak = {**s, "probe": {"digit": row(0.6, 0.3, 0.1), "color": row(0, 0, 0.9)}, "response": {"residual": {"flip_rate": 0.4}},
            "linear": {"digit": row(0.2, 0.9, 0.1), "color": row(0, 0, 0.2)}}
    even = {**weak, "linear": {"digit": row(0.6, 0.3, 0.1), "color": row(0, 0, 0.2)}}
    assert "For the digit a linear map does as well" in " ".join(report._limits(expl, even))
    said = " ".join(report._limits(expl, weak))
    for must in ("The digit block says little about the digit", "The digit is also read from another block (0.600)",
                 "A linear map's digit block says more of the digit than T's (0.900)",
                 "The residual changes 40% of the answers"): assert must in said, must
    assert "For the color" not in said and "certificate" not in said.lower()


def test_few_labels_are_counted_and_asked_for_by_ridge(tmp_path):
    "The first rows carry no label: the picture that is asked about does, and the card counts those that do."
    expl, images = explain_digits("logits"), own_set()
    table = images.table.copy()
    table["class"] = table["class"].astype(object)
    table.loc[table.index[250:], ["class", "r", "g", "b"]] = None
    images = replace(images, table=table)
    probed = report.ridge_probes(expl, images)
    assert probed["digit"]["z"] > 0.5 and set(probed) == {"digit", "color"} and not report.ridge_probes(expl, own_set())
    assert images.held_out.table["class"].notna().iloc[report._asked(images.held_out, "class", 7)]
    text = " ".join(Page(report.page_of(expl, images, tmp_path/"few.html").read_text(encoding="utf-8")).text)
    for must in ("200 inputs to learn from, 200 (50 of them labelled) held out", "ridge, on training pictures"): assert must in text, must
    assert "nan" not in text.lower().replace(",", " ").split()


def test_what_only_a_ridge_regression_finds_counts():
    found = numbers(0.99, -0.08, None) | {"ridge": {"color": {"z": 0.5}}}
    assert report.kept(found) == "Its layer keeps the digit. It half keeps the color."


def test_stored_maps_are_used_where_they_fit():
    expl, images = explain_digits(), toy_digits()[0]
    expl.maps = embed.atlas(expl, images.images, umap=False).coords
    other = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    turned = {k: v[other] if k == "digit_1d" else v for k, v in expl.maps.items()}
    expl.maps = turned | {"color": expl.maps["color"][:-1], "taste": torch.zeros(400, 2)}
    made = embed.maps_of(expl, images.images)
    used = {k for k, m in made.method.items() if m == "UMAP"}
    assert used == set(made.names) - {"digit_1d", "color"}, "a map of other rows and one of another length are not"
    assert torch.equal(made.coords["z"], expl.maps["z"]) and len(made.coords["color"]) == 400


def test_a_title_names_the_method(found):
    expl, _, maps = found["autoencoder"]
    assert "1-D PCA of the digit factor" in report.axes_figure(expl, maps, toy_digits()[0]).layout.title.text
    fig = report.walk_figure(expl, maps, toy_digits()[0], 3, "color", judge)
    assert "color factor: 1 of 10 classes, 100% of its steps" in fig.layout.title.text and "PCA of z" in fig.layout.title.text
