"""Make saved notebooks light. Dead widgets go: without their kernel they only say that a model is missing; their text stays, but for that
of progress bars, which say nothing when all is done. Large pictures, photographs most of them, become JPEG.

    python tools/still.py NOTEBOOK…
"""
import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

VIEW, PNG, JPEG = "application/vnd.jupyter.widget-view+json", "image/png", "image/jpeg"
LARGE = 200_000   # bytes of a PNG


def lighter(data):
    "Whether a large PNG of an output's `data` became a smaller JPEG."
    raw, out = base64.b64decode(data.get(PNG, "")), io.BytesIO()
    if len(raw) < LARGE: return False
    Image.open(io.BytesIO(raw)).convert("RGB").save(out, "JPEG", quality=90, subsampling=0, optimize=True)
    if len(out.getvalue()) > 0.8 * len(raw): return False   # flat colors are smaller as they are
    del data[PNG]
    data[JPEG] = base64.b64encode(out.getvalue()).decode()
    return True


def still(path):
    "Whether anything of `path` was changed."
    nb, found = nbformat.read(path, as_version=4), 0
    for cell in (c for c in nb.cells if c.get("outputs")):
        left = [o for o in cell.outputs if "it/s]" not in o.get("data", {}).get("text/plain", "")]
        found += len(cell.outputs) - len(left)
        cell.outputs = left
        for data in (o.data for o in left if "data" in o): found += (data.pop(VIEW, None) is not None) + lighter(data)
    if found: nbformat.write(nb, path)
    return bool(found)


if __name__ == "__main__":
    for name in sys.argv[1:]: still(Path(name))
