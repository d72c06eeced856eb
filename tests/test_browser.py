"""Every explorer in JupyterLab in a real Chromium, and its saved page without a kernel: it is drawn, it answers, it asks nobody else."""
import re
from io import BytesIO

import pytest
from browser import lab, notebook, opened, run_all
from PIL import Image

pytestmark = pytest.mark.browser
READY = ".iin-panel .js-plotly-plot .main-svg"
START = "import iin_nb as iin\nclassifier, autoencoder = (iin.explanation.shipped(f'digits-{k}') for k in ('classifier', 'autoencoder'))"


@pytest.fixture(scope="module")
def window():
    "One browser for all tests here."
    with opened(1200, 1300) as page: yield page


@pytest.fixture(scope="module")
def address(tmp_path_factory, window):
    "One JupyterLab for all tests here; each has a notebook and a kernel of its own."
    folder = tmp_path_factory.mktemp("lab")
    with lab(folder) as url: yield folder, url


@pytest.fixture
def page(window):
    "The browser's page; afterwards nothing may have been asked from elsewhere, and nothing have gone wrong."
    window.asked.clear()
    window.errors.clear()
    yield window
    assert window.asked == [] and window.errors == []


@pytest.fixture
def live(address, page, request):
    "Runs cells in a new notebook and gives the page."
    folder, url = address
    name = re.sub(r"\W+", "_", request.node.name) + ".ipynb"

    def run(*sources, ready=READY):
        notebook(folder/name, START, *sources)
        run_all(page, url, name, ready)
        return page

    yield run
    wide = "[...document.querySelectorAll('.jp-OutputArea-output')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.evaluate(wide) == 0, "nothing scrolls sideways"
    page.evaluate("void jupyterapp.commands.execute('kernelmenu:shutdown')")


def says(page, pattern, timeout=20_000):
    "Wait until the panel's text has `pattern`."
    page.wait_for_function("p => new RegExp(p).test(document.querySelector('.iin-panel').innerText)", arg=pattern, timeout=timeout)


def at(page, selector, x, y):
    "The place on the screen of a point (x, y) in [0, 1]² of what a selector finds first."
    page.locator(selector).first.scroll_into_view_if_needed()
    box = page.locator(selector).first.bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


PLOTS = "[...document.querySelectorAll('.iin-panel .js-plotly-plot')]"
MARKS = f"{PLOTS}.map(g => [...g.data.at(-1).x ?? []].slice(0, 1))"   # where the last trace, of a map the red ×, is
# the menus' first words; their spaces do not break
CHOSEN = r"[...document.querySelectorAll('.iin-panel select')].map(e => e.selectedOptions[0].innerText.split(/\s/)[0])"
PICTURE = "document.querySelector('.iin-panel img.iin-crisp, .iin-panel .iin-crisp img').src"
REACH = """(() => {   // pixels from the top of the picture to the lowest slider
  const at = (kind, k) => [...document.querySelector('.iin-panel').querySelectorAll(kind)].at(k).getBoundingClientRect();
  return at('[role=slider]', -1).bottom - at('img.iin-crisp, .iin-crisp img', 0).top; })()"""


def test_factors(live):
    "A slider moved by keyboard changes the picture and moves the ×; of two explorers only the one that was touched; one is closed."
    page = live("panel = iin.explorers.factors(autoencoder)\npanel", "other = iin.explorers.factors(classifier)\nother")
    page.wait_for_function(f"document.querySelectorAll('{READY}').length >= 2 * 6 && document.querySelectorAll('.iin-panel')[1]")
    picture, other = page.evaluate(PICTURE), "document.querySelectorAll('.iin-panel')[1].innerText"
    there, second = page.evaluate(MARKS)[4], page.evaluate(other)
    assert page.evaluate(REACH) < 720, "sliders and picture are on one screen"
    page.get_by_role("slider").first.focus()
    for _ in range(30): page.keyboard.press("ArrowRight")
    page.wait_for_function(f"was => {PICTURE} != was", arg=picture)
    says(page, r"0\.30")
    page.wait_for_function(f"was => {MARKS}[4][0] != was", arg=there[0])
    assert page.evaluate(other) == second
    page.get_by_role("button", name="reset").first.click()
    page.wait_for_function(f"was => {MARKS}[4][0] == was", arg=there[0])
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.92, 0.93))   # the last picture of the contact sheet
    page.wait_for_function(f"{CHOSEN}[0] == '#41'")


