"""What edits of CelebA's faces are judged by: pairs by label, readings, stand-ins for what the judge has no word for."""
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from iin_nb.hosts import Host
from iin_nb.zoo import FaceJudge

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

    def seen(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        "Readings, each (B,), and features (B, 768) of pictures x, 100 at a time."
        readings, features = zip(*map(self.judge.seen, x.split(100)), strict=True)
        return {k: torch.cat([r[k] for r in readings]) for k in readings[0]}, torch.cat(features)

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
