"""Encoded once, kept exactly, drawn from as the posterior says; files that leave nothing behind; failures that name the row."""
import gc
import io
import os
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from tqdm import std as tqdm_std

from iin_nb import latents as room
from iin_nb.core import DataError, HostError, ShapeError, generator
from iin_nb.data import ImageSet, color_digits
from iin_nb.hosts import from_functions, tap
from iin_nb.latents import NOISE, Latents, encode, from_array

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def images(): return color_digits().train.rows(0, 300)


@pytest.fixture(scope="module")
def plain(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Linear(8, 10)).train()
    with torch.no_grad(): net[1].weight[3] = 0
    return tap(net, "1", images.images[:4])


@pytest.fixture(scope="module")
def vae(images): return from_functions(lambda x: (x.mean((2, 3)), 0.1 + 0.1 * x.std((2, 3))), lambda z: z, images.images[:4], "vae")


# ---- encoding

@pytest.mark.parametrize("batch", [1, 7, 300, 1000])
def test_exactly_what_the_host_says(plain, images, batch):
    few = images.rows(0, 40)
    found = encode(plain, few, batch=batch)
    torch.testing.assert_close(found.mean, plain.encode(few.images), rtol=1e-5, atol=1e-5)
    assert found.table.equals(few.table) and found.mean.dtype == torch.float32 and not found.mean.requires_grad


def test_posterior_is_kept(vae, images):
    found = encode(vae, images)
    mean, std = vae.posterior(images.images)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.std, std)


def test_deterministic_hosts_get_noise_and_constant_dims_none(plain, images):
    found = encode(plain, images)
    assert found.std.shape == (1, 8)
    torch.testing.assert_close(found.std[0], NOISE * found.mean.std(0, unbiased=False))
    assert found.std[0, 3] == 0 and (found.std[0, [0, 1, 2, 4, 5, 6, 7]] > 0).all()
    rows = torch.arange(300)
    z = found.sample(rows, generator(0))
    assert torch.equal(z[:, 3], found.mean[:, 3]) and ((z - found.mean).std(0)[:3] / found.std[0, :3] - 1).abs().max() < 0.15


def test_constants_without_an_exact_float_get_no_noise():
    x = torch.full((1001, 1), 0.1)
    assert from_array(x, pd.DataFrame(index=range(1001))).std.item() == 0


def test_one_sample(plain, vae, images):
    for host in (plain, vae):
        found = encode(host, images.rows(0, 1))
        assert found.sample(torch.tensor([0, 0, 0])).shape == (3, host.dim) and torch.isfinite(found.std).all()
    assert encode(plain, images.rows(0, 1)).std.abs().max() == 0


def test_copies(plain, images):
    found = encode(plain, images, copies=3, seed=4)
    assert len(found) == 900 and found.table["source"].tolist() == 3 * images.table["source"].tolist()
    assert torch.equal(found.mean[:300], encode(plain, images).mean)
    second = images.redraw(images, 4 * 100_003 + 1)
    torch.testing.assert_close(found.mean[300:600], plain.encode(second.images), rtol=1e-5, atol=1e-5)
    assert np.array_equal(found.table["r"][300:600], second.table["r"])
    assert not torch.equal(found.mean[300:600], found.mean[600:])
    assert torch.equal(found.mean, encode(plain, images, copies=3, seed=4).mean)
    assert not torch.equal(found.mean[300:], encode(plain, images, copies=3, seed=5).mean[300:])


def test_sets_that_cannot_be_redrawn_are_encoded_once(plain, images):
    assert len(encode(plain, replace(images, redraw=None), copies=3)) == 300


def test_host_is_left_as_it_was(images, snapshot):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10)).train()
    host = tap(net, "2", images.images[:4])
    was = snapshot(net)
    encode(host, images)
    with pytest.raises(DataError): encode(host, replace(images, images=torch.full_like(images.images, float("nan"))))
    was.check()


def test_progress(plain, images):
    text = io.StringIO()
    class Caught(tqdm_std.tqdm):
        def __init__(self, *args, **kw):
            super().__init__(*args, **kw | {"file": text, "disable": False, "mininterval": 0, "ncols": 100})
    with mock.patch("tqdm.auto.tqdm", Caught): encode(plain, images, copies=2, batch=100)
    assert "encoding:" in text.getvalue() and "600/600" in text.getvalue()


# ---- drawing

