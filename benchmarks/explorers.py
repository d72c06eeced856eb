"""Measure the explorers.

    python benchmarks/explorers.py kernel        milliseconds of an event in the kernel, every explorer, both shipped explanations
    python benchmarks/explorers.py place         placing 200 points on UMAPs of 9,800, against umap-learn's transform
    python benchmarks/explorers.py points [N]    frames a second on four maps of N (100,000) points: lasso, pan, zoom (a box)
    python benchmarks/explorers.py page          milliseconds from a slider to the picture in JupyterLab; seconds to open `factors` cold
    python benchmarks/explorers.py sketches      concepts from two sketches, three seeds
    python benchmarks/explorers.py all

Each part prints its numbers, puts them into explorers.json beside this file and writes RESULTS.md anew.
`points` compares two ways: all points as WebGL points, and what `explorers.browse` does above 1,500, a sample as points over a still
image of all."""
import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from table import write_table

from iin_nb import data, embed, explanation, explorers, figures
from iin_nb.explorers.browse_panel import cloud, frame, inside, numbers
from iin_nb.explorers.parts import MAX_POINTS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"tests"))
from browser import lab, notebook, opened, run_all

KINDS = ("classifier", "autoencoder")

COUNT = """() => {window.times = []; const step = t => {window.times.push(t); window.ticking = requestAnimationFrame(step)};
  window.ticking = requestAnimationFrame(step)}"""


def events(name: str, panel, n: int, g: np.random.RandomState) -> list:
    "`n` things a person does to an explorer, as functions to call: what is dragged or clicked most."
    rows = g.permutation(len(panel.state.images))[:n]
    if name == "factors":
        sliders = [row.slider for row in panel.rows.values()]
        return [partial(setattr, sliders[i % len(sliders)], "value", t) for i, t in enumerate(g.rand(n))]
    if name == "walk": return [partial(setattr, panel.step, "value", t) for t in range(1, n + 1)]
    if name == "analogies": return [partial(panel.on_click, [i]) for i in g.randint(len(panel.sheet.data[1].x), size=n)]
    if name == "browse":
        def select(chart: str, center: np.ndarray):
            low, high = center - 1.5, center + 1.5
            box = dict(type="rect", x0=low[0], y0=low[1], x1=high[0], y1=high[1], xref="x", yref="y")
            with panel.quiet(): panel.maps[chart].layout.selections = [box]
            panel.on_select(chart)
        charts = [panel.state.charts[k % len(panel.state.charts)] for k in range(n)]
        return [partial(select, c, panel.state.xy[c][i]) for c, i in zip(charts, rows, strict=True)]
    if name == "samples": return [panel.again.click] * n
    return [partial(panel.on_click, [int(i)]) for i in rows]   # response, and a new start of a walk


def kernel(n: int = 200) -> dict:
    "Median and 95th percentile of `n` events in each explorer, milliseconds from the event to the last trait that is set."
    found = {}
    for kind in KINDS:
        expl = explanation.shipped(f"digits-{kind}")
        for name in ("factors", "walk", "walk: new start", "response", "analogies", "browse", "samples"):
            panel, times = getattr(explorers, name.split(":")[0])(expl), []
            for event in events(name, panel, n, np.random.RandomState(0)):
                start = time.perf_counter()
                event()
                times.append(1000 * (time.perf_counter() - start))
            if panel.message.value: raise RuntimeError(panel.message.value)
            panel.close()
            median, slow = np.percentile(times, [50, 95])
            found.setdefault(name, {})[kind] = {"median": round(float(median), 1), "p95": round(float(slow), 1), "n": len(times)}
            print(name, kind, found[name][kind], file=sys.stderr)
    return found


ALONE = """import sys, time
import numpy as np, torch
from iin_nb import embed
found = []
for reference, coords, new in torch.load(sys.argv[1]):
    start = time.perf_counter()
    push, times = embed.repulsion(coords), [time.perf_counter() - start]
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        embed.umap_place(reference, coords, new, push)
        times.append(time.perf_counter() - start)
    found.append((1000 * times[0], 1000 * float(np.median(times[1:]))))
print(found)"""


