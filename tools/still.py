"""Take dead widgets out of saved notebooks: without their kernel they only say that a model is missing; their text stays.

    python tools/still.py NOTEBOOK…
"""
import sys
from pathlib import Path

import nbformat

VIEW = "application/vnd.jupyter.widget-view+json"


def still(path):
    "Whether `path` had any."
    nb, found = nbformat.read(path, as_version=4), 0
    for output in (o for c in nb.cells for o in c.get("outputs", [])): found += output.get("data", {}).pop(VIEW, None) is not None
    if found: nbformat.write(nb, path)
    return bool(found)


if __name__ == "__main__":
    for name in sys.argv[1:]: still(Path(name))
