"""The pictures of README's feature table: figures of the gallery, as they stand in its saved notebooks.

    python tools/features.py     # docs/features/NAME.png
"""
import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {   # the gallery's notebook, and a piece of the cell whose first picture is taken
    "iin": ("digits_autoencoder", "report.strip_figure"),
    "net2net": ("text_to_digits", "Eight draws of each sentence"),
    "invariances": ("digit_invariances", "z of one picture, v of the other"),
}


def picture(name, piece):
    "The first PNG that the cell with `piece` in its source puts out."
    nb = nbformat.read(ROOT/f"nbs/gallery/{name}.ipynb", as_version=4)
    cells = [c for c in nb.cells if c.cell_type == "code" and piece in c.source]
    if len(cells) != 1: raise SystemExit(f"features: expected one cell with {piece!r} in {name}, got {len(cells)}. Mend FIGURES.")
    return base64.b64decode(next(o["data"]["image/png"] for o in cells[0].outputs if "image/png" in o.get("data", {})))


if __name__ == "__main__":
    (ROOT/"docs/features").mkdir(parents=True, exist_ok=True)
    for feature, figure in FIGURES.items(): (ROOT/f"docs/features/{feature}.png").write_bytes(picture(*figure))
