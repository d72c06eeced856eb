"""Measure the explorers in a headless Chromium.

    python benchmarks/explorers.py points [N]    frames a second on four maps of N (100,000) points: lasso, pan, zoom (a box)

Two ways are compared: all points as WebGL points, and what `explorers.browse` does above 1,500: a sample as points over a still
image of all."""
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from playwright.sync_api import sync_playwright

from iin_nb import figures
from iin_nb.explorers.browse_panel import cloud, frame, inside, numbers
from iin_nb.explorers.parts import MAX_POINTS

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
COUNT = """() => {window.times = []; const step = t => {window.times.push(t); window.ticking = requestAnimationFrame(step)};
  window.ticking = requestAnimationFrame(step)}"""


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
    import time
    found = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for way in ("sample", "all"):
            write(Path(folder)/f"{way}.html", maps(n, way))
            page = browser.new_page(viewport={"width": 1300, "height": 700})
            page.set_default_timeout(120_000)
            page.goto(f"file://{folder}/{way}.html", timeout=120_000)
            page.wait_for_timeout(4000)
            found[way] = {tool: drag(page, tool) for tool in ("lasso", "pan", "zoom")}
            print(way, found[way], file=sys.stderr)
            page.close()
        browser.close()
    xy, a = np.random.RandomState(0).randn(n, 2), np.linspace(0, 6.28, 200)
    start = time.perf_counter()
    inside([np.stack([np.cos(a), np.sin(a)], 1)], xy)
    return found | {"inside_seconds": round(time.perf_counter() - start, 3), "n": n}


if __name__ == "__main__":
    parts = {"points": points}
    if len(sys.argv) < 2 or sys.argv[1] not in parts: sys.exit(__doc__)
    print(json.dumps(parts[sys.argv[1]](*map(int, sys.argv[2:])), indent=2))
