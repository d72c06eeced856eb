"""What the experiments on a GAN's faces share: z with the judge's readings, readers that learn from few to read many, an autoencoder."""
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import experiment
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import iin_nb as iin
from iin_nb import fit
from iin_nb.core import generator
from iin_nb.explanation import Explanation
from iin_nb.flow import mlp

NAMES = ("smile", "male", "age")
N_LEARN, N_NEW = (400, 400) if experiment.SMALL else (20_000, 2000)   # z to take labels from; z that are judged, never learned from
MOST = 4.0   # times the way to the source's block, the longest step


@functools.cache
def host() -> iin.hosts.Host: return iin.zoo.face_gan()


@functools.cache
def judge() -> iin.zoo.FaceJudge: return iin.zoo.face_judge(experiment.folder()/"weights/face_api", iin.zoo.FACE_BOXES["face-gan"])


@torch.no_grad()
def read(z: Tensor) -> Tensor:
    "Smile, male (log-odds) and age (years) that the judge reads off the pictures of z, (B, 3)."
    found = [judge()(host().decode(part)) for part in z.split(100)]
    return torch.stack([torch.cat([f[k] for f in found]) for k in NAMES], 1)


def labelled() -> tuple[Tensor, Tensor]:
    "z (N, 100) ~ N(0, I) and its readings (N, 3), made once: `N_LEARN` rows to take labels from, then `N_NEW` to be judged."
    def make() -> dict[str, Tensor]:
        z = torch.randn(N_LEARN + N_NEW, 100, generator=generator(7))
        return {"z": z, "read": read(z)}

    made = experiment.once("few-labels-faces", make)
    return made["z"], made["read"]


@functools.cache
def faces(n: int = 200 if experiment.SMALL else 8000, n_new: int = 50 if experiment.SMALL else 1000) -> iin.data.ImageSet:
    "`n` faces (64 px) to learn from and `n_new` held out, those of `labelled`, with the judge's readings as columns."
    z, read = labelled()
    rows = torch.cat([torch.arange(n), N_LEARN + torch.arange(n_new)])
    x = torch.cat([host().decode(part) for part in z[rows].split(200)])
    return iin.data.ImageSet(x, pd.DataFrame(read[rows].numpy(), columns=NAMES).assign(source=range(len(rows))), n, "GAN faces")


def autoencoder() -> iin.hosts.Host:
    "An autoencoder (64 dimensions) of the GAN's faces, trained once, on 8,000 of them: 1,400 steps of 32, some three minutes of one core."
    def make() -> dict[str, Tensor]:
        n_steps = 20 if experiment.SMALL else 1400
        recipe = replace(iin.zoo.RECIPES["photographs"], n_steps=n_steps, eval_every=n_steps // 4)
        return iin.zoo.train("autoencoder", faces(), recipe, 32, side=64, width=24)[0].state_dict()

    model = iin.zoo.Autoencoder.of(experiment.once("gan-faces-autoencoder", make))
    return iin.zoo.as_host("autoencoder", model, "gan-faces")


def _picture_net(width: int = 32) -> nn.Sequential:
    "Pictures (B, 3, 64, 64), cut to the face, to three readings."
    layers, i = [], 3
    for o in (width, 2 * width, 4 * width):
        for stride in (2, 1):
            layers += [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.4), nn.Linear(16 * i, 3))


def _face(x: Tensor) -> Tensor: return x[:, :, 8:60, 6:58]


def _redrawn(x: Tensor, g: torch.Generator) -> Tensor:
    "Pictures (B, 3, H, W), mirrored, tinted, lit, zoomed and shifted by chance."
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1, generator=g) < 0.5, x, x.flip(3))
    x = (x + 0.15 * torch.randn(n, 3, 1, 1, generator=g)) * (1 + 0.15 * torch.randn(n, 1, 1, 1, generator=g))
    move = torch.zeros(n, 2, 3)
    move[:, 0, 0] = move[:, 1, 1] = 1 + 0.06 * torch.randn(n, generator=g)
    move[:, :, 2] = 0.06 * torch.randn(n, 2, generator=g)
    return F.grid_sample(x, F.affine_grid(move, list(x.shape), align_corners=False), padding_mode="reflection", align_corners=False)


