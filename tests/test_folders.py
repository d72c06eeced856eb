"""The laws of saved folders: the tensors are those that were written, or the folder is refused; what was saved before still loads."""
import hashlib
import json
import time

import pytest
import torch
from toy_explanation import explain_toy, recipes

from iin_nb import explanation, folders, latents, translation
from iin_nb.core import DataError, assets
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def an_explanation(path):
    made = explain_toy(recipes(60)[0])
    made.save(path)
    return "explanation", lambda: explanation.load(path, made.host)


def a_translation(path):
    import pandas as pd
    pairs = draw(60, 3), latents.from_array(draw(60, 6, seed=1), pd.DataFrame(index=range(60)))
    quick = dict(recipe=Recipe(n_steps=2, eval_every=2), baseline=False)
    translation.translate(None, None, pairs, FlowConfig(6, n_blocks=1, hidden=8), **quick).save(path)
    return "translation", lambda: translation.load(path)


def flip(path, at, by=1):
    raw = bytearray(path.read_bytes())
    raw[at] ^= by
    path.write_bytes(raw)


@pytest.mark.parametrize("make", [an_explanation, a_translation])
def test_a_flipped_byte_is_found(make, tmp_path):
    name, load = make(tmp_path / "a")
    file = tmp_path / "a" / "tensors.safetensors"
    load()
    n = file.stat().st_size
    for at in (n - 1, n - 4, n // 2, n // 3):
        flip(file, at)
        with pytest.raises(DataError, match=rf"{name}.load: expected a whole {name} at .*tensors.safetensors is not what .* copy it again"):
            load()
        flip(file, at)
    load()
    raw = file.read_bytes()
    file.write_bytes(raw[:-400] + bytes(400))
    with pytest.raises(DataError, match="not what was saved"): load()


@pytest.mark.parametrize("make", [an_explanation, a_translation])
def test_a_folder_from_before_there_was_a_sum_still_loads(make, tmp_path):
    name, load = make(tmp_path / "a")
    file = tmp_path / "a" / f"{name}.json"
    said = json.loads(file.read_text())
    assert len(said.pop("seal")) == 64
    assert said.pop("sha256") == hashlib.sha256((tmp_path / "a" / "tensors.safetensors").read_bytes()).hexdigest()
    file.write_text(json.dumps(said))
    load()
    for wrong in (None, 7, "", "0" * 64, ["x"]):
        file.write_text(json.dumps(said | {"sha256": wrong}))
        with pytest.raises(DataError, match=f"{name}.load"): load()


@pytest.mark.parametrize("make", [an_explanation, a_translation])
def test_a_changed_word_or_number_is_found(make, tmp_path):
    name, load = make(tmp_path / "a")
    file = tmp_path / "a" / f"{name}.json"
    raw, before = file.read_text(), repr(load())
    for old, new in (('"seed": 0', '"seed": 1'), ('"depth": ', '"depth": 1'), ('"unit": "nats', '"unit": "bits'), ('"sha256"', '"sha"')):
        assert old in raw
        file.write_text(raw.replace(old, new, 1))
        with pytest.raises(DataError, match=rf"{name}.load: expected a whole {name} at .*{name}.json is not what .* copy it again"): load()
    said = json.loads(raw)
    file.write_text(json.dumps(dict(reversed(said.items()))))
    assert repr(load()) == before, "the order of keys says nothing"
    for wrong in (None, 7, "", "0" * 64, ["x"]):
        file.write_text(json.dumps(said | {"seal": wrong}))
        with pytest.raises(DataError, match=f"{name}.json is not what was saved"): load()
    file.write_text(json.dumps({k: v for k, v in said.items() if k != "seal"}))
    assert repr(load()) == before, "folders from before have none"


@pytest.mark.parametrize("make", [an_explanation, a_translation])
def test_a_flip_anywhere_in_the_description_is_found(make, tmp_path):
    name, load = make(tmp_path / "a")
    file, passed = tmp_path / "a" / f"{name}.json", 0
    said = folders.read_folder(tmp_path / "a", name, 1)[0]
    for at in range(0, file.stat().st_size, 3):
        flip(file, at)
        try: load()
        except DataError as e: assert f"{name}.load: " in str(e) and "damaged or was altered" in str(e)
        else:   # in the key `seal` itself, or a 17th digit that is the same number: nothing has changed
            found, passed = folders.read_folder(tmp_path / "a", name, 1)[0], passed + 1
            assert {k: found[k] for k in said} == said
        flip(file, at)
    assert passed < 8


def test_a_changed_fingerprint_blames_nobody(tmp_path):
    made = explain_toy(recipes(60)[0])
    model = torch.nn.Linear(2, 2)
    object.__setattr__(made.host, "model", model)   # a black box has no fingerprint
    made.save(tmp_path / "a")
    file = tmp_path / "a" / "explanation.json"
    at = file.read_bytes().index(made.host.fingerprint().encode())
    flip(file, at + 5)
    with pytest.raises(DataError, match="explanation.json is not what was saved.*damaged or was altered"):
        explanation.load(tmp_path / "a", made.host)


def test_whatever_json_can_say_can_be_sealed(tmp_path):
    said = {"format": 1, "odd": [None, True, -0.0, 1e-300, 0.1 + 0.2, float("inf"), "é\u2028\ud800"], 10: {2: (3,), "b": "x"}, "z": {}}
    folders.write_folder(said, {}, tmp_path / "a", "shapes")
    assert folders.read_folder(tmp_path / "a", "shapes", 1)[0] == json.loads(json.dumps(said))


@pytest.mark.parametrize("name", ["digits-autoencoder", "digits-classifier"])
def test_the_shipped_ones_load_as_they_did(name):
    assert "sha256" not in json.loads((assets() / f"{name}.iin" / "explanation.json").read_text()), "the sum is in registry.json"
    explanation.shipped(name)


def test_the_sum_costs_little(tmp_path):
    folders.write_folder({"format": 1}, {"side": torch.ones(10**7 // 4)}, tmp_path / "large", "shapes")
    noted, took = json.loads((tmp_path / "large" / "shapes.json").read_text())["sha256"], []
    for _ in range(5):
        start = time.process_time()
        folders.check_sum(tmp_path / "large" / "tensors.safetensors", noted)
        took.append(time.process_time() - start)
    assert min(took) < 0.1, "10 MB"


# ---- folders of folders

OWN = r"parts\.json|part-\d(/side\.txt)?"


def fill(path, text="one", fail=None):
    with folders.whole_folder(path, "parts", OWN) as new:
        (new / "part-0").mkdir()
        (new / "part-0" / "side.txt").write_text(text)
        if fail: raise fail
        (new / "parts.json").write_text("{}")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("odd")])
def test_whole_or_not_at_all(tmp_path, error):
    raised = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(raised): fill(tmp_path / "deep" / "er" / "a", fail=error)
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path / "a")
    with pytest.raises(raised): fill(tmp_path / "a", "two", error)
    assert (tmp_path / "a" / "part-0" / "side.txt").read_text() == "one" and [p.name for p in tmp_path.iterdir()] == ["a"]
    fill(tmp_path / "a", "two")
    assert (tmp_path / "a" / "part-0" / "side.txt").read_text() == "two"


def test_a_full_disk_inside_is_said_of_the_whole(tmp_path):
    inner = DataError("translation.save", "room", "none", "Free some disk.")
    inner.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(DataError, match=r"parts.save: expected room and permission to write .*/a, got .*No space"):
        fill(tmp_path / "a", fail=inner)
    other = DataError("translation.save", "x", "y", "z")
    with pytest.raises(DataError, match="translation.save: expected x"): fill(tmp_path / "a", fail=other)


@pytest.mark.parametrize("mine", ["notes.txt", "part-0/notes.txt", "part-x/side.txt", "part-0/side.txt/deep.txt", "empty/"])
def test_nothing_of_yours_is_replaced(tmp_path, mine):
    if "deep" in mine: (tmp_path / "a" / "part-0").mkdir(parents=True)
    else: fill(tmp_path / "a")
    place = tmp_path / "a" / mine
    if mine.endswith("/"): place.mkdir()
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
    with pytest.raises(DataError, match="something else"): fill(tmp_path / "a", "two")
    assert place.exists()
