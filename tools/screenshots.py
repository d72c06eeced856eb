"""Pictures of the explorers, from JupyterLab in a headless Chromium.

    python tools/screenshots.py                  # docs/explorers/NAME.png, for README and the gallery: each panel, light
    python tools/screenshots.py FOLDER           # FOLDER/NAME-WIDTH-THEME.png: light and dark, 900 and 1,600 px wide, to be looked at
    python tools/screenshots.py [FOLDER] NAME…   # of some panels alone
"""
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"tests"))
from browser import lab, notebook, opened, run_all

START = ("import iin_nb as iin, numpy as np\n"
         "classifier, autoencoder = (iin.explanation.shipped(f'digits-{k}') for k in ('classifier', 'autoencoder'))")
READY = ".iin-panel .main-svg, .iin-panel .iin-sheet, canvas"
TRAINED = """
from dataclasses import replace
from iin_nb.fit import Recipe
digits, painter, reader = iin.data.color_digits(), iin.zoo.load("digits-autoencoder"), iin.zoo.load("digits-classifier")
few = replace(digits.rows(5000, len(digits)), n_train=digits.n_train - 5000)
quick = dict(recipe=Recipe(n_steps=200, lr=6e-3, weight_decay=1e-2, eval_every=50), batch=256, baseline=False)
"""
LAYERS = TRAINED + """inv = iin.invariances(reader, painter, few, ["features.1", "features", "head"], autoencoder, **quick)
"""
WORDS = TRAINED + """import torch
COLORS = dict(red=(1, 0, 0), green=(0, 1, 0), blue=(0, 0, 1), yellow=(1, 1, 0), purple=(1, 0, 1), cyan=(0, 1, 1), white=(1, 1, 1))
NUMBERS = "zero one two three four five six seven eight nine".split()
class Words:
    words = [*COLORS, *NUMBERS]
    def encode(self, texts): return torch.tensor([[float(w in t.lower().split()) for w in self.words] for t in texts])
shade = digits.table[["r", "g", "b"]].to_numpy()
near = np.abs(shade[:, None] / shade.max(1)[:, None, None] - np.array(list(COLORS.values()))).sum(2).argmin(1)
texts = [" ".join(("a", list(COLORS)[c], NUMBERS[k])) for c, k in zip(near, digits.table["class"])]
t = iin.translate(Words(), painter, (texts[:digits.n_train], digits.images[:digits.n_train]), **quick)
"""
SHOWN = {   # what is done to each before it is shown; `panel` is what is shown
    "factors": ("panel = iin.explorers.factors(autoencoder, index=1)\n"
                "panel.rows['digit'].slider.value, panel.rows['color'].slider.value = 0.6, 0.7"),
    "walk": "panel = iin.explorers.walk(autoencoder, index=2)\nfor t in range(1, 121): panel.step.value = t",
    "response": "panel = iin.explorers.response(classifier, index=2)",
    "analogies": "panel = iin.explorers.analogies(autoencoder)",
    "browse": ("panel = iin.explorers.browse(autoencoder)\nx, y = panel.state.xy['z'][panel.state.labels['digit'] == 3].mean(0)\n"
               "look = dict(color=iin.figures.HERE, width=1, dash='dot')   # as if drawn by hand\n"
               "box = dict(type='rect', x0=x - 2, x1=x + 2, y0=y - 1.5, y1=y + 1.5, xref='x', yref='y', line=look)\n"
               "with panel.quiet(): panel.maps['z'].layout.selections = [box]\npanel.on_select('z')"),
    "samples": "panel = iin.explorers.samples(autoencoder, index=9, held=('digit',))",
    "sketch_pad": ("panel = iin.explorers.sketch_pad()\nt = np.linspace(0, 2 * np.pi, 60)\n"
                   "points = np.stack([0.5 + 0.3 * np.sin(t), 0.3 + 0.16 * np.cos(t) + 0.4 * (t / 6.28)], 1).tolist()\n"
                   "panel.strokes = [dict(points=points, size=0.1, color='#1f2430')]"),
    "translate": f"{WORDS}panel = iin.explorers.translate(t, texts, 'a red seven', 'a blue three', iin.zoo.judge())",
    "invariances": f"{LAYERS}panel = iin.explorers.invariances(inv, digits.held_out, index=4)",
    "mix": f"{LAYERS}panel = iin.explorers.mix(inv, digits.held_out, 4, 9)",
    "attack": f"{LAYERS}panel = iin.explorers.attack(inv, digits.held_out, 4)",
}


def pictures(names: list[str], views: list[tuple[int, bool]], save) -> None:
    "Open these explorers at each (width, dark) and `save(page, name, width, dark)` it."
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as address:
        for name in names:
            notebook(Path(folder)/f"{name}.ipynb", f"{START}\n{SHOWN[name]}", "panel")
            for width, dark in views:
                with opened(width, 1700, dark) as page:
                    run_all(page, address, f"{name}.ipynb", READY, 400_000, dark)   # some train first
                    page.evaluate("void jupyterapp.commands.execute('application:toggle-left-area')")
                    page.wait_for_timeout(8000)   # what follows between events: answers, indices
                    save(page, name, width, dark)
                    print(name, width, "dark" if dark else "light", page.asked, page.errors)


if __name__ == "__main__":
    given = sys.argv[1:]
    names = [k for k in given if k in SHOWN]
    out = next((Path(k) for k in given if k not in SHOWN), None)
    folder = out or ROOT/"docs/explorers"
    folder.mkdir(parents=True, exist_ok=True)
    if out:
        pictures(names or [*SHOWN], [(w, dark) for w in (900, 1600) for dark in (False, True)],
                 lambda page, name, w, dark: page.screenshot(path=out/f"{name}-{w}-{'dark' if dark else 'light'}.png"))
    else:
        pictures(names or [*SHOWN], [(1330, False)],
                 lambda page, name, *_: page.locator(".jp-OutputArea-output").last.screenshot(path=folder/f"{name}.png"))
