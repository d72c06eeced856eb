"""Measure the table of benchmarks/RESULTS.md: hosts, explanations over three seeds, baselines, times.

    python benchmarks/results.py            everything, about an hour on two cores
    python benchmarks/results.py NAME ...   only these parts (see PARTS); the rest is kept from the last run

Each part writes benchmarks/results.json as soon as it is done, so an interrupted run loses one part at most."""
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iin_nb import data, factors, fit, flow, latents, objective, pairs, scores, zoo
from iin_nb.explanation import explain

HERE = Path(__file__).parent
STORE = HERE/"results.json"
SEEDS = (0, 1, 2)
SPLITS = 10   # of the held-out originals, for a probe that is compared with another: one split's 750 pictures tell 0.01 at best
CONCEPTS = {"digit": "class", "color": ["r", "g", "b"]}
KINDS = ("classifier", "autoencoder")


def hosts() -> dict:
    "Held-out accuracy of the classifier, shipped and trained anew for each seed."
    digits, recipe = data.color_digits(), zoo.RECIPES["classifier"]
    models = {"shipped": zoo.shipped_model("digits-classifier"), "judge": zoo.judge()}
    models |= {f"seed {seed}": zoo.train("classifier", digits, replace(recipe, seed=seed))[0] for seed in SEEDS}
    return {name: zoo.accuracy(model, digits.held_out) for name, model in models.items()}


def explanations(kind: str) -> dict:
    "The demo's scores of one shipped host for each seed."
    digits, host, judge = data.color_digits(), zoo.load(f"digits-{kind}"), zoo.judge()
    found = {}
    for seed in SEEDS:
        found[seed] = scores.score(explain(host, digits, CONCEPTS, seed=seed), digits.held_out, judge, seed=seed)
    return found


def _latents(kind: str) -> tuple:
    "Latents to learn from, to stop by and to test on, and the two concepts."
    digits, host = data.color_digits(), zoo.load(f"digits-{kind}")
    learn, check = digits.train.split()
    made = latents.encode(host, learn, 10), latents.encode(host, check, 4, seed=1), latents.encode(host, digits.held_out)
    return *made, pairs.concepts(learn.table, CONCEPTS)


def _trained(parts: tuple, dims: dict, config, recipe: fit.Recipe, **how) -> dict:
    "One T on given latents: held-out pair likelihood and linear probes."
    learn, check, test, concepts = parts
    layout = factors.Layout.of(dims, learn.mean.shape[1])
    trained, history = objective.train_flow(learn, check, concepts, layout, config, recipe, **how)
    with torch.no_grad(): f = layout.split(trained(test.mean)[0])
    source = test.table["source"].to_numpy()
    probe = {c.name: {k: scores.probe(b, c.read(test.table), source) for k, b in f.items()} for c in concepts}
    own = {c.name: [scores.probe(f[c.name], c.read(test.table), source, seed=split) for split in range(SPLITS)] for c in concepts}
    nll = objective.mean_pair_nll(trained, test, pairs.Pairs(test.table, concepts), layout, 8000)
    return {"dims": layout.dims, "nll": nll, "probe": probe, "own": own,
            "seconds": history.seconds, "steps": history.rows[-1]["step"], "parameters": trained.n_parameters}


def published(kind: str) -> dict:
    "The shipped recipe against the published T and its optimiser: same latents, same dims, 120 s each."
    parts = _latents(kind)
    dims = factors.PUBLISHED_DIMS[kind]
    ours = replace(objective.RECIPE, n_steps=100_000, max_seconds=120, patience=0)
    theirs = fit.Recipe(n_steps=100_000, max_seconds=120, lr=1.125e-4, weight_decay=0, clip=1e9, betas=(0.5, 0.9),
                        schedule="constant", eval_every=200)
    return {"ours": _trained(parts, dims, None, ours),
            "published": _trained(parts, dims, flow.FlowConfig.published(), theirs, batch=25, weight=0.0)}


def dims(kind: str) -> dict:
    "Our default sizes and the published ones, same T, same steps, for each seed; and the two estimates of the original work."
    parts = _latents(kind)
    learn, check, _, concepts = parts
    pair = pairs.Pairs(learn.table, concepts)
    sizes = {"ours": factors.estimate_dims(learn, check, concepts), "published": factors.PUBLISHED_DIMS[kind]}
    recipe = objective.RECIPE
    found = {name: {seed: _trained(parts, d, None, replace(recipe, seed=seed)) for seed in SEEDS} for name, d in sizes.items()}
    rules = {"released code": factors.dims_released, "paper's Eq. 11": factors.dims_paper}
    return found | {"formula": {name: rule(learn.mean, pair) for name, rule in rules.items()}}


def times() -> dict:
    "The demo in a new process with an empty numba cache."
    found = {}
    for name, flags in {"demo": [], "demo --quick": ["--quick"]}.items():
        with tempfile.TemporaryDirectory() as folder:
            command, env = ["-m", "iin_nb.cli", "demo", "--out", folder, *flags], {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/numba"}
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, env=env, stdout=subprocess.DEVNULL)
            found[name] = time.perf_counter() - start
    return found


def imports() -> dict:
    "The cost of importing iin_nb beyond torch, in one process after the other: the machine's speed changes by the minute."
    code = "import time, torch; b = time.perf_counter(); import iin_nb; print(time.perf_counter() - b)"
    return {"seconds": sorted(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(9))}


PARTS = {"hosts": hosts, "times": times, "imports": imports}
for kind in KINDS: PARTS |= {f"{part.__name__} {kind}": partial(part, kind) for part in (explanations, published, dims)}


def main() -> None:
    from table import write_table
    store = json.loads(STORE.read_text()) if STORE.exists() else {}
    for name in sys.argv[1:] or PARTS:
        start = time.perf_counter()
        print(f"{name} …", flush=True)
        found, versions = PARTS[name](), {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        store[name] = json.loads(json.dumps({"found": found, "minutes": (time.perf_counter() - start) / 60, "versions": versions}))
        STORE.write_text(json.dumps(store, indent=1))
    sys.exit(write_table(store, HERE/"RESULTS.md"))


if __name__ == "__main__": main()
