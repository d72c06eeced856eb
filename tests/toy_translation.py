"""Tiny translations of a few training steps to a painter of 8 × 8 pictures, from each kind of condition."""
from functools import cache

import numpy as np
import pandas as pd
import torch

from iin_nb import data, hosts
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.conditional import EmbedderConfig
from iin_nb.translation import translate as train

N, D = 60, 6
MIX = torch.randn(192, D, generator=torch.Generator().manual_seed(5)) / 8
SENTENCES = [f"{size} {thing}" for size in ("a small", "a large", "one") for thing in ("tree", "house", "boat", "e e")]
OTHER = {"text": "a tall boat", "columns": {"kind": "c", "light": 0.25}, "rows": 7, "numbers": 7}   # conditions that no panel starts with


class Letters:
    "Texts to numbers, in a tiny way."
    def encode(self, texts): return torch.tensor([[float(t.count(k)) for k in "abcdelorst"] for t in texts]) + 0.1


def pictures(n=N): return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def painter(outputs="images"):
    back = torch.linalg.pinv(MIX)
    decode = (lambda z: (z @ back).reshape(-1, 3, 8, 8).clamp(-1, 1)) if outputs == "images" else lambda z: z[:, :3]
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, decode, pictures(4), "painter")


def image_set():
    g = torch.Generator().manual_seed(2)
    table = pd.DataFrame({"kind": np.resize(["a", "<i>", "c"], N), "light": torch.rand(N, generator=g).numpy()})
    return data.ImageSet(pictures(), table, 45, "noise")


def trained(kind, dst=None):
    "A translation of a few steps: what it paints means nothing, but all of it can be checked."
    quick = dict(config=FlowConfig(D, n_blocks=2, hidden=8), embedder=EmbedderConfig(width=6, hidden=8), batch=16, copies=1, baseline=False,
                 recipe=Recipe(n_steps=8, lr=3e-3, eval_every=4))
    if kind == "text": return train(Letters(), dst or painter(), ([SENTENCES[i % 12] for i in range(N)], pictures()), **quick)
    if kind == "columns": return train(["kind", "light"], dst or painter(), image_set(), **quick)
    if kind == "numbers": return train(None, dst or painter(), (pictures().flatten(1)[:, :4], pictures()), **quick)
    nine = hosts.from_functions(lambda x: x.flatten(1)[:, :9], lambda z: z, pictures(4), "nine")
    return train(nine, dst or painter(), image_set(), **quick)


@cache
def ready(kind):
    "A translation, and what to choose from."
    given = {"text": SENTENCES, "columns": image_set(), "rows": image_set(), "numbers": pictures().flatten(1)[:, :4]}
    return trained(kind), given[kind]


def read(x): return x.flatten(1)[:, :3] * 9
