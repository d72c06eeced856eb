"""Widgets to look through an explanation: `iin.explorers.factors(expl)`. Each has a plain state and a thin view."""

from importlib import import_module as _import

_builders = {"factors": "factor_panel", "walk": "walk_panel", "response": "response_panel", "analogies": "analogy_panel",
             "browse": "browse_panel", "samples": "sample_panel", "sketch_pad": "sketch_pad_widget",
             "translate": "translate_panel", "invariances": "invariance_panel"}  # function: its module

__all__ = [*_builders]


def __getattr__(name):
    "A builder is imported when it is first asked for: ipywidgets and plotly are not loaded before."
    if name not in _builders: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(_import(f"{__name__}.{_builders[name]}"), name)
    return value


def __dir__(): return sorted({*globals(), *__all__})
