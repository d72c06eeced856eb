"""Take dead widgets out of saved notebooks: without their kernel they only say that a model is missing; their text stays, but for that of
progress bars, which say nothing when all is done.

    python tools/still.py NOTEBOOK…
"""
import sys
from pathlib import Path

import nbformat

VIEW = "application/vnd.jupyter.widget-view+json"


def still(path):
    "Whether `path` had any."
    nb, found = nbformat.read(path, as_version=4), 0
    for cell in (c for c in nb.cells if c.get("outputs")):
        left = [o for o in cell.outputs if "it/s]" not in o.get("data", {}).get("text/plain", "")]
        found += len(cell.outputs) - len(left)
        cell.outputs = left
        for output in left: found += output.get("data", {}).pop(VIEW, None) is not None
    if found: nbformat.write(nb, path)
    return bool(found)


if __name__ == "__main__":
    for name in sys.argv[1:]: still(Path(name))
