"""What the experiments on a GAN's faces share: z with the judge's readings, readers that learn from few to read many, an autoencoder."""
import functools
from dataclasses import replace

import experiment
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import iin_nb as iin
from iin_nb import fit
from iin_nb.core import generator
from iin_nb.flow import mlp

NAMES = ("smile", "male", "age")
N_LEARN, N_NEW = (400, 400) if experiment.SMALL else (20_000, 2000)   # z to take labels from; z that are judged, never learned from


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


def asked(z: Tensor, values: Tensor, n: int) -> tuple[Tensor, Tensor]:
    "`n` fresh z (n, 100), and what a reader of pictures, trained on z and values, says of theirs (n, 3); made once for a number of labels."
    def make() -> dict[str, Tensor]:
        net, fresh = _picture_reader(z, values), torch.randn(n, 100, generator=generator(99))
        with torch.no_grad(): said = [net(x) + net(x.flip(3)) for x in (_face(host().decode(part)) for part in fresh.split(200))]
        return {"z": fresh, "said": torch.cat(said) / 2}

    made = experiment.once(f"face-gan-asked-{len(z)}", make)
    return made["z"], made["said"]


def z_reader(z: Tensor, values: Tensor, seed: int) -> nn.Module:
    "z (B, 100) to readings (B, 3), trained on z and values; a thirtieth put aside to stop by."
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
