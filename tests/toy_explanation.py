"""An explanation whose truth is known: of sixteen numbers three say which of four figures it is, three are a color, ten are the rest."""
import torch

from iin_nb import hosts
from iin_nb.explanation import Explanation, certify
from iin_nb.factors import BlockLaw, Layout
from iin_nb.fit import History
from iin_nb.flow import Flow, FlowConfig

CORNERS = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
NAMES = "residual", "shape", "color"


def recipes(n, seed=0):
    "True numbers (n, 16) of n inputs and their figures (n,). The first two color numbers run against each other."
    g, figure = torch.Generator().manual_seed(seed), torch.arange(n) % 4
    shape = CORNERS[figure] + 0.15 * torch.randn(n, 3, generator=g)
    m, e = torch.randn(n, 1, generator=g), torch.randn(n, 3, generator=g)
    color = torch.cat([m, -m, 0 * m], 1) + torch.tensor([0.3, 0.3, 1.0]) * e
    return torch.cat([torch.randn(n, 10, generator=g), shape, color], 1), figure


def by_shape(u): return 4 * u[:, 10:13] @ CORNERS.T


def explain_toy(u, answer=by_shape):
    "The host stores u stretched, moved and in disorder; an initialised T undoes that, so z̃ is u, standardised."
    flow = Flow(FlowConfig(16, n_blocks=1, hidden=8, linear=False))
    order = flow.blocks[-1].order
    host = hosts.from_functions(lambda x: (3 * x - 1)[:, order.argsort()], lambda z: answer((z[:, order] + 1) / 3), u, "toy")
    flow.init_from(host.encode(u))
    layout = Layout(NAMES, (10, 3, 3))
    with torch.no_grad(): f = layout.split(flow(host.encode(u))[0])
    return Explanation(host, flow.eval(), layout, (), {k: BlockLaw.fit(v) for k, v in f.items()}, certify(host, flow, u), History(), {})
