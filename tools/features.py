"""The pictures of README's feature table, from figures of the gallery as they stand in its saved notebooks: fewer words, large enough to
be read where the table shows them, 270 pixels wide.

    python tools/features.py     # docs/features/NAME.png
"""
import ast
import base64
import re
import sys
import textwrap
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/"nbs/gallery")]
import wordings

WIDTH, INK, SOFT = 540, "#1f2430", "#555c68"   # shown at half of it
FIGURES = {   # the gallery's notebook, and a piece of the cell whose first picture is taken
    "iin": ("digits_autoencoder", "report.strip_figure"),
    "net2net": ("text_to_digits", "Eight draws of each sentence"),
    "invariances": ("digit_invariances", "z of one picture, v of the other"),
}


def picture(name: str, piece: str) -> tuple[np.ndarray, str]:
    "The first PNG that the cell with `piece` in its source puts out, (H, W, 3), and the source."
    nb = nbformat.read(ROOT/f"nbs/gallery/{name}.ipynb", as_version=4)
    cells = [c for c in nb.cells if c.cell_type == "code" and piece in c.source]
    if len(cells) != 1: raise SystemExit(f"features: expected one cell with {piece!r} in {name}, got {len(cells)}. Mend FIGURES.")
    found = base64.b64decode(next(o["data"]["image/png"] for o in cells[0].outputs if "image/png" in o.get("data", {})))
    return np.array(Image.open(BytesIO(found)).convert("RGB")), cells[0].source


def spans(full: np.ndarray, least: int = 16) -> list[slice]:
    "Runs of at least `least` true entries."
    edges = np.flatnonzero(np.diff(np.concatenate([[False], full, [False]]).astype(int)))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= least]


def cells(whole: np.ndarray, side: int) -> list[list[Image.Image]]:
    "The pictures of a grid on white, row by row, each `side` pixels wide."
    inked = (whole < 250).any(2)
    rows = spans(inked.mean(1) > 0.3)
    columns = spans(np.concatenate([inked[r] for r in rows]).mean(0) > 0.9)
    size = side, side
    return [[Image.fromarray(whole[r, c]).resize((32, 32), Image.NEAREST).resize(size, Image.NEAREST) for c in columns] for r in rows]


def font(size: int): return ImageFont.load_default(size)


def sheet(title: str, rows: list[tuple[str, list[Image.Image]]], left: int, gaps: dict[int, int], above: bool = False) -> Image.Image:
    "A title and rows of pictures with a word left of each, or `above` it; `gaps`: more room before some columns."
    lines = textwrap.wrap(title, 43)
    side, y = rows[0][1][0].height, 34 * len(lines) + 8
    page = Image.new("RGB", (WIDTH, 2000), "white")
    draw = ImageDraw.Draw(page)
    draw.multiline_text((0, 0), "\n".join(lines), INK, font(26), spacing=6)
    for said, pictures in rows:
        words = textwrap.wrap(said, 52) if above else [said]
        for line in words if above else ():
            draw.text((0, y), line, INK, font(22))
            y += 29
        if not above: draw.text((left - 12, y + side / 2), said, INK, font(24), anchor="rm")
        x = left
        for k, one in enumerate(pictures):
            x += gaps.get(k, 0)
            page.paste(one, (x, y))
            x += side + 3
        y += side + (12 if above else 3)
    return page.crop((0, 0, WIDTH, y))


def iin(whole: np.ndarray, source: str) -> Image.Image:
    "All of z, and one factor alone: every second step."
    names = ["all of z", None, "residual", "digit", "color"]   # not the row that is straight in z̃
    rows = [(said, row[::2]) for said, row in zip(names, cells(whole, 64), strict=True) if said]
    return sheet("Between two pictures: all of z at once, or one factor alone", rows, 130, {})


def net2net(whole: np.ndarray, source: str) -> Image.Image:
    "Every sentence above its draws."
    asked, names = ast.literal_eval(re.search(r"asked = (\[.*?\])", source)[1]), list(wordings.COLORS)
    said = [wordings.sentence(wordings.TEST[i % len(wordings.TEST)], d, names[k], bool(i % 2)) for i, (d, k) in enumerate(asked)]
    return sheet("Sentences never seen, eight draws of each", [*zip(said, cells(whole, 64), strict=True)], 0, {}, above=True)


def invariances(whole: np.ndarray, source: str) -> Image.Image:
    "All pairs and all layers."
    names = ["originals", "early", "middle", "late", "features", "logits"]
    title = "Below a digit: what a layer knows of it, with what it ignores of its neighbour"
    return sheet(title, [*zip(names, cells(whole, 64), strict=True)], 126, {2: 5, 4: 5})


if __name__ == "__main__":
    (ROOT/"docs/features").mkdir(parents=True, exist_ok=True)
    for feature, figure in FIGURES.items(): globals()[feature](*picture(*figure)).save(ROOT/f"docs/features/{feature}.png", optimize=True)