def test_sample_follows_each_rows_posterior():
    latents = Latents(torch.tensor([[0.0, 5], [9, 9]]), torch.tensor([[1.0, 2], [0, 3]]), pd.DataFrame(index=range(2)))
    z = latents.sample(torch.zeros(40_000, dtype=torch.long), generator(0))
    torch.testing.assert_close(z.mean(0), torch.tensor([0.0, 5]), atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), torch.tensor([1.0, 2]), atol=0.05, rtol=0)
    assert (latents.sample(torch.tensor([1, 1]))[:, 0] == 9).all()
    rows = torch.tensor([1, 0, 1])
    assert torch.equal(latents.sample(rows, generator(1)), latents.sample(rows, generator(1)))
    assert not torch.equal(latents.sample(rows, generator(1)), latents.sample(rows, generator(2)))


def test_sample_leaves_the_outside_alone():
    latents = from_array(np.random.RandomState(0).randn(9, 2), pd.DataFrame(index=range(9)))
    before = torch.get_rng_state()
    latents.sample(torch.arange(9), generator(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_keeps_the_dtype(dtype):
    latents = Latents(torch.zeros(3, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype), pd.DataFrame(index=range(3)))
    assert latents.sample(torch.tensor([0])).dtype == dtype


@pytest.mark.parametrize("rows", [1, 2, 17])
@pytest.mark.parametrize("per_row", [True, False])
def test_rows(rows, per_row):
    mean = torch.arange(40.0).reshape(20, 2)
    latents = Latents(mean, mean.clone() if per_row else mean[:1], pd.DataFrame({"n": range(20)}))
    part = latents.rows(3, 3 + rows)
    assert torch.equal(part.mean, mean[3:3 + rows]) and torch.equal(part.std, mean[3:3 + rows] if per_row else mean[:1])
    assert part.table["n"].tolist() == list(range(3, 3 + rows)) and part.table.index[0] == 0
    assert part.sample(torch.tensor([rows - 1])).shape == (1, 2)


# ---- arrays without a host

def test_from_array():
    x = np.random.RandomState(0).randn(30, 4)
    table = pd.DataFrame({"n": range(30)})
    frozen = x.astype(np.float32)
    frozen.flags.writeable = False
    for form in (x, frozen, torch.tensor(x), torch.tensor(x, requires_grad=True)):
        found = from_array(form, table)
        torch.testing.assert_close(found.mean, torch.tensor(x, dtype=torch.float32))
        torch.testing.assert_close(found.std, NOISE * found.mean.std(0, keepdim=True, unbiased=False))
        assert not found.mean.requires_grad
    assert torch.equal(from_array(x, table, std=np.ones((30, 4))).std, torch.ones(30, 4))


@pytest.mark.parametrize(("mean", "rows", "std", "error", "said"), [
    (np.zeros(30), 30, None, ShapeError, r"\(30,\)"), (np.zeros((3, 2, 2)), 3, None, ShapeError, r"\(3, 2, 2\)"),
    (np.full((3, 2), np.nan), 3, None, DataError, "finite mean"), (np.zeros((0, 2)), 0, None, DataError, "at least one"),
    (np.zeros((3, 2)), 4, None, DataError, "4 rows"), (np.zeros((3, 2)), 3, np.zeros((2, 2)), DataError, r"std \(2, 2\)"),
    (np.zeros((3, 2)), 3, np.full((3, 2), np.inf), DataError, "finite std"),
])
def test_from_array_refuses(mean, rows, std, error, said):
    with pytest.raises(error, match=said): from_array(mean, pd.DataFrame(index=range(rows)), std)


# ---- on disk

def mapped(folder):
    "Bytes of this process's maps that lie in `folder`, nameless files included."
    with open("/proc/self/maps") as f: return sum(str(folder) in line for line in f)


def descriptors(): return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("copies", [1, 2])
def test_on_disk_is_the_same(plain, vae, images, tmp_path, copies):
    for host in (plain, vae):
        ram, disk = encode(host, images, copies), encode(host, images, copies, max_ram=1000, folder=tmp_path)
        assert torch.equal(ram.mean, disk.mean) and torch.equal(ram.std, disk.std)
        rows = torch.tensor([299, 0, 5])
        assert torch.equal(ram.sample(rows, generator(0)), disk.sample(rows, generator(0)))


def test_above_max_ram_only(plain, images, tmp_path):
    size = 300 * 8 * 4
    with mock.patch.object(np, "memmap", wraps=np.memmap) as used:
        encode(plain, images, max_ram=size, folder=tmp_path)
        assert not used.called
        encode(plain, images, max_ram=size - 1, folder=tmp_path)
        assert used.call_count == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads Linux's record of open files and maps")
def test_no_file_no_map_no_descriptor_is_left(vae, images, tmp_path):
    before = descriptors()
    found = encode(vae, images, max_ram=0, folder=tmp_path)
    assert os.listdir(tmp_path) == [] and mapped(tmp_path) == 2 and descriptors() == before + 2   # the maps hold the files, no name does
    part = found.rows(5, 9)
    values = part.mean.clone()
    del found
    gc.collect()
    assert mapped(tmp_path) == 2 and torch.equal(part.mean, values), "a part keeps the whole"
    del part
    gc.collect()
    assert mapped(tmp_path) == 0 and descriptors() == before


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads Linux's record of open files and maps")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_a_failure(vae, images, tmp_path, error):
    before, calls = descriptors(), []
    def broken(x):
        calls.append(x)
        if len(calls) == 2: raise error
        return x.mean((2, 3)), x.std((2, 3))
    with pytest.raises(error): encode(replace(vae, _encode=broken), images, batch=100, max_ram=0, folder=tmp_path)
    gc.collect()
    assert os.listdir(tmp_path) == [] and mapped(tmp_path) == 0 and descriptors() == before


def test_full_disk_is_an_error_not_a_crash(plain, images, tmp_path):
    full = OSError(28, "No space left on device")
    with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=100)):
        with pytest.raises(DataError, match="MB of room in .*No space left.*Pass folder="):
            encode(plain, images, max_ram=0, folder=tmp_path)
    if hasattr(os, "posix_fallocate"):
        with mock.patch("os.posix_fallocate", side_effect=full), pytest.raises(DataError, match="No space left"):
            encode(plain, images, max_ram=0, folder=tmp_path)
    assert os.listdir(tmp_path) == []


