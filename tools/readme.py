"""README.md from nbs/index.ipynb, by nbconvert alone (nbdev's own way needs Quarto).

    python tools/readme.py               # write README.md and docs/images/
    python tools/readme.py --check       # exit code 1 when they are not what the notebook gives; writes nothing

`#| hide` drops a cell, `#| echo: false` its source, `#| output: false` its output. A picture in an output or an attachment becomes a file;
figures without a picture (plotly, widgets), progress bars and warnings are dropped. Links relative to nbs/ become relative to the top.
"""
import posixpath
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
IMAGES = "docs/images"  # everything in it is made here
HEAD = "<!-- Built from nbs/index.ipynb by tools/readme.py (make readme): edit the notebook. -->\n\n"
PICTURES = "image/png", "image/jpeg", "image/svg+xml"
SCREEN_ONLY = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"""(?P<open>!?\[[^\]]*\]\(\s*<?|\b(?:src|href)=["'])(?P<url>[^)\s"'>]+)""")


def directives(cell):
    "The `#|` lines of a cell, without the sign and without spaces: `{'hide', 'echo:false'}`."
    return {line[2:].replace(" ", "") for line in cell.source.splitlines() if line.startswith("#|")}


def from_top(match):
    "A link of a notebook in nbs/, as seen from the top of the repository; addresses, anchors and attachments stay."
    url = match["url"]
    if not re.match(r"[a-zA-Z][\w+.-]*:|[#/]", url): url = posixpath.normpath(posixpath.join("nbs", url))
    return match["open"] + url


def shown(output):
    "Does a reader of a plain page want this output?"
    if output.output_type == "stream": return output.name == "stdout"
    data = output.get("data", {})
    return any(kind in data for kind in PICTURES) or not any(kind in data for kind in SCREEN_ONLY)


def front(cell):
    "A cell as the front page has it: no directives, links from the top, outputs that can be seen there."
    said = directives(cell)
    cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|")).strip()
    if cell.cell_type == "markdown":
        parts = re.split(r"(```.*?```|`[^`\n]*`)", cell.source, flags=re.S)  # code stays as it is
        cell.source = "".join(p if i % 2 else LINK.sub(from_top, p) for i, p in enumerate(parts))
    else:
        cell.outputs = [] if "output:false" in said else [o for o in cell.outputs if shown(o)]
        if "echo:false" in said: cell.source = ""
    return cell


def build(root=ROOT):
    "`{path from the top: bytes}` of the README and its pictures."
    nb = nbformat.read(root / "nbs/index.ipynb", as_version=4)
    cells = [front(c) for c in nb.cells if c.cell_type != "raw" and "hide" not in directives(c)]
    nb.cells = [c for c in cells if c.source or c.get("outputs")]
    nb.metadata["language_info"] = {"name": "python"}  # nbdev-clean takes it out
    priority = [*PICTURES, "text/markdown", "text/plain"]  # no HTML: where Markdown is shown, styles come out as text
    exporter = MarkdownExporter(config=Config({"NbConvertBase": {"display_data_priority": priority}}))
    body, found = exporter.from_notebook_node(nb, {"unique_key": "index", "output_files_dir": IMAGES})
    body = re.sub(r"^```python\s*^```$", "", body, flags=re.M)  # the empty source of an `echo: false` cell
    body = re.sub(r"\n(\s*\n){2,}", "\n\n", re.sub(r"^[ \t]+$", "", body, flags=re.M)).strip() + "\n"
    return {"README.md": (HEAD + body).encode(), **{posixpath.normpath(k): v for k, v in found.get("outputs", {}).items()}}


def differences(root=ROOT):
    "The files that are not what the notebook gives, pictures that nothing shows any more among them."
    new = build(root)
    old = {"README.md", *(f"{IMAGES}/{p.name}" for p in (root / IMAGES).glob("*"))}
    return sorted(k for k in old | new.keys() if k not in new or not (root / k).exists() or (root / k).read_bytes() != new[k])


def write(root=ROOT):
    for path in (root / IMAGES).glob("*"): path.unlink()
    for name, content in build(root).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


if __name__ == "__main__":
    if not (ROOT / "nbs/index.ipynb").exists(): raise SystemExit("readme: expected nbs/index.ipynb, found none. Do: write it.")
    if "--check" not in sys.argv: write()
    elif found := differences(): raise SystemExit(f"readme: not in step: {', '.join(found)}. Do: make readme")
    print("README.md: in step")
