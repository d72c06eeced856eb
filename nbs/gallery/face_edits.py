"""What edits of CelebA's faces are judged by: pairs by label, readings, stand-ins for what the judge has no word for, and who it is."""
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from iin_nb.hosts import Host
from iin_nb.zoo import FaceJudge, _FaceNet

READ = {"Smiling": "smile", "Male": "male"}   # what the judge has a word for, by CelebA's


def pairs(has: np.ndarray, m: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    "Rows of m targets and sources, half without and with the attribute `has` (N,), half the other way round; which are the first half."
    g, has = np.random.RandomState(seed), has.astype(bool)
    no, yes = (g.choice(np.flatnonzero(has == v), m // 2) for v in (False, True))
    sources = g.permutation(yes), g.permutation(no)
    return torch.tensor(np.concatenate([no, yes])), torch.tensor(np.concatenate(sources)), torch.arange(m) < m // 2


class Reader:
    "The judge's readings of what a host decodes, and log-odds of stand-ins: linear readers of what the judge's two nets see."

    def __init__(self, host: Host, judge: FaceJudge): self.host, self.judge, self.stand_ins = host, judge, {}

    @torch.no_grad()
    def seen(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        "Readings, each (B,), and features (B, 768) of pictures x, 100 at a time."
        readings, features = [], []
        for part in x.split(100):
            face, judge = self.judge._crop(part), self.judge
            mood, look = judge.expression.features(face), judge.age_gender.features(face)
            said = judge.expression.linear(mood, "fc").log_softmax(1)
            sex = judge.age_gender.linear(look, "fc/gender")
            readings.append(torch.stack([said[:, 1] - torch.cat([said[:, :1], said[:, 2:]], 1).logsumexp(1), sex[:, 0] - sex[:, 1],
                                         judge.age_gender.linear(look, "fc/age")[:, 0]]))
            features.append(torch.cat([look, mood], 1))
        return dict(zip(("smile", "male", "age"), torch.cat(readings, 1), strict=True)), torch.cat(features)

    def learn(self, features: Tensor, table: pd.DataFrame, names: tuple[str, ...]) -> None:
        "Fit a stand-in for each of `names`, a column of 0 and 1, on the features (N, 768) of pictures that are not judged."
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        for name in names:
            made = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500))
            self.stand_ins[name] = made.fit(features.numpy(), table[name].to_numpy())

    def __call__(self, z: Tensor) -> dict[str, Tensor]:
        "Readings and stand-ins' log-odds, each (B,), of latents z."
        with torch.no_grad(): readings, features = self.seen(torch.cat([self.host.decode(p) for p in z.split(100)]))
        return readings | self.stand_in(features)

    def stand_in(self, features: Tensor) -> dict[str, Tensor]:
        "Log-odds (B,) of every stand-in for features (B, 768)."
        return {k: torch.from_numpy(m.decision_function(features.numpy())).float() for k, m in self.stand_ins.items()}


def marks(name: str, said: dict, before: dict, wanted: dict, up: Tensor) -> dict[str, float]:
    """Share of the gap closed in the mean reading, both ways (`up`: the rows that had it not), and the slope of the others' readings.

    As in celeba_edits: probabilities; others: smile and gender, the larger slope where there are two."""
    k = READ.get(name, name)
    p = lambda v, rows: float(v[k][rows].sigmoid().mean())
    closed = [(p(said, r) - p(before, r)) / (p(wanted, r) - p(before, r)) for r in (up, ~up)]
    gaps = {o: (said[o] - before[o], wanted[o] - before[o]) for o in ("smile", "male") if o != k}
    slopes = {f"{o} moves": float((moved * gap).sum() / gap.square().sum()) for o, (moved, gap) in gaps.items()}
    most = max(slopes.values(), key=abs)
    return {"closed": float(np.mean(closed)), "closed, on": closed[0], "closed, off": closed[1], "others move": most, **slopes}


class Recognition(_FaceNet):
    """face-api's recognition net, a ResNet of dlib's: pictures (B, 3, H, W) in [−1, 1], cut to `box`, to 128 numbers.

    Euclidean distance tells people apart. The default box: of four, that in which mirrored photographs are nearest, for two people's."""

    def __init__(self, folder: Path, box: tuple[int, int, int, int] = (10, 12, 54, 60)):
        super().__init__(folder, "face_recognition_model")
        self.box = box

    def layer(self, x: Tensor, name: str, stride: int = 1, relu: bool = True) -> Tensor:
        "Convolution, scale and shift by channel; without padding where it halves."
        f, w = self.w[f"{name}/conv/filters"].permute(3, 2, 0, 1), self.w
        x = F.conv2d(x, f, w[f"{name}/conv/bias"], stride, 0 if stride == 2 else f.shape[-1] // 2)
        x = x * w[f"{name}/scale/weights"][:, None, None] + w[f"{name}/scale/biases"][:, None, None]
        return F.relu(x) if relu else x

    def block(self, x: Tensor, name: str) -> Tensor:
        down = name.split("_")[1] == "down"
        y = self.layer(self.layer(x, f"{name}/conv1", 2 if down else 1), f"{name}/conv2", relu=False)
        if not down: return F.relu(x + y)
        x = F.avg_pool2d(x, 2)
        y = F.pad(y, (0, x.shape[-1] - y.shape[-1]) * 2)
        return F.relu(F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])) + y)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        "Who is seen, (B, 128)."
        left, top, right, bottom = self.box
        x = F.interpolate(x[:, :, top:bottom, left:right], (150, 150), mode="bilinear", align_corners=False, antialias=True)
        x = (127.5 * (x + 1) - x.new_tensor([122.782, 117.001, 104.298])[:, None, None]) / 256
        x = F.max_pool2d(self.layer(x, "conv32_down", 2), 3, 2)
        for name in dict.fromkeys(k.split("/")[0] for k in self.w if k.startswith("conv") and not k.startswith("conv32_down")):
            x = self.block(x, name)
        return x.mean((2, 3)) @ self.w["fc"]

    def people(self, x: Tensor) -> Tensor:
        "The same, 50 at a time."
        return torch.cat([self(part) for part in x.split(50)])