def test_unusable_folder(plain, images, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DataError, match="Pass folder="): encode(plain, images, max_ram=0, folder=folder)


def test_default_folder_is_the_systems(plain, images, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with mock.patch.object(room.tempfile, "TemporaryFile", wraps=room.tempfile.TemporaryFile) as used: encode(plain, images, max_ram=0)
    assert used.call_args.kwargs["dir"] == str(tmp_path)


# ---- bad input

def test_empty_set(plain, images):
    with pytest.raises(DataError, match="latents.encode: expected at least one image, got an empty set"): encode(plain, images.rows(0, 0))


@pytest.mark.parametrize("copies", [0, -1])
def test_copies_refused(plain, images, copies):
    with pytest.raises(DataError, match="copies of 1 or more"): encode(plain, images, copies)


@pytest.mark.parametrize("which", ["mean", "std"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_from_the_host_names_the_row(vae, images, which, bad):
    def broken(x):
        mean, std = x.mean((2, 3)), x.std((2, 3))
        hit = (x == images.images[205]).flatten(1).all(1)
        (mean if which == "mean" else std)[hit, 1] = bad
        return mean, std
    said = rf"latents.encode \(vae\): expected finite latents \({which}\), got 1 NaN or Inf, the first in row 205"
    with pytest.raises(DataError, match=said):
        encode(replace(vae, _encode=broken), images, copies=2, batch=64)


def test_nan_in_a_redrawn_copy_names_the_row_of_the_set(vae, images):
    bad = images.redraw(images, 1).images[37]
    def broken(x):
        mean, std = x.mean((2, 3)), x.std((2, 3))
        mean[(x == bad).flatten(1).all(1)] = float("nan")
        return mean, std
    with pytest.raises(DataError, match="the first in row 37"): encode(replace(vae, _encode=broken), images, copies=3, batch=64)


def test_host_that_drops_rows(vae, images):
    with pytest.raises(HostError, match=r"mean of shape \(256, 3\), got \(255, 3\)"):
        encode(replace(vae, _encode=lambda x: (x.mean((2, 3))[1:], x.std((2, 3)))), images)


def test_log_std_is_noticed(vae, images):
    with pytest.raises(HostError, match="std of 0 or more, got -.*Return std"):
        encode(replace(vae, _encode=lambda x: (x.mean((2, 3)), x.std((2, 3)).log())), images)


def test_latents_that_do_not_fit():
    for std, n in ((torch.ones(2, 2), 3), (torch.ones(1, 3), 3), (torch.ones(1, 2), 4)):
        with pytest.raises(DataError, match="latents.Latents"): Latents(torch.ones(3, 2), std, pd.DataFrame(index=range(n)))


def test_wrong_pictures(plain):
    gray = ImageSet(torch.zeros(4, 1, 32, 32), pd.DataFrame(index=range(4)), 4)
    with pytest.raises(ShapeError): encode(plain, gray)
