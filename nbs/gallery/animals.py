"""What the two experiments on animal faces share: the pictures, moved a little at each redraw, and their latents."""
from copy import deepcopy
from dataclasses import replace

import experiment
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from iin_nb import data, factors, flow, latents
from iin_nb.core import generator
from iin_nb.data import ImageSet
from iin_nb.factors import Layout
from iin_nb.hosts import Host
from iin_nb.latents import Latents
from iin_nb.pairs import Concept

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


def start_by_size(x: Tensor, concept: Concept, table: pd.DataFrame) -> Tensor:
    """A linear start (lead, lead) on leading directions x (N, lead): last the kind's ridge directions, before them the others, those that

    move z most nearest to the end. `factors.linear_start` fills a block larger than nine with directions in no order."""
    mean, white = flow.whitening(x)
    ridge = factors.ridge_directions((x - mean) @ white, concept.read(table), table["source"].to_numpy())[:, :concept.max_dims]
    back, others = torch.linalg.inv(white), torch.eye(len(white)) - ridge @ ridge.T
    rest = torch.linalg.eigh(others @ back @ back.T @ others)[1]   # the first as many as ridge has are nothing
    return white @ torch.cat([rest[:, ridge.shape[1]:], ridge], 1)


def open_t(latents: Latents, concept: Concept, lead: int, seed: int = 0) -> flow.Flow:
    "A linear T, the same for any size of its class block, the last dimensions of z̃; `closed` ends it. No training."
    rows = torch.randperm(len(latents), generator=generator(seed))[:4096]
    t, z = flow.Flow(flow.FlowConfig(latents.mean.shape[1], lead=lead, n_blocks=1, hidden=8)), latents.mean[rows]
    x = t.find(z).leading(z)
    return t.init_from(z, start=start_by_size(x, concept, latents.table.iloc[rows.numpy()]))


def closed(t: flow.Flow, latents: Latents, layout: Layout) -> flow.Flow:
    "A copy of `open_t`'s T with its last map, as `objective.train_flow` closes: the residual less what the class block says of it."
    first, t = torch.from_numpy(~latents.table["source"].duplicated().to_numpy()), deepcopy(t)
    with torch.no_grad(): z_tilde = t(latents.mean[first])[0]
    t.close(*factors.residual_shear(z_tilde, layout))
    return t.eval()
