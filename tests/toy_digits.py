"""A host of small color digits whose every factor is known: a picture is pixels times a color, z the numbers it was made of."""
from functools import cache

import pandas as pd
import torch

from iin_nb import data, hosts, pairs
from iin_nb.explanation import Explanation, certify
from iin_nb.factors import BlockLaw, Layout
from iin_nb.fit import History
from iin_nb.flow import Flow, FlowConfig

SIZES = {"residual": 4, "digit": 10, "color": 3}
CONCEPTS = {"digit": "class", "color": ["r", "g", "b"]}
OFFSET = 0.01   # the decoder's only error


def paint(u):
    "(N, 17) numbers (4 grays, 10 of the digit, 3 of the color) as pictures (N, 3, 8, 8): inside the dark border, a pixel per number."
    gray = torch.full((len(u), 1, 64), -1.0)
    gray[:, 0, [20, 21, 28, 29]] = u[:, :4]
    gray[:, 0, [9, 10, 11, 12, 13, 14, 49, 50, 51, 52]] = u[:, 4:14]
    return gray.reshape(-1, 1, 8, 8) * u[:, 14:, None, None]


def numbers(x):
    "The numbers back from pictures."
    color = -x[:, :, 0, 0]
    gray = (x / color[:, :, None, None]).mean(1).flatten(1)
    return torch.cat([gray[:, [20, 21, 28, 29]], gray[:, [9, 10, 11, 12, 13, 14, 49, 50, 51, 52]], color], 1)


def judge(x):
    "Logits (N, 10): how bright each digit's pixel is."
    return 8 * numbers(x - OFFSET)[:, 4:14]


@cache
def toy_digits(n=400, seed=0):
    "Held-out pictures with their table: every digit's own pixel is bright, colors are of 0.2 to 1."
    g = torch.Generator().manual_seed(seed)
    digit, color = torch.arange(n) % 10, 0.2 + 0.8 * torch.rand(n, 3, generator=g)
    own = torch.nn.functional.one_hot(digit, 10) * 1.2 - 0.6 + 0.1 * torch.randn(n, 10, generator=g)
    u = torch.cat([torch.rand(n, 4, generator=g) * 2 - 1, own, color], 1)
    table = pd.DataFrame({"class": digit.numpy(), **dict(zip("rgb", color.T.numpy(), strict=True)), "source": range(n)})
    return data.ImageSet(paint(u), table, 0, "toy digits"), u


def explain_digits(outputs="images", sizes=SIZES):
    "The true explanation of that host (z̃ is its numbers, standardised), or with other `sizes` a wrong one."
    images, u = toy_digits()
    flow = Flow(FlowConfig(17, n_blocks=1, hidden=8, linear=False))
    order = flow.blocks[-1].order
    decode = (lambda z: paint(z[:, order]) + OFFSET) if outputs == "images" else (lambda z: 8 * z[:, order][:, 4:14])
    host = hosts.from_functions(lambda x: numbers(x)[:, order.argsort()], decode, images.images, "toy digits")
    flow.init_from(host.encode(images.images))
    layout = Layout(tuple(sizes), tuple(sizes.values()))
    with torch.no_grad(): f = layout.split(flow(host.encode(images.images))[0])
    laws = {k: BlockLaw.fit(v) for k, v in f.items()}
    row = {"seconds": 0.1, "train": 2.0, "held_out": 2.0, "lr": 1e-3}
    history = History([{"step": 1, **row}, {"step": 2, **row, "held_out": 1.5}], best_step=2, seconds=0.2)
    concepts, certificate = pairs.concepts(images.table, CONCEPTS), certify(host, flow, images.images)
    return Explanation(host, flow.eval(), layout, concepts, laws, certificate, history, {})
