"""What the two experiments on animal faces share: the pictures, moved a little at each redraw, and their latents."""
from dataclasses import replace

import experiment
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from iin_nb import data, latents
from iin_nb.core import generator
from iin_nb.data import ImageSet
from iin_nb.hosts import Host
from iin_nb.latents import Latents

COPIES = 1 if experiment.SMALL else 10


def moves(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    "How `moved` moves n pictures: mirrored (n,) as −1 or 1, zoom (n,) 0.85 … 1.05 of the side seen, shift (n, 2) in half sides."
    g = generator(seed)
    mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    return mirror, 0.85 + 0.2 * torch.rand(n, generator=g), 0.16 * (torch.rand(n, 2, generator=g) - 0.5)


def moved(images: ImageSet, seed: int) -> ImageSet:
    "The set with each picture mirrored, zoomed and shifted by chance: a `redraw`."
    (mirror, zoom, shift), x = moves(len(images), seed), images.images
    m = torch.zeros(len(x), 2, 3)
    m[:, 0, 0], m[:, 1, 1], m[:, :, 2] = zoom * mirror, zoom, shift
    grids = (F.affine_grid(part, [len(part), *x.shape[1:]], align_corners=False) for part in m.split(64))
    drawn = [F.grid_sample(a, b, padding_mode="reflection", align_corners=False) for a, b in zip(x.split(64), grids, strict=True)]
    return replace(images, images=torch.cat(drawn))


def faces(side: int) -> ImageSet:
    "The animal faces, `side` pixels, redrawn by `moved`; in the small form a third of them."
    found = replace(data.animal_faces(experiment.folder()/"data", side), redraw=moved)
    if not experiment.SMALL: return found
    keep = np.r_[0:240, found.n_train:found.n_train + 60]
    return replace(found, images=found.images[keep], table=found.table.iloc[keep].reset_index(drop=True), n_train=240)


def encoded(name: str, host: Host, images: ImageSet) -> tuple[Latents, Latents, Latents]:
    "Latents, made once: of pictures to learn from and to decide by, `COPIES` drawings of each, and of those held out, as they are."
    def make() -> dict[str, Tensor]:
        return {"train": latents.encode(host, images.train, COPIES, 32).mean, "held": latents.encode(host, images.held_out, 1, 32).mean}

    z, table, n = experiment.once(name, make), images.train.table, images.n_train
    table = pd.concat([table] * COPIES, ignore_index=True)
    first = torch.arange(n * COPIES) % n < round(0.85 * n)   # all drawings of a picture on one side
    parts = [latents.from_array(z["train"][rows], table[rows.numpy()].reset_index(drop=True)) for rows in (first, ~first)]
    return *parts, latents.from_array(z["held"], images.held_out.table)
