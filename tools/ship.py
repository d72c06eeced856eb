"""Make what data/ ships besides the digits: weights of hosts and judge, then a trained T for both hosts with maps of the held-out pictures.

    python tools/ship.py hosts                       classifier, autoencoder and judge (downloads MNIST for the judge), half an hour
    python tools/ship.py explanations                T and UMAP coordinates for both hosts, about five minutes on two cores
    python tools/ship.py explanations autoencoder    one of them

Afterwards data/registry.json lists the new files with their sha256."""
import json
import sys
from pathlib import Path

from safetensors.torch import save

from iin_nb import data, embed, explanation, zoo
from iin_nb.cli import CONCEPTS
from iin_nb.core import sha256

FOLDER = Path(__file__).parent.parent/"data"


def register(file: str, **entry: str) -> None:
    "The sha256 of `file`, and what else `entry` says of it, into registry.json."
    listed = json.loads((FOLDER/"registry.json").read_text())
    listed[file] = {**listed.get(file, {}), **entry, "sha256": sha256(FOLDER/file)}
    (FOLDER/"registry.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


def hosts(kind: str) -> None:
    "Train 'classifier', 'autoencoder' or 'judge' by its recipe and write its weights to data/."
    model, history = zoo.train_judge() if kind == "judge" else zoo.train(kind, data.color_digits(), zoo.RECIPES[kind])
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    (FOLDER/f"digits-{kind}.safetensors").write_bytes(save(weights))
    register(f"digits-{kind}.safetensors")
    print(kind, history)


def explanations(kind: str) -> None:
    "Explain one shipped host with the default recipe and seed, add its maps, write it to data/."
    digits, name = data.color_digits(), f"digits-{kind}"
    expl = explanation.explain(zoo.load(name), digits, CONCEPTS)
    expl.maps = embed.atlas(expl, digits.held_out.images).coords
    expl.save(FOLDER/f"{name}.iin")
    for file in ("explanation.json", "tensors.safetensors"):
        register(f"{name}.iin/{file}", licence="Apache-2.0", origin=f"trained by this project on {name} and the embedded digits",
                 recipe=f"python tools/ship.py explanations {kind}: iin_nb.explain with defaults, UMAP of the held-out pictures")
    print(expl)


PARTS = {"hosts": (hosts, tuple(zoo.MODELS)), "explanations": (explanations, ("classifier", "autoencoder"))}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS: sys.exit(__doc__)
    make, kinds = PARTS[sys.argv[1]]
    for kind in sys.argv[2:] or kinds: make(kind)