def _picture_reader(z: Tensor, values: Tensor) -> nn.Module:
    "Trained on the pictures of z (N, 100) and their standardised readings (N, 3), an eighth put aside to stop by."
    with torch.no_grad(): x = _face(torch.cat([host().decode(part) for part in z.split(200)]))
    cut, g = len(z) - len(z) // 8, generator(0)
    torch.manual_seed(0)
    net = _picture_net(8 if experiment.SMALL else 32)

    def step(i: int) -> Tensor:
        rows = torch.randint(cut, (64,), generator=g)
        return F.smooth_l1_loss(net(_redrawn(x[rows], g)), values[rows])

    def aside() -> float: return float(F.mse_loss(torch.cat([net(part) for part in x[cut:].split(200)]), values[cut:]))

    n_steps = 10 if experiment.SMALL else 1650
    recipe = fit.Recipe(n_steps=n_steps, lr=4e-3, weight_decay=2e-2, eval_every=n_steps // 10)
    fit.train(net, step, aside, recipe, "of a variance", "reader of pictures")
    return net


def picture_reader(z: Tensor, values: Tensor) -> nn.Module:
    "Reader 1, trained on z and values once for a number of labels; the last eighth was only stopped by."
    made = experiment.once(f"face-gan-reader-{len(z)}", lambda: _picture_reader(z, values).state_dict())
    net = _picture_net(8 if experiment.SMALL else 32)
    net.load_state_dict(made)
    return net.eval()


@torch.no_grad()
def seen(net: nn.Module, z: Tensor) -> Tensor:
    "What a reader of pictures says of those of z (N, 100), standardised (N, 3): the mean over the picture and its mirror image."
    return torch.cat([net(x) + net(x.flip(3)) for x in (_face(host().decode(part)) for part in z.split(200))]) / 2


def asked(z: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    "`n` fresh z (n, 100), and what a reader of pictures, trained on z and values, says of theirs (n, 3); made once for a number of labels."
    def make() -> dict[str, Tensor]:
        fresh = torch.randn(n, 100, generator=generator(99))
        return {"z": fresh, "said": seen(picture_reader(z, values), fresh)}

    made = experiment.once(f"face-gan-asked-{len(z)}", make)
    return made["z"], made["said"]


def _z_reader(z: Tensor, values: Tensor, seed: int) -> nn.Module:
    "Trained on z (N, 100) and values (N, 3), a thirtieth put aside to stop by."
    cut, g = len(z) - len(z) // 30, generator(seed)
    torch.manual_seed(seed)
    net = mlp(100, 3, 640, 2)

    def step(i: int) -> Tensor:
        rows = torch.randint(cut, (256,), generator=g)
        return F.mse_loss(net(z[rows]), values[rows])

    n_steps = 20 if experiment.SMALL else 3000
    recipe = fit.Recipe(n_steps=n_steps, lr=2e-3, weight_decay=0.1, eval_every=n_steps // 10, seed=seed)
    fit.train(net, step, lambda: float(F.mse_loss(net(z[cut:]), values[cut:])), recipe, "of a variance", "reader of z")
    return net


def z_reader(z: Tensor, values: Tensor, seed: int) -> nn.Module:
    "z (B, 100) to readings (B, 3), as a reader of pictures gives them; made once for a number of z."
    net = mlp(100, 3, 640, 2)
    net.load_state_dict(experiment.once(f"face-gan-z-reader-{len(z)}-{seed}", lambda: _z_reader(z, values, seed).state_dict()))
    return net.eval()


def sides(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    "Rows of either side of reading k of values (N, 3), as the judge gives them: below and above even odds, or the middle age."
    high = values[:, k] > (0 if k < 2 else float(values[:, k].median()))
    return (~high).nonzero()[:, 0], high.nonzero()[:, 0]


def gaps(values: Tensor) -> Tensor:
    "Of each reading, mean of the upper side less that of the lower, (3,)."
    return torch.stack([values[b, k].mean() - values[a, k].mean() for k in range(3) for a, b in [sides(values, k)]])


def moved(expl: Explanation, target: Tensor, source: Tensor, k: int, step: Tensor) -> Tensor:
    "z of `target` (M, 100), its three blocks moved by step (3,) times the way from its block k to the source's; one-hot: a plain swap."
    f, other = expl.from_z(target), expl.from_z(source)
    way = other[NAMES[k]] - f[NAMES[k]]
    return expl.to_z(f.replace(**{name: f[name] + s * way for name, s in zip(NAMES, step, strict=True)}))


def _line(said: Tensor, values: Tensor, by: Tensor) -> Tensor:
    "(4, 3) from (1, said) to values, such that what is left over is uncorrelated with `by` (N, 3): instrumental variables."
    one, by = (F.pad(t, (1, 0), value=1.0) for t in (said, by))
    return torch.linalg.solve(by.T @ one, by.T @ values)


@dataclass
class StandIn:
    """What the judge would say of a moved face, as far as its labels and the readers tell: all in the judge's units, (N, 3).

    What the readers of z see is put on a line to the labels; what they miss of a face stays as far as that part of it does which reader 1
    sees. Reader 1 is asked about the last eighth of the labelled pictures only, by which it was stopped and from which it never learned."""
    z: Tensor          # (N, 100)
    labels: Tensor     # (N, 3), the judge's
    net: nn.Module     # reader 1
    guess: Callable    # readers of z
    lines: tuple[Tensor, Tensor]   # of the readers of z and of reader 1, (4, 3) each

    @classmethod
    def of(cls, z: Tensor, labels: Tensor, guess: Callable) -> "StandIn":
        net, by = picture_reader(z, (labels - labels.mean(0)) / labels.std(0)), guess(z)
        return cls(z, labels, net, guess, (_line(by, labels, by), _line(seen(net, z), labels, by)))

    def by_z(self, z: Tensor) -> Tensor: return F.pad(self.guess(z), (1, 0), value=1.0) @ self.lines[0]

    def missed(self, z: Tensor) -> Tensor:
        "What reader 1 sees and the readers of z do not."
        return F.pad(seen(self.net, z), (1, 0), value=1.0) @ self.lines[1] - self.by_z(z)

    def cast(self, k: int, n: int, seed: int) -> "Cast":
        "Labelled targets and sources of reading k, drawn by chance, and fewer targets whose pictures reader 1 is asked about."
        g, (a, b) = generator(seed), sides(self.labels, k)
        shown = a[a >= len(self.z) - len(self.z) // 8]
        shown = shown[torch.randperm(len(shown), generator=g)[:n // 3]]
        target, source, other = (rows[torch.randint(len(rows), (m,), generator=g)] for rows, m in ((a, n), (b, n), (b, len(shown))))
        return Cast(k, target, source, shown, other, self.missed(self.z[shown]))


@dataclass
class Cast:
    "Labelled faces that a swap of reading k is tried on without the judge: rows of a `StandIn`."
    k: int
    target: Tensor   # (M,)
    source: Tensor   # (M,)
    shown: Tensor    # targets that reader 1 is asked about, (S,)
    other: Tensor    # their sources, (S,)
    missed: Tensor   # what the readers of z miss of `shown`, (S, 3)


def response(stand: StandIn, expl: Explanation, cast: Cast, step: Tensor) -> Tensor:
    "Shares of their gaps, (3,), by which a step in place of a swap moves the three readings, as the stand-in sees it."
    z, said = stand.z, stand.labels
    after = stand.missed(moved(expl, z[cast.shown], z[cast.other], cast.k, step))
    u, v = (r - r.mean(0) for r in (cast.missed, after))
    stays = (u * v).mean(0) / u.square().mean(0)
    rest = after.mean(0) + stays * (said[cast.target] - stand.by_z(z[cast.target]) - cast.missed.mean(0)).mean(0)
    end = stand.by_z(moved(expl, z[cast.target], z[cast.source], cast.k, step)).mean(0) + rest
    gap = gaps(said)
    gap[cast.k] = (said[cast.source] - said[cast.target])[:, cast.k].mean()
    return (end - said[cast.target].mean(0)) / gap


def slopes(stand: StandIn, expl: Explanation) -> Tensor:
    "Shares of the gaps (rows) for a move by 1 in each block (columns), (3, 3): over moves of the labelled z, without pictures."
    f, move = expl.from_z(stand.z), torch.randn(len(stand.z), 3, generator=generator(1))
    end = expl.to_z(f.replace(**{name: f[name] + move[:, i:i + 1] for i, name in enumerate(NAMES)}))
    return torch.linalg.lstsq(move, (stand.by_z(end) - stand.by_z(stand.z)) / gaps(stand.labels)).solution.T


def calibrated(stand: StandIn, expl: Explanation, cast: Cast, slope: Tensor, alone: bool = False, rounds: int = 3) -> tuple[Tensor, Tensor]:
    """The step (3,) that moves reading k by its gap and the two others not at all, as the stand-in sees it, and what it moves, (3,).

    Broyden's method from `slopes`; `alone`: block k only, for reading k only. No entry above `MOST`."""
    k, (a, b) = cast.k, (expl.from_z(stand.z[rows]) for rows in (cast.target, cast.source))
    free, aim = [k] if alone else [0, 1, 2], torch.eye(3)[k]
    J, step = ((b[NAMES[k]] - a[NAMES[k]]).mean() * slope)[free][:, free], aim
    tried = [(step, response(stand, expl, cast, step))]
    for _ in range(rounds):
        off, old, step = (aim - tried[-1][1])[free], step, step.clone()
        step[free] = (step[free] + torch.linalg.solve(J, off)).clamp(-MOST, MOST)
        change = (step - old)[free]
        if change.abs().max() < 1e-3: break
        tried.append((step, response(stand, expl, cast, step)))
        left = (aim - tried[-1][1])[free]
        J = J + torch.outer(off - left - J @ change, change) / change.square().sum()
    return min(tried, key=lambda t: float((aim - t[1])[free].abs().max()))
