"""What the gallery's experiments share: where data outside of the repository lie, what is made once, and where numbers go."""
import importlib.util
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pooch
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from iin_nb import data
from iin_nb.core import DataError, MissingExtra, generator, whole_file

SMALL = os.environ.get("IIN_SMALL") == "1"   # a form of a minute or less, for the tests: its numbers are not kept
NUMBERS = Path(__file__).resolve().parent.parent.parent/"benchmarks/gallery"
START = time.perf_counter()


def missing(*needs: str) -> str:
    "What of `needs` (\"data\", or a module's name) is not here, in words; '' if all is."
    if "data" in needs and not os.environ.get("IIN_NB_DATA"): return "IIN_NB_DATA names no folder with the data"
    return ", ".join(f"no package {m}" for m in needs if m != "data" and importlib.util.find_spec(m) is None)


def needs(*names: str) -> None:
    "Stop here, in words, unless all of `names` are here."
    where, gone = "gallery", missing(*names)
    if "IIN_NB_DATA" in gone: raise DataError(where, "a folder of data", "none", "Set IIN_NB_DATA; data/README says what it holds.")
    if gone: raise MissingExtra(where, "the packages of this experiment", gone, "Run: pip install 'iin_nb[models]'")


def folder() -> Path:
    "The folder that IIN_NB_DATA names."
    return Path(os.environ["IIN_NB_DATA"]).expanduser()


def quiet() -> None:
    "In a saved notebook no live bars, and figures as pictures."
    import tqdm.auto
    import tqdm.std

    from iin_nb.figures import keep_png

    class Quiet(tqdm.std.tqdm):
        def __init__(self, *args, **kw): super().__init__(*args, **{**kw, "disable": True})

    tqdm.auto.tqdm = Quiet
    keep_png()


def mnist_rows() -> tuple[data.ImageSet, Tensor, Tensor]:
    "MNIST's training images; rows of those that the shipped hosts have not learned from, and of those that they have, both shuffled."
    images = data.mnist(folder()/"data").train
    known = {x.numpy().tobytes() for x in data.strokes(data.digits()[0][:8500])}
    used = torch.tensor([x.numpy().tobytes() in known for x in images.images])
    order = torch.randperm(len(images), generator=generator(0))
    return images, order[~used[order]], order[used[order]]


def once(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    "What `make` makes, made once: kept in the user's cache, apart for the small form. Remove the file to have it made anew."
    path = Path(pooch.os_cache("iin_nb"))/"gallery"/f"{name}{'-small' if SMALL else ''}.safetensors"
    if path.exists(): return load_file(path)
    made = {k: t.detach().contiguous().clone() for k, t in make().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part: save_file(made, part)
    return made


def clock(work: Callable[[int], object], n: int = 50, timer: Callable[[], float] = time.perf_counter) -> float:
    "Milliseconds that `work(i)` takes, the median of n after five more; of a processor with `time.process_time`."
    took = []
    for i in range(n + 5):
        start = timer()
        work(i)
        took.append(1000 * (timer() - start))
    return float(pd.Series(took[5:]).median())


def plain(frame: pd.DataFrame, digits: int = 5) -> dict[str, dict[str, float | None]]:
    "Rows of a table of numbers as JSON keeps them, rounded; what is missing is None. Keys of several parts are joined by ' | '."
    say = lambda key: " | ".join(map(str, key)) if isinstance(key, tuple) else str(key)
    number = lambda v: None if pd.isna(v) else round(float(v), digits)
    return {say(k): {str(c): number(v) for c, v in row.items()} for k, row in frame.to_dict("index").items()}


def keep(name: str, numbers: dict) -> dict:
    "Numbers of an experiment for the results page, with the minutes and the memory that they took."
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    said = {"minutes": round((time.perf_counter() - START) / 60, 1), "peak_gb": round(peak, 2)}
    said |= {"torch": torch.__version__, "python": platform.python_version()}
    if not SMALL:
        NUMBERS.mkdir(parents=True, exist_ok=True)
        (NUMBERS/f"{name}.json").write_text(json.dumps({**said, "numbers": numbers}, indent=1) + "\n")
    return said


def kept(name: str) -> dict | None:
    "What `keep` wrote; None where the experiment was never run."
    path = NUMBERS/f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None