def test_walk(live):
    "It plays, pauses, is wound back; a click on the map is a new start."
    page = live("panel = iin.explorers.walk(autoencoder)\npanel")
    page.locator(".iin-panel .widget-play button").first.click()
    says(page, r"step [5-9] of 200")
    page.locator(".iin-panel .widget-play button").first.click()
    assert page.locator(".iin-panel .jp-OutputArea, .iin-panel img").count() >= 5, "the strip has grown"
    page.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    says(page, "step 0 of 200")
    before = page.evaluate(MARKS)[0][0]
    spot = page.evaluate("""() => {
        const g = document.querySelector('.iin-panel .js-plotly-plot'), b = g.getBoundingClientRect(), l = g._fullLayout;
        const i = g.data[0].x.findIndex((x, k) => Math.hypot(x - g.data.at(-1).x[0], g.data[0].y[k] - g.data.at(-1).y[0]) > 4);
        return [b.x + l._size.l + l.xaxis.d2p(g.data[0].x[i]), b.y + l._size.t + l.yaxis.d2p(g.data[0].y[i])]; }""")
    page.mouse.move(*spot)
    page.mouse.click(*spot)
    page.wait_for_function(f"was => {MARKS}[0][0] != was", arg=before)


def test_response(live):
    "A click on the contact sheet asks another input; Sobol indices arrive by themselves."
    page = live("panel = iin.explorers.response(classifier)\npanel")
    says(page, "input #0")
    counts = f"{PLOTS}.at(-1).data.slice(2).map(t => [t.name, Math.round([...t.y].reduce((sum, v) => sum + (v || 0), 0))])"
    assert page.evaluate(counts) == [["digit", 250], ["color", 250], ["residual", 250]], "every factor is drawn, 250 answers each"
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.25, 0.07))
    says(page, "input #1 ")
    says(page, r"\d\.\d{3} \(\d\.\d{3} to", 60_000)


def test_analogies(live):
    "A click on the sheet takes a source in; an error is told in the panel, not in a log."
    broken = "panel.state.toggle = lambda role, i: 1 / 0 if i == 55 else type(panel.state).toggle(panel.state, role, i)"
    page = live(f"panel = iin.explorers.analogies(classifier)\n{broken}\npanel")
    says(page, "5 of 6 sources")
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.04, 0.4))
    says(page, "6 of 6 sources")
    page.wait_for_timeout(500)   # two clicks at once are a double click
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.97, 0.9))
    says(page, "ZeroDivisionError")


def test_browse(live):
    "A line drawn on one map is seen on all, also one that is drawn while the kernel is busy."
    page = live("import time\npanel = iin.explorers.browse(classifier)\npanel", "time.sleep(6)", ready=READY)
    says(page, "nothing selected")
    left, top = at(page, ".iin-panel .nsewdrag", 0.02, 0.02)
    right, low = at(page, ".iin-panel .nsewdrag", 0.6, 0.6)
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 5)): page.mouse.move(x, y, steps=5)
    page.mouse.up()
    says(page, r"[1-9]\d* of 1,500 selected", 30_000)
    n = int(page.evaluate("document.querySelector('.iin-panel').innerText.match(/(\\d+) of 1,500 selected/)[1]"))
    shown = f"{PLOTS}.slice(0, 4).map(g => (g.data[0].selectedpoints || []).length)"
    page.wait_for_function(f"n => ({shown}).every(v => v == n)", arg=n)


def test_samples(live):
    "A ticked factor is held."
    page = live("panel = iin.explorers.samples(autoencoder)\npanel")
    says(page, "nothing held")
    page.get_by_role("checkbox").first.check()
    says(page, "digit held, color, residual drawn")


