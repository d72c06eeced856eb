"""Look through a frozen PyTorch model: an invertible translation of its hidden representation into named factors"""

import os as _os
from importlib import import_module as _import

# Before PyTorch is loaded: its idle threads spin only for a moment (51_cli.ipynb has the numbers). Who sets either variable is obeyed.
if "OMP_WAIT_POLICY" not in _os.environ: _os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_modules = ("core", "fit", "data", "hosts", "zoo", "latents", "sketches", "folders", "flow", "pairs", "factors", "objective", "explanation",
            "edit", "response", "embed", "scores", "conditional", "translation", "invariance", "figures", "explorers", "report", "cli")
_front = {"explain": "explanation", "load": "explanation", "Explanation": "explanation", "translate": "translation",
          "invariances": "invariance"}  # name: its module

__all__ = [*_modules, *_front]


def __getattr__(name):
    "Rooms are opened on first use, so that `import iin_nb` costs next to nothing."
    if name in _modules: return _import(f"{__name__}.{name}")
    if name in _front: value = getattr(_import(f"{__name__}.{_front[name]}"), name)
    elif name == "__version__":
        from importlib.metadata import version
        value = version("iin_nb")
    else: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__(): return sorted({*globals(), *__all__, "__version__"})