def alone(cases: list[tuple], n: int = 100) -> list[tuple]:
    "Milliseconds of a map's field, once, and of `n` placements, median: in a Python that never loads umap-learn, like an explorer's."
    with tempfile.TemporaryDirectory() as folder:
        torch.save(cases, f"{folder}/cases.pt")
        done = subprocess.run([sys.executable, "-c", ALONE, f"{folder}/cases.pt", str(n)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.replace("(", "[").replace(")", "]"))


def place(n: int = 200, seeds: tuple[int, ...] = (42, 1, 2, 3)) -> dict:
    """Milliseconds and median distances: ours to umap-learn's places, and umap-learn's under one seed to those under another.

    umap-learn looks for neighbours among more than 4,096 points with an index of its own seed, which misses some, always the same. So
    three ways: that index as fitted (`theirs`), an index under another seed each time (`index`), and no misses at all (`exact`)."""
    import umap
    from umap.umap_ import nearest_neighbors
    expl, colors = explanation.shipped("digits-autoencoder"), data.color_digits()
    order = torch.randperm(len(colors), generator=torch.Generator().manual_seed(0))
    z = torch.cat([expl.host.encode(x) for x in colors.images.split(500)])[order]
    both, found, cases = expl.from_z(z), {}, []
    apart = lambda a, b: float((a - b).norm(dim=1).median())
    for name, x in {"z": z, **{k: both[k] for k in expl.layout.names}, "digit_1d": both["digit"]}.items():
        known, new, slow, places = x[n:].numpy(), x[:n], [], {"theirs": [], "index": [], "exact": []}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mapper = umap.UMAP(n_components=2 - name.endswith("_1d"), random_state=0).fit(known)
        coords, fitted = torch.from_numpy(mapper.embedding_.copy()), mapper._knn_search_index
        true, seen = (embed._nearest(x[n:], new, 15)[0].numpy(), fitted.query(new.numpy(), 15, epsilon=0.12)[0])   # as `transform` asks
        row = {"index_finds": float(np.mean([np.isin(t, s).mean() for t, s in zip(true, seen, strict=True)]))}
        for way, seed in [("theirs", 0), *((w, s) for w in places for s in seeds)]:   # the first compiles
            mapper.transform_seed, mapper._small_data, mapper._knn_search_index = seed, way == "exact", fitted
            if way == "index":
                mapper._knn_search_index = nearest_neighbors(known, 15, "euclidean", {}, False, np.random.RandomState(seed))[2]
                mapper._knn_search_index.prepare()
            start = time.perf_counter()
            places[way].append(torch.from_numpy(mapper.transform(new.numpy())))
            if way == "theirs": slow.append(1000 * (time.perf_counter() - start))
        ours = embed.umap_place(x[n:], coords, new)
        for way, theirs in places.items():
            theirs = theirs[-len(seeds):]
            row[f"ours_to_{way}"] = float(np.mean([apart(ours, t) for t in theirs]))
            row[f"{way}_to_{way}"] = float(np.mean([apart(a, b) for i, a in enumerate(theirs) for b in theirs[:i]]))
        found[name] = row | {"transform_ms": float(np.median(slow[1:])), "std": coords.std(0).tolist(), "references": len(coords)}
        cases.append((x[n:], coords, new))
        print(name, found[name], file=sys.stderr)
    for row, (field, ours) in zip(found.values(), alone(cases), strict=True): row |= {"field_once_ms": field, "ours_ms": ours}
    return found


def maps(n: int, way: str, seed: int = 0) -> list[go.Figure]:
    "Four maps of ten heaps, `way` 'all' or 'sample'."
    g = np.random.RandomState(seed)
    classes, made = g.randint(10, size=n), []
    css = figures.class_colors(classes)
    for _ in range(4):
        xy = 6 * g.randn(10, 2)[classes] + g.randn(n, 2)
        rows = np.arange(n) if way == "all" else np.sort(g.permutation(n)[:MAX_POINTS])
        kind = go.Scattergl if way == "all" else go.Scatter
        dots = kind(x=xy[rows, 0], y=xy[rows, 1], mode="markers", marker=dict(size=3.5, color=[css[i] for i in rows]), hoverinfo="none")
        left, right, low, high = frame(xy)
        fig = go.Figure(dots, dict(template="iin", width=286, height=300, dragmode="lasso", hovermode="closest"))
        fig.update_xaxes(range=[left, right]).update_yaxes(range=[low, high])
        if way != "all":
            image = dict(source=figures.data_uri(cloud(xy, numbers(css))), x=left, y=high, sizex=right - left, sizey=high - low)
            fig.add_layout_image(image | dict(xref="x", yref="y", sizing="stretch", layer="below"))
        made.append(fig)
    return made


def write(path: Path, made: list[go.Figure]) -> None:
    "A page with figures side by side."
    config = dict(displayModeBar=False)
    parts = [f.to_html(include_plotlyjs=i == 0, full_html=False, config=config) for i, f in enumerate(made)]
    cells = "".join(f"<div style='float: left'>{p}</div>" for p in parts)
    path.write_text(f"<!doctype html><meta charset='utf-8'><body>{cells}</body>")


SEEN = "JSON.stringify([e.layout.xaxis.range, (e.data[0].selectedpoints || []).length])"


def drag(page, tool: str, steps: int = 60) -> dict:
    "Drag on the first map, in a circle; frames meanwhile. An error if nothing came of it."
    first = f"(e => {SEEN})(document.querySelector('.js-plotly-plot'))"
    page.evaluate(f"document.querySelectorAll('.js-plotly-plot').forEach(e => Plotly.relayout(e, {{dragmode: '{tool}'}}))")
    page.wait_for_timeout(1500)
    before = page.evaluate(first)
    box = page.locator(".nsewdrag").first.bounding_box()
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] * 0.35
    page.mouse.move(x + r, y)
    page.evaluate(COUNT)
    page.mouse.down()
    for k in range(1, steps + 1):
        a = k / steps * (6.2 if tool == "lasso" else 2.5)   # to pan and to zoom it must not end where it began
        page.mouse.move(x + r * math.cos(a), y + r * math.sin(a))
        page.wait_for_timeout(16)
    page.mouse.up()
    gaps = np.diff(page.evaluate("cancelAnimationFrame(ticking), times"))
    page.wait_for_timeout(1500)
    if page.evaluate(first) == before: raise RuntimeError(f"{tool} changed nothing")
    return {"frames_per_second": round(1000 * len(gaps) / float(gaps.sum()), 1), "slowest_ms": round(float(gaps.max()))}


