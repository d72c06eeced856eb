"""Small things that several test files share: tiny models, small image sets, an exact record of a module's state."""
import os

os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch
from torch import nn

from iin_nb import data


class Net(nn.Module):
    "Pictures (B, 3, 8, 8) to 4 logits through a vector of 6; dropout and batch norm show careless handling."

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 4, 4), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(20, 6))
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4))

    def forward(self, x): return self.head(self.features(x))


class Snapshot:
    "Everything of a module that must be found again: tensors bit by bit, modes, hooks, what learns, stored gradients."

    def __init__(self, model):
        self.model, self.was = model, self._of(model)

    @staticmethod
    def _of(model):
        return ({k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()],
                [[len(h) for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)] for m in model.modules()],
                [(p.requires_grad, p.grad is None) for p in model.parameters()])

    def check(self):
        tensors, *rest = self._of(self.model)
        assert rest == list(self.was[1:]), "modes, hooks or gradients differ"
        assert tensors.keys() == self.was[0].keys()
        for k, v in tensors.items(): assert torch.equal(v, self.was[0][k]), f"{k} changed"


@pytest.fixture
def net():
    "A tiny classifier in train mode, but for one frozen batch norm."
    torch.manual_seed(0)
    model = Net().train()
    model.features[1].eval()
    return model


@pytest.fixture
def pictures(): return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def snapshot(): return Snapshot


@pytest.fixture
def small_set():
    "60 noisy pictures (3, 8, 8) as an ImageSet: `shape` of 3 classes moves the bright corner, `light` its brightness; 45 train."
    import pandas as pd
    g = torch.Generator().manual_seed(2)
    shape, light = torch.arange(60) % 3, torch.rand(60, generator=g)
    x = torch.rand(60, 3, 8, 8, generator=g) * 0.2 - 0.9
    for i, s in enumerate(shape.tolist()):
        top, left = 4 * (s // 2), 4 * (s % 2)
        x[i, :, top:top + 4, left:left + 4] += light[i]
    return data.from_table(x, pd.DataFrame({"shape": [f"s{i}" for i in shape.tolist()], "light": light.numpy()}), held_out=0.25)