def test_sketch_pad(live):
    "A stroke arrives in Python, which shows back what it has; undo takes it away."
    page = live("pad = iin.explorers.sketch_pad()\npad", ready="canvas")
    back = "document.querySelector('canvas').closest('.jp-OutputArea-output').querySelector('img').src"
    blank = page.evaluate(back)
    page.mouse.move(*at(page, "canvas", 0.2, 0.2))
    page.mouse.down()
    page.mouse.move(*at(page, "canvas", 0.8, 0.8), steps=8)
    page.mouse.up()
    page.wait_for_function(f"was => {back} != was", arg=blank)
    page.get_by_role("button", name="undo").click()
    page.wait_for_function(f"was => {back} == was", arg=blank)


TRAINED = """
from dataclasses import replace
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
class Words:
    def encode(self, texts): return torch.tensor([[float(w in t.split()) for w in NUMBERS] for t in texts])
import torch
NUMBERS = "zero one two three four five six seven eight nine".split()
digits = replace(iin.data.color_digits().rows(0, 800), n_train=700)
quick = dict(recipe=Recipe(n_steps=4, eval_every=2), batch=64, baseline=False)
painter, texts = iin.zoo.load("digits-autoencoder"), [f"a {NUMBERS[k]}" for k in digits.table["class"]]
quick["config"] = FlowConfig(64, n_blocks=2, hidden=16)
"""


def test_translate(live):
    "A typed sentence is painted; the way from A to B follows by itself; a slider moves along it; v drawn again is another."
    page = live(TRAINED, "t = iin.translate(Words(), painter, (texts, digits.images), **quick)\n"
                "panel = iin.explorers.translate(t, texts, 'a seven', 'a three', iin.zoo.judge())\npanel",
                ready=".iin-panel .iin-sheet")
    says(page, "v 1 to v 3 of the samples")
    says(page, "one of the known sentences")
    sheets = "[...document.querySelectorAll('.iin-panel .iin-sheet')].map(e => e.style.cssText)"
    first, way = page.evaluate(sheets)
    page.locator(".iin-panel input[type=text]").first.fill("an eight")
    page.keyboard.press("Enter")
    page.wait_for_function(f"was => {sheets}[0] != was", arg=first)
    page.wait_for_function(f"was => {sheets}[1] != was", arg=way)
    says(page, "nearest known: “a eight”")
    page.get_by_role("slider").first.focus()
    for _ in range(5): page.keyboard.press("ArrowRight")
    says(page, "10 samples of 5% of the way from A to B")
    drawn = page.evaluate(sheets)[0]
    page.get_by_role("button", name="draw again").click()
    page.wait_for_function(f"was => {sheets}[0] != was", arg=drawn)


LAYERS = TRAINED + """
reader = iin.zoo.load("digits-classifier")
inv = iin.invariances(reader, painter, digits, ["features", "head"], autoencoder, **quick)
"""


def test_invariances(live):
    "The table of many inputs comes by itself; another input, a layer less, v drawn again: all are seen."
    page = live(LAYERS + "panel = iin.explorers.invariances(inv, iin.data.color_digits().held_out)\npanel")
    says(page, r"features\s+-?\d\.\d\d \(", 60_000)
    sheets = "[...document.querySelectorAll('.iin-panel .iin-sheet')].map(e => e.style.cssText)"
    first = page.evaluate(sheets)
    assert len(first) == 2, "a row of samples a layer"
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.25, 0.07))
    page.wait_for_function(f"{CHOSEN}[0] == '#1'")
    page.wait_for_function(f"was => {sheets}[0] != was", arg=first[0])
    page.get_by_role("checkbox", name="head").uncheck()
    page.wait_for_function(f"{sheets}.length == 1")
    drawn = page.evaluate(sheets)[0]
    page.get_by_role("button", name="draw again").click()
    page.wait_for_function(f"was => {sheets}[0] != was", arg=drawn)