def points(n: int = 100_000) -> dict:
    "Frames a second for both ways and three gestures, and seconds of the even-odd test on all points."
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("sample", "all"):
            write(Path(folder)/f"{way}.html", maps(n, way))
            with opened(1300, 700) as page:
                page.set_default_timeout(120_000)
                page.goto(f"file://{folder}/{way}.html", timeout=120_000)
                page.wait_for_timeout(4000)
                found[way] = {tool: drag(page, tool) for tool in ("lasso", "pan", "zoom")}
            print(way, found[way], file=sys.stderr)
    xy, a = np.random.RandomState(0).randn(n, 2), np.linspace(0, 6.28, 200)
    start = time.perf_counter()
    inside([np.stack([np.cos(a), np.sin(a)], 1)], xy)
    return found | {"inside_seconds": round(time.perf_counter() - start, 3), "n": n}


CLOCK = """() => { window.begun = null; window.took = [];
  const begin = () => { if (window.begun === null) window.begun = performance.now(); };
  for (const kind of ['keydown', 'mousedown']) document.addEventListener(kind, begin, true);
  let computing = false;
  new MutationObserver(() => {   // what the panel says last is that it has done
    const now = !!document.querySelector('.iin-busy');
    if (computing && !now && window.begun !== null) requestAnimationFrame(() => requestAnimationFrame(() => {
      window.took.push(performance.now() - window.begun); window.begun = null; }));
    computing = now;
  }).observe(document.body, {childList: true, subtree: true}); }"""


