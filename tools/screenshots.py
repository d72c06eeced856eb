"""Pictures of the explorers, from JupyterLab in a headless Chromium.

    python tools/screenshots.py            # docs/explorers/NAME.png, for README and the gallery: each panel, light
    python tools/screenshots.py FOLDER     # FOLDER/NAME-WIDTH-THEME.png: light and dark, 900 and 1,600 px wide, to be looked at
"""
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/"tests"))
from browser import lab, notebook, opened, run_all

START = ("import iin_nb as iin, numpy as np\n"
         "classifier, autoencoder = (iin.explanation.shipped(f'digits-{k}') for k in ('classifier', 'autoencoder'))")
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
}


def pictures(views: list[tuple[int, bool]], save) -> None:
    "Open every explorer at each (width, dark) and `save(page, name, width, dark)` it."
    with tempfile.TemporaryDirectory() as folder, lab(Path(folder)) as address:
        for name, source in SHOWN.items():
            notebook(Path(folder)/f"{name}.ipynb", f"{START}\n{source}\npanel")
            for width, dark in views:
                with opened(width, 1700, dark) as page:
                    run_all(page, address, f"{name}.ipynb", "canvas" if name == "sketch_pad" else ".iin-panel .main-svg", dark=dark)
                    page.evaluate("void jupyterapp.commands.execute('application:toggle-left-area')")
                    page.wait_for_timeout(8000)   # what follows between events: answers, indices
                    save(page, name, width, dark)
                    print(name, width, "dark" if dark else "light", page.asked, page.errors)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        out = Path(sys.argv[1])
        out.mkdir(parents=True, exist_ok=True)
        pictures([(w, dark) for w in (900, 1600) for dark in (False, True)],
                 lambda page, name, w, dark: page.screenshot(path=out/f"{name}-{w}-{'dark' if dark else 'light'}.png"))
    else:
        out = ROOT/"docs/explorers"
        out.mkdir(parents=True, exist_ok=True)
        pictures([(1330, False)], lambda page, name, *_: page.locator(".jp-OutputArea-output").last.screenshot(path=out/f"{name}.png"))
