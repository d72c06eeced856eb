"""What two experiments on the digit classifier's layers share: pictures of one contrast, their latents, τ of a layer."""
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import experiment
import pandas as pd
import torch
from torch import Tensor, nn

from iin_nb import data, fit, latents, objective, pairs
from iin_nb import translation as tr
from iin_nb.conditional import Aligned, ConditionalFlow, EmbedderConfig, Regressor, certify_v, fit_flow
from iin_nb.core import generator
from iin_nb.explanation import Explanation, certify
from iin_nb.factors import BlockLaw, Layout
from iin_nb.flow import Flow, FlowConfig
from iin_nb.hosts import Host, tap

SMALL = experiment.SMALL
LAYERS = {"early: features.0": "features.0", "middle: features.1": "features.1", "late: features.2": "features.2",
          "features": "features", "logits": "head"}
WARM = ("features.1", "features.2")   # layers whose H starts as the regression's: from scratch τ misses the color there
CONTRAST = 0.9                     # |color|: half the distance of stroke and ground, all pictures alike
NEAR, FAR = 0.99, 0.4              # correlation within a pair: of the likelihood, and of the contrast that pulls the digits apart
N_STOP, N_TEST = (60, 300) if SMALL else (3240, 6000)
N_LEARN = 940 if SMALL else 50_760
STEPS, BATCH = (20, 64) if SMALL else (800, 256)


def even_colors(n: int, g: torch.Generator, held_out: bool, contrast: float = CONTRAST) -> Tensor:
    "`n` colors (n, 3) in [0, 1] with |color| = `contrast`, from the training or the held-out cells of the color cube."
    found = []
    while sum(map(len, found)) < n:
        c = data.random_colors(200_000, g, held_out)
        size = c.norm(dim=1, keepdim=True)
        found.append((c * contrast / size)[((size / contrast - 1).abs() < 0.03)[:, 0]])
    return torch.cat(found)[:n].clamp_max(1)


@cache
def gray() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    "Gray digits of MNIST's training set and their classes by part: learn (with all that the hosts know), stop, test."
    mnist, free, own = experiment.mnist_rows()
    rows = {"test": free[:N_TEST], "stop": free[N_TEST:N_TEST + N_STOP], "learn": torch.cat([own, free[N_TEST + N_STOP:]])[:N_LEARN]}
    classes = torch.from_numpy(mnist.table["class"].to_numpy().astype("int64"))
    return {k: mnist.images[r] for k, r in rows.items()}, {k: classes[r] for k, r in rows.items()}


def image_set(copies: int, even: bool = True) -> data.ImageSet:
    "The digits, those of learn and stop in `copies` colors each, test in one held-out color; `even`: all colors of one contrast."
    (x, y), g = gray(), generator(1 + even)
    parts = [p for p in ("learn", "stop") for _ in range(copies)] + ["test"]
    draw = even_colors if even else data.random_colors
    color = torch.cat([draw(len(x[p]), g, p == "test") for p in parts])
    start = {"learn": 0, "stop": len(x["learn"]), "test": len(x["learn"]) + len(x["stop"])}
    source = torch.cat([start[p] + torch.arange(len(x[p])) for p in parts])
    table = pd.DataFrame({"class": torch.cat([y[p] for p in parts]).numpy(), "source": source.numpy()})
    table[["r", "g", "b"]] = color.numpy()
    images = data.colored(torch.cat([x[p] for p in parts]), color)
    return data.ImageSet(images, table, len(table) - len(x["test"]), "digits of one contrast" if even else "digits")


