"""Make what data/ ships besides digits and host weights: a trained T for both hosts, with UMAP coordinates of the held-out pictures.

    python tools/ship.py               both, about five minutes on two cores
    python tools/ship.py autoencoder   one of them

Afterwards data/registry.json lists the new files with their sha256."""
import json
import sys
from pathlib import Path

from iin_nb import data, embed, explanation, zoo
from iin_nb.cli import CONCEPTS
from iin_nb.core import sha256

FOLDER = Path(__file__).parent.parent/"data"


def ship(kind: str) -> None:
    "Explain one shipped host with the default recipe and seed, add its maps, write it to data/."
    digits, name = data.color_digits(), f"digits-{kind}"
    expl = explanation.explain(zoo.load(name), digits, CONCEPTS)
    expl.maps = embed.atlas(expl, digits.held_out.images).coords
    expl.save(FOLDER/f"{name}.iin")
    registry = json.loads((FOLDER/"registry.json").read_text())
    for file in ("explanation.json", "tensors.safetensors"):
        registry[f"{name}.iin/{file}"] = {
            "sha256": sha256(FOLDER/f"{name}.iin"/file), "licence": "Apache-2.0",
            "origin": f"trained by this project on {name} and the embedded digits",
            "recipe": f"python tools/ship.py {kind}: iin_nb.explain with defaults, UMAP of the held-out pictures"}
    (FOLDER/"registry.json").write_text(json.dumps(registry, indent=1, ensure_ascii=False) + "\n")
    print(expl)


for kind in sys.argv[1:] or ("classifier", "autoencoder"): ship(kind)
