"""Invariances of a tiny classifier's layers, of a few training steps, for panels over layers."""
import warnings
from functools import cache

import numpy as np
import pandas as pd
import torch
from conftest import Net

from iin_nb import data, hosts
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.invariance import Invariances, invariances
from iin_nb.conditional import EmbedderConfig

N, LAYERS = 60, ("features.2", "features.5", "head")
MIX = torch.randn(192, 12, generator=torch.Generator().manual_seed(5)) / 8


def pictures(n=N): return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def image_set(n=N):
    "Pictures (n, 3, 8, 8) of noise with classes whose names need escaping."
    return data.ImageSet(pictures(n), pd.DataFrame({"kind": np.resize(["a", "<i>", "c"], n), "source": range(n)}), n, "noise")


def painter():
    back = torch.linalg.pinv(MIX)
    decode = lambda z: (z @ back).reshape(-1, 3, 8, 8).clamp(-1, 1)
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, decode, pictures(4), "painter")


@cache
def layers(outputs="logits") -> Invariances:
    "What three layers of a tiny classifier ignore, or, of a host that answers nothing, its only layer."
    torch.manual_seed(0)
    x, ae = image_set(), painter()
    quick = dict(recipe=Recipe(n_steps=8, lr=3e-3, eval_every=4), batch=16, baseline=False,
                 embedder=EmbedderConfig(width=6, hidden=8, channels=4), config=FlowConfig(12, n_blocks=1, hidden=8))
    mute = hosts.from_functions(lambda t: t.flatten(1)[:, :9], lambda z: z.new_zeros(len(z), 3, 8, 8), pictures(4), "mute")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train = data.ImageSet(x.images, x.table, 45, "noise")
        if outputs != "logits": return invariances(mute, ae, train, {"mute": mute}, **quick)
        host = hosts.tap(Net().eval(), "features.5", x.images[:8])
        return invariances(host, ae, train, list(LAYERS), **quick)