def acts(page, name: str, n: int) -> None:
    "`n` events of an explorer by keyboard or mouse, each when the one before has been answered."
    if name in ("factors", "walk"): page.get_by_role("slider").first.focus()
    box = page.locator(".iin-panel .nsewdrag").first.bounding_box()
    columns, rows = (14, 4) if name == "analogies" else (6, 7)
    for k in range(n):
        if name in ("factors", "walk"): page.keyboard.press("ArrowRight")
        else:
            i = (5 * k + 1) % (columns * rows)
            x, y = (i % columns + 0.5) / columns, (i // columns + 0.5) / rows
            page.mouse.click(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        page.wait_for_function("n => window.took.length >= n", arg=k + 1)
        page.wait_for_timeout(400)   # two clicks at once are a double click


def page(n: int = 40) -> dict:
    "Milliseconds from key or click to the finished update in JupyterLab; seconds from a cold kernel's first cell to the picture."
    found, load = {}, "iin.explanation.shipped('digits-{}')"
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as address, opened(1300, 1300) as p:
        for name, kind in {"factors": "autoencoder", "walk": "autoencoder", "response": "classifier", "analogies": "autoencoder"}.items():
            notebook(Path(folder)/f"{name}.ipynb", f"import iin_nb as iin\niin.explorers.{name}({load.format(kind)})")
            start = run_all(p, address, f"{name}.ipynb", ".iin-panel .main-svg")
            p.wait_for_function("document.querySelectorAll('.iin-panel .js-plotly-plot .main-svg').length >= 2")
            seconds = time.monotonic() - start
            p.wait_for_timeout(6000)
            p.evaluate(CLOCK)
            acts(p, name, n)
            took = p.evaluate("window.took")
            found[name] = {"median": round(float(np.median(took))), "p95": round(float(np.percentile(took, 95))), "n": n,
                           "open_cold_seconds": round(seconds, 1)}
            print(name, found[name], file=sys.stderr)
            p.evaluate("void jupyterapp.commands.execute('kernelmenu:shutdown')")
    return found


def sketches(seeds: tuple[int, ...] = (0, 1, 2)) -> dict:
    "What nbs/gallery/two_sketches.ipynb measures, for three seeds: its own definitions are run."
    import nbformat
    cells = nbformat.read(Path(__file__).resolve().parent.parent/"nbs/gallery/two_sketches.ipynb", as_version=4).cells
    by_id, space = {c.id: c.source for c in cells}, {}
    for name in ("f0e2432f", "b99c6c71", "aaea29b2", "8a671dfb", "8157db79", "c829ecd0"):
        exec(by_id[name], space)
    return {str(seed): json.loads(space["judged"](space["explained"](seed), seed).to_json()) for seed in seeds}


PARTS = {"kernel": kernel, "place": place, "points": points, "page": page, "sketches": sketches}
STORE = Path(__file__).with_name("explorers.json")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in (*PARTS, "all"): sys.exit(__doc__)
    for name in PARTS if sys.argv[1] == "all" else sys.argv[1:2]:
        found = PARTS[name](*map(int, sys.argv[2:]))
        print(json.dumps({name: found}, indent=2))
        known = json.loads(STORE.read_text()) if STORE.exists() else {}
        STORE.write_text(json.dumps(known | {name: found}, indent=1) + "\n")
    write_table(json.loads(STORE.with_name("results.json").read_text()), STORE.with_name("RESULTS.md"))