def recipe(steps: int, seed: int = 0) -> fit.Recipe:
    "The library's recipe of T, so long."
    return replace(objective.RECIPE, n_steps=steps, eval_every=max(steps // 8, 1), seed=seed)


def once(name: str, make: Callable[[], dict[str, Tensor]], *depends: object) -> dict[str, Tensor]:
    "Made once for these digits and whatever else it depends on; of a host its weights count."
    key = N_LEARN, CONTRAST, *(d.fingerprint() if isinstance(d, Host) else d for d in depends)
    return experiment.once(f"digit-layers-{name}-{zlib.crc32(repr(key).encode()):08x}", make)


def with_history(net: nn.Module, name: str, fit_it: Callable[[], fit.History], *depends: object) -> fit.History:
    "`net` trained by `fit_it`, or filled from the cache; its history."
    def make() -> dict[str, Tensor]:
        told = fit_it()
        return net.state_dict() | {"told": torch.tensor(told.frame().to_numpy("float64"))}

    weights = once(name, make, *depends)
    rows = [dict(zip(("step", "seconds", "train", "held_out", "lr"), row, strict=True)) for row in weights.pop("told").tolist()]
    net.load_state_dict(weights)
    net.eval()
    return fit.History(rows, "finished", int(min(rows, key=lambda r: r["held_out"])["step"]), rows[-1]["seconds"], "nats a sample")


class Layers:
    "A classifier, the autoencoder that paints, pictures for both; what is encoded or trained is made once."

    def __init__(self, reader: Host, painter: Host, images: data.ImageSet, name: str = "shipped"):
        self.reader, self.painter, self.images, self.name = reader, painter, images, name
        self.last = None, None
        encoded = once(f"{images.name}-painted".replace(" ", "-"), self._painted, len(images), painter)
        self.z = latents.from_array(encoded["mean"], images.table)
        n, stop = images.n_train, N_STOP * images.n_train // (N_LEARN + N_STOP)
        self.rows = {"learn": torch.arange(n - stop), "stop": torch.arange(n - stop, n), "test": torch.arange(n, len(images))}

    def _painted(self) -> dict[str, Tensor]: return {"mean": latents.encode(self.painter, self.images).mean}

    def place(self, path: str) -> Host: return tap(self.reader.model, path, self.images.images[:8])

    def seen(self, place: Host, rows: Tensor) -> Tensor:
        "What a layer says of pictures, (N, D)."
        return torch.cat([place.encode(self.images.images[r]) for r in rows.split(500)])

    def aligned(self, place: Host, few: int | None = None) -> list[Aligned]:
        "Conditions and z̄ to learn from and to stop by, those of the last place kept; of maps the first color alone, to save memory."
        if self.last[0] == (place.layer, few): return self.last[1]
        self.last = None, None

        def both(rows: Tensor) -> Aligned:
            rows = rows[:few or (len(rows) // 2 if len(place.z_shape) > 1 else None)]
            return Aligned(self.seen(place, rows), latents.Latents(self.z.mean[rows], self.z.std, self.z.table.iloc[rows.numpy()]))

        self.last = (place.layer, few), [both(self.rows["learn"]), both(self.rows["stop"][:None if few is None else 1000])]
        return self.last[1]

    def tau(self, path: str, seed: int = 0, steps: int | None = None, few: int | None = None) -> tr.Translation:
        "τ from a layer of the reader to z̄: a `Translation`; twice as long where the host is tapped."
        place, steps = self.place(path), steps or STEPS * (2 if path == "features" else 1)
        source = tr.Source(f"{self.reader.name}.{path}", tuple(place.z_shape), place)
        net = ConditionalFlow(FlowConfig(self.painter.dim, seed=seed), EmbedderConfig(source.shape, seed=seed))
        if warm := path in WARM: net.embedder.load_state_dict(self.regression(path, seed).net.embedder.state_dict())
        told = with_history(net, f"tau-{self.name}-{path}-{seed}{'-warm' * warm}",
                            lambda: fit_flow(net, *self.aligned(place, few), recipe(steps, seed), BATCH),
                            steps, few, BATCH, self.reader, self.painter)
        rows = self.rows["test"][:2000]
        c, z = self.seen(place, rows), self.z.mean[rows]
        noisy = z + self.z.std * torch.randn(z.shape, generator=generator(0))
        with torch.no_grad(): nats = float(torch.cat([net.nats(a, b) for a, b in zip(noisy.split(500), c.split(500), strict=True)]).mean())
        trip = certify_v(net, z, c)
        return tr.Translation(source, self.painter, net, torch.zeros(0), self.z.std, trip, told, {"nats": nats})

    def regression(self, path: str, seed: int = 0, steps: int = STEPS) -> tr.Regression:
        "An MLP of τ's size from the same layer to z̄, by squared error: a `Regression`."
        place = self.place(path)
        source, d = tr.Source(f"{self.reader.name}.{path}", tuple(place.z_shape), place), self.painter.dim
        embedder = EmbedderConfig(source.shape, seed=seed)
        net = Regressor(d, embedder, ConditionalFlow(FlowConfig(d, seed=seed), embedder).n_parameters)

        def fitted() -> fit.History:
            (learn, check), g = self.aligned(place), generator(seed)
            net.init_from(learn.z.mean[:4096], learn.c[:4096])

            def step(i: int) -> Tensor:
                c, z = learn.draw(torch.randint(len(learn), (BATCH,), generator=g), g)
                return net.error(z, c).mean()

            def held() -> float:
                both = zip(check.z.mean.split(1000), check.c.split(1000), strict=True)
                return float(torch.cat([net.error(z, c) for z, c in both]).mean())

            return fit.train(net, step, held, recipe(steps, seed), "of the variance", "training the MLP")

        told = with_history(net, f"mlp-{self.name}-{path}-{seed}", fitted, steps, BATCH, self.reader, self.painter)
        rows = self.rows["test"][:2000]
        with torch.no_grad(): error = float(net.error(self.z.mean[rows], self.seen(place, rows)).mean())
        return tr.Regression(source, self.painter, net, told, {"error": error})

    def names(self, steps: int = 20 if SMALL else 1600, apart: int = 10 if SMALL else 800) -> Explanation:
        """An explanation of the painter on all the digits: digit 9, color 3 and residual, trained like any, then the digits pulled apart.

        The contrastive term is content with classes a few √(1 − ρ²) apart. `apart` more steps ask for the same at ρ = `FAR`, weight 64,
        beside the likelihood at `NEAR`: classes move away from each other, pairs of one class stay close. Ours."""
        learn, check = (self.z.rows(int(r[0]), int(r[-1]) + 1) for r in (self.rows["learn"], self.rows["stop"]))
        concepts = pairs.concepts(learn.table, {"digit": "class", "color": ["r", "g", "b"]})
        flow, layout = Flow(FlowConfig(self.painter.dim)), Layout.of({"digit": 9, "color": 3}, self.painter.dim)

        def first() -> fit.History:
            made, told = objective.train_flow(learn, check, concepts, layout, flow.config, recipe(steps), BATCH, NEAR)
            flow.load_state_dict(made.state_dict())
            return told

        def then() -> fit.History:
            sets, g = [(z, pairs.Pairs(z.table, concepts)) for z in (learn, check)], generator(5)

            def held() -> float:
                same = generator(0)
                return sum(float(pulled(flow, *sets[1], layout, BATCH, same)) for _ in range(8)) / 8

            return fit.train(flow, lambda i: pulled(flow, *sets[0], layout, BATCH, g), held, recipe(apart), "nats a pair", "digits apart")

        with_history(flow, "names", first, steps, NEAR, self.painter)
        told = with_history(flow, "names-apart", then, steps, apart, NEAR, FAR, self.painter)
        told = replace(told, unit="nats a pair, contrasts included")
        with torch.no_grad(): f = layout.split(flow(learn.mean[:4000])[0])
        laws, trip = {k: BlockLaw.fit(b) for k, b in f.items()}, certify(self.painter, flow, self.images.held_out.images[:1000])
        made = {"n_steps": steps, "apart": apart, "rho": NEAR, "rho apart": FAR}
        return Explanation(self.painter, flow, layout, concepts, laws, trip, told, made)


def pulled(flow: Flow, z: latents.Latents, p: pairs.Pairs, layout: Layout, n: int, g: torch.Generator) -> Tensor:
    "Mean pair likelihood and contrast of n pairs, and 64 times the contrast of their digits at ρ = `FAR`."
    a, b, shared = p.sample(n, g)
    z_tilde, logdet = flow(torch.cat([z.sample(a, g), z.sample(b, g)]))
    digit = layout.split(z_tilde).digit
    nll = objective.pair_nll(z_tilde[:n], logdet[:n], z_tilde[n:], logdet[n:], shared, layout.sizes, NEAR).mean()
    far = objective.contrast(digit[:n], digit[n:], p.shared_among(0, a, b), FAR).mean()
    return nll + objective.CONTRAST * objective.mean_contrast(z_tilde, p, a, b, layout, NEAR) + 64 * far