def test_mix(live):
    "A click sets A, then B; swapped, both mixes change places."
    page = live(LAYERS + "panel = iin.explorers.mix(inv, iin.data.color_digits().held_out)\npanel")
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.25, 0.5))
    page.wait_for_function(f"{CHOSEN}[0] == '#19'")
    page.locator(".iin-panel").get_by_role("button", name="B", exact=True).click()
    page.wait_for_timeout(500)   # two clicks at once are a double click
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.97, 0.07))
    page.wait_for_function(f"{CHOSEN}[1] == '#5'")
    page.get_by_role("button", name="swap").click()
    page.wait_for_function(f"{CHOSEN}.join() == '#5,#19'")


def test_attack(live):
    "The slider of ε changes the attacked picture and what layers see, and at 0 nothing is left of it."
    page = live(LAYERS + "panel = iin.explorers.attack(inv, iin.data.color_digits().held_out)\npanel")
    sheets = "[...document.querySelectorAll('.iin-panel .iin-sheet')].map(e => e.style.cssText)"
    first = page.evaluate(sheets)
    assert len(first) == 1 + 2 * 3, "the pictures, and three rows a layer"
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"was => {sheets}[0] != was", arg=first[0])
    page.keyboard.press("Home")
    page.mouse.click(*at(page, ".iin-panel .nsewdrag", 0.25, 0.07))
    page.wait_for_function(f"{CHOSEN}[0] == '#1'")
    says(page, r"attacked 1\.00, random signs 1\.00")


PAGES = {"factors": "classifier", "walk": "autoencoder", "response": "classifier", "analogies": "classifier", "browse": "classifier",
         "samples": "autoencoder", "translate": "t, texts", "invariances": "inv, digits", "mix": "inv, digits", "attack": "inv, digits"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    "The page of an explorer, as `to_html` writes it."
    folder, known = tmp_path_factory.mktemp("pages"), {}
    exec(f"{START}\n{LAYERS}\nt = iin.translate(Words(), painter, (texts, digits.images), **quick)", known)

    def write(name):
        panel = eval(f"iin.explorers.{name}({PAGES[name]})", known)
        panel.to_html(folder/f"{name}.html")
        panel.close()
        return folder/f"{name}.html"

    return write


def colors_of(page, selector):
    "How many colors a piece of the page has: one, where nothing is drawn."
    found = page.locator(selector).first
    found.scroll_into_view_if_needed()
    return len(Image.open(BytesIO(found.screenshot())).convert("RGB").getcolors(1 << 24))


OVERLAPS = """(() => {
  const all = [...document.querySelectorAll('table, div.sprite, .js-plotly-plot, figcaption, .control')];
  const where = all.map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()]);
  const both = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]) > 1;   // pixels
  const meet = (a, b) => both(a, b, 'left', 'right') && both(a, b, 'top', 'bottom');
  return where.flatMap(([said, a], i) => where.slice(i + 1).filter(([, b]) => meet(a, b)).map(([other]) => [said, other])); })()"""


@pytest.mark.parametrize("name", PAGES)
def test_a_saved_page_answers_alone(saved, page, name):
    "Without a kernel and a network it is drawn, light and dark, follows its sliders and menus, and does not scroll sideways at 900 px."
    path = saved(name)
    assert path.stat().st_size < 15e6
    page.set_viewport_size({"width": 900, "height": 1200})
    page.goto(path.as_uri())
    drawn = ".main-svg, .sprite, [style*='grid']"
    page.wait_for_selector(drawn)
    assert colors_of(page, drawn) > 20
    if "," in PAGES[name]: assert re.search(r"Computed before: .*\d", page.locator("p.soft").inner_text()), "it says what it holds"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, re.findall(r"\d+", ground)[:3])) < 80) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert page.evaluate(OVERLAPS) == [], "nothing lies on something else"
    state = "[...document.querySelectorAll('.js-plotly-plot')].map(g => JSON.stringify(g.data).length) + document.body.outerHTML"
    before, control = page.evaluate(state), page.locator("input[type=range], select").last
    control.focus()
    page.keyboard.press("ArrowRight" if control.get_attribute("type") == "range" else "ArrowDown")
    page.wait_for_function(f"was => {state} != was", arg=before)
