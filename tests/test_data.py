"""Pictures in one form, concepts in step with them, no digit and no color on both sides, and files that are refused when damaged."""
import gzip
import hashlib
import http.server
import io
import os
import struct
import threading
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from iin_nb import core, data
from iin_nb.core import DataError, generator

pytestmark = pytest.mark.filterwarnings("error")   # no torch.from_numpy of read-only arrays, no pandas complaint


@pytest.fixture(scope="module")
def colors(): return data.color_digits()


def cells(images): return {tuple(c) for c in np.floor(images.table[["r", "g", "b"]].to_numpy() * 16).astype(int)}


def rgb(images): return torch.tensor(images.table[["r", "g", "b"]].to_numpy())


# ---- digits and colors

def test_digits():
    images, labels = data.digits()
    assert (images.shape, images.dtype, labels.dtype) == ((10000, 28, 28), torch.uint8, torch.int64)
    assert set(labels.tolist()) == set(range(10)) and len(images.flatten(1).unique(dim=0)) == 10000
    assert labels[:8500].bincount().min() > 650 and labels[8500:].bincount().min() > 100   # shuffled: every class on both sides


def test_color_digits_split_is_exact(colors):
    train, held_out = colors.train, colors.held_out
    assert (len(colors), len(train), len(held_out)) == (10000, 8500, 1500)
    assert not set(train.table["source"]) & set(held_out.table["source"])
    assert colors.images.shape == (10000, 3, 32, 32) and colors.images.dtype == torch.float32
    assert colors.images.min() >= -1 and colors.images.max() <= 1
    assert {"class", "r", "g", "b"} <= set(colors.table.columns)
    assert held_out.redraw is None and held_out.n_train == 0


def test_held_out_colors_are_never_trained_on(colors):
    assert not cells(colors.train) & cells(colors.held_out)
    for seed in range(3): assert not cells(colors.redraw(colors.train, seed)) & cells(colors.held_out)
    assert len(cells(colors.train)) > 2500 and 400 < len(cells(colors.held_out)) < 800


def test_the_ground_is_the_strokes_negative(colors):
    images, labels = data.digits()
    gray = data.strokes(images)
    torch.testing.assert_close(-colors.images[:, :, 0, 0], rgb(colors))                             # the ground: −color
    torch.testing.assert_close(colors.images, gray * rgb(colors)[:, :, None, None])                 # everywhere: gray × color
    assert colors.table["class"].tolist() == labels.tolist()
    brightest = gray.flatten(1).argmax(1)
    stroke = colors.images.flatten(2)[torch.arange(10000), :, brightest]
    full = gray.flatten(1).amax(1) == 1
    torch.testing.assert_close(stroke[full], rgb(colors)[full])


def test_redraw_keeps_concepts_true(colors):
    part = colors.train.rows(100, 400)
    again = part.redraw(part, 5)
    assert (len(again), again.n_train) == (300, 300)
    assert again.table["class"].tolist() == part.table["class"].tolist()
    assert again.table["source"].tolist() == list(range(100, 400))
    assert not torch.equal(rgb(again), rgb(part))
    torch.testing.assert_close(-again.images[:, :, 0, 0], rgb(again), atol=0.02, rtol=0)
    assert torch.equal(again.images, part.redraw(part, 5).images)
    assert not torch.equal(again.images, part.redraw(part, 6).images)
    assert again.redraw(again, 5).table.equals(again.table), "a redrawn set can be redrawn"


def test_redrawing_the_whole_set_keeps_the_split(colors):
    some = replace(colors.rows(8000, 9000), n_train=500)
    again = some.redraw(some, 1)
    assert again.n_train == 500 and not cells(again.train) & cells(colors.held_out) and not cells(again.held_out) & cells(colors.train)


def test_color_digits_seed(colors):
    assert data.color_digits().table.equals(colors.table)
    other = data.color_digits(1)
    assert not np.allclose(other.table["r"], colors.table["r"]) and other.table["class"].equals(colors.table["class"])
    assert not cells(other.train) & cells(colors.held_out), "the held-out cells are the same for every seed"


def test_outside_streams_are_untouched(colors):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    colors.redraw(colors.train.rows(0, 20), 1)
    data.from_table(np.zeros((9, 4, 4), np.uint8), pd.DataFrame(index=range(9)))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]


def test_jitter():
    x = torch.full((200, 1, 32, 32), -1.0)
    x[:, :, 14:18, 14:18] = 1
    moved = data.jitter(x, generator(0), shear=0, warp=0, share=1)
    assert moved.shape == x.shape and moved.min() >= -1.0001 and moved.max() <= 1.0001
    assert moved[:, :, 0].max() < -0.99 and moved[..., 0].max() < -0.99                             # what comes in is dark
    ink, at = (moved + 1).sum((1, 2, 3)), torch.arange(32) - 15.5
    shift = ((moved + 1).sum((1, 2)) * at).sum(1) / ink
    assert 0.4 < shift.abs().mean() < 1.3 and shift.abs().max() < 0.08 * 16 * 1.17 + 0.1            # 0.08 half-widths of 16 px, scaled
    assert ink.max() / ink.min() < 2.2                                                              # e^(4 · 0.15) = 1.8, and edges
    torch.testing.assert_close(data.jitter(x[:3], generator(0), 0, 0, 0, 0, 0, share=1), x[:3], atol=1e-4, rtol=0)
    bent = data.jitter(x, generator(0), 0, 0, 0, 0, share=1)
    assert 0.02 < (bent - x).square().mean() / (x - x.mean()).square().mean() < 0.5                 # bent, and still the same square
    still = (data.jitter(x, generator(0)) == x).flatten(1).all(1).float().mean()
    assert 0.1 < still < 0.3                                                                        # one in five stays as it is


# ---- sets

def make(n=10, **kw): return data.ImageSet(torch.zeros(n, 1, 4, 4), pd.DataFrame({"class": range(n)}), **{"n_train": 8} | kw)


def test_parts_of_a_set():
    images = make()
    assert (len(images.train), len(images.held_out)) == (8, 2)
    assert images.rows(3, 5).table["class"].tolist() == [3, 4] and images.rows(3, 5).table.index.tolist() == [0, 1]
    learn, check = images.train.split(0.25)
    assert learn.table["class"].tolist() == list(range(6)) and check.table["class"].tolist() == [6, 7]
    assert len(images.train.split(0.001)[1]) == 1, "at least one to decide on"
    assert "8 train, 2 held out" in repr(images)


@pytest.mark.parametrize("wrong", [{"n_train": 11}, {"n_train": -1}, {"table": pd.DataFrame({"class": [1, 2]})}])
def test_set_refuses(wrong):
    with pytest.raises(DataError, match="data.ImageSet: expected one table row per image"): replace(make(), **wrong)


@pytest.mark.parametrize(("rows", "share"), [(1, 0.06), (0, 0.06), (10, 1.0), (10, 2.0)])
def test_split_refuses(rows, share):
    with pytest.raises(DataError, match="data.split"): make().rows(0, rows).split(share)


# ---- people's own arrays

BYTES = np.random.RandomState(0).randint(0, 256, (12, 6, 5, 3), np.uint8)
FLOATS = BYTES.transpose(0, 3, 1, 2) / 127.5 - 1
TABLE = pd.DataFrame({"n": range(12)})


@pytest.mark.parametrize("form", [BYTES, BYTES.transpose(0, 3, 1, 2), FLOATS, FLOATS.astype(np.float32), torch.tensor(BYTES),
                                  torch.tensor(FLOATS), list(BYTES), torch.tensor(FLOATS, requires_grad=True)])
def test_from_table_takes(form):
    images = data.from_table(form, TABLE)
    assert images.images.shape == (12, 3, 6, 5) and images.images.dtype == torch.float32 and not images.images.requires_grad
    torch.testing.assert_close(images.images, torch.tensor(FLOATS[images.table["n"]], dtype=torch.float32))   # pictures and rows together
    assert images.table["source"].tolist() == images.table["n"].tolist()


def test_from_table_takes_gray_and_read_only():
    gray = BYTES[..., 0].copy()
    gray.flags.writeable = False
    images = data.from_table(gray, TABLE)
    assert images.images.shape == (12, 1, 6, 5)
    images.images.zero_()
    assert gray.any(), "a copy"


def test_unlabelled_rows_are_kept():
    table = pd.DataFrame({"word": ["a", None, "b", np.nan] * 3, "number": [1.0, np.nan, None, 2.0] * 3, "all gone": [np.nan] * 12})
    images = data.from_table(BYTES, table)
    assert images.table["word"].isna().sum() == 6 and images.table["number"].isna().sum() == 6 and images.table["all gone"].isna().all()
    assert list(table.columns) == ["word", "number", "all gone"], "people's own table is left alone"


@pytest.mark.parametrize("held_out", [0.001, 0.15, 0.5, 0.999])
def test_split_sizes_and_seed(held_out):
    a, b, c = (data.from_table(BYTES, TABLE, held_out, seed) for seed in (0, 0, 1))
    assert a.table.equals(b.table) and not a.table.equals(c.table)
    assert 2 <= a.n_train <= 10 and a.n_train == min(max(round(12 * (1 - held_out)), 2), 10)


def test_versions_of_one_source_stay_together():
    table = pd.DataFrame({"source": [f"photo {i // 3}" for i in range(12)]})
    for seed in range(5):
        images = data.from_table(BYTES, table, 0.5, seed)
        assert not set(images.train.table["source"]) & set(images.held_out.table["source"]) and images.n_train == 6


WRONG = {
    "transposed floats": (BYTES / 127.5 - 1, TABLE, r"\(N, C, H, W\), got float64 of shape \(12, 6, 5, 3\).*transpose"),
    "whole numbers": (BYTES.astype(int), TABLE, "got int64"), "0 to 255": (FLOATS * 127.5 + 127.5, TABLE, r"\[-1, 1\], got \[0, 255\]"),
    "four channels": (np.zeros((12, 6, 5, 4), np.uint8), TABLE, "1 or 3 channels"), "one picture": (BYTES[0, :, :, 0], TABLE, r"\(6, 5\)"),
    "flat": (FLOATS.reshape(12, -1), TABLE, r"\(12, 90\)"),
    "empty": (BYTES[:0], TABLE[:0], r"\(0, 6, 5, 3\)"), "no list": ([], TABLE[:0], r"\(0,\)"),
    "ragged": ([BYTES[0], BYTES[1, :3]], TABLE[:2], "images of one size"), "words": (["a", "b"], TABLE[:2], "images of one size"),
    "None": (None, TABLE, "images of one size"), "one sample": (BYTES[:1], TABLE[:1], "at least 4"),
    "short table": (BYTES, TABLE[:7], r"one table row per image \(12\), got 7"), "dict": (BYTES, {"n": range(12)}, "DataFrame, got dict"),
    "one source": (BYTES, pd.DataFrame({"source": [1] * 12}), "at least 4 images of different source, got 1"),
    "twin columns": (BYTES, pd.DataFrame(np.zeros((12, 2)), columns=["a", "a"]), "names of their own"),
}


@pytest.mark.parametrize("case", WRONG)
def test_from_table_refuses(case):
    images, table, said = WRONG[case]
    with pytest.raises(DataError, match=f"(?s)data.from_table: expected .*{said}"): data.from_table(images, table)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_from_table_names_the_bad_picture(bad):
    x = FLOATS.copy()
    x[7, 1, 2, 3] = bad
    with pytest.raises(DataError, match="finite images, got 1 NaN or Inf, the first in row 7"): data.from_table(x, TABLE)


@pytest.mark.parametrize("held_out", [0.0, 1.0, 15, -0.1])
def test_from_table_refuses_shares(held_out):
    with pytest.raises(DataError, match=r"held_out in \(0, 1\)"): data.from_table(BYTES, TABLE, held_out)


@pytest.mark.filterwarnings("default")
def test_zero_to_one_is_suspect(monkeypatch):
    monkeypatch.setattr(core, "_warned", set())
    with pytest.warns(UserWarning, match="2 \\* x - 1"): data.from_table(FLOATS / 2 + 0.5, TABLE)


# ---- idx files

def idx(array): return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def raw():
    "A small MNIST: name of the file, its content."
    images, labels = data.digits()
    arrays = images[:20], labels[:20].byte(), images[20:30], labels[20:30].byte()
    return {f: idx(a.numpy()) for f, a in zip(data._FILES, arrays, strict=True)}


@pytest.mark.parametrize("read", [data.mnist, data.fashion_mnist])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folder(tmp_path, raw, read, zipped):
    for name, content in raw.items(): (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    found = read(tmp_path)
    images, labels = data.digits()
    assert (len(found), found.n_train) == (30, 20) and torch.equal(found.images, data.strokes(images[:30]))
    assert found.table["class"].tolist() == labels[:30].tolist() and found.table["source"].tolist() == list(range(30))
    assert len(read(str(tmp_path))) == 30


DAMAGE = {
    "cut off": lambda c: c[:-50], "cut in the header": lambda c: c[:9], "empty": lambda c: b"", "too long": lambda c: c + b"12345",
    "another type": lambda c: c[:2] + b"\x0d" + c[3:], "a page instead": lambda c: b"<html>404</html>",
    "zip cut off": lambda c: gzip.compress(c)[:-50],
    "zip flipped": lambda c: (z := gzip.compress(c))[:200] + bytes([z[200] ^ 255]) + z[201:],
    "zip flipped at the start": lambda c: (z := gzip.compress(c))[:10] + bytes([z[10] | 6]) + z[11:],   # no such kind of block
    "zip of nothing": lambda c: gzip.compress(b""), "labels": lambda c: idx(np.zeros(20, np.uint8)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_idx_files(tmp_path, raw, case):
    for name, content in raw.items(): (tmp_path / name).write_bytes(content)
    (tmp_path / data._FILES[0]).write_bytes(DAMAGE[case](raw[data._FILES[0]]))
    with pytest.raises(DataError, match="a whole idx file at .*train-images.*fetch it again"): data.mnist(tmp_path)


def test_idx_files_that_do_not_fit(tmp_path, raw):
    with pytest.raises(DataError, match=r"data.fashion_mnist: expected train-images-idx3-ubyte\[.gz\]"): data.fashion_mnist(tmp_path)
    for name, content in raw.items(): (tmp_path / name).write_bytes(content)
    (tmp_path / data._FILES[1]).write_bytes(raw[data._FILES[3]])
    with pytest.raises(DataError, match=r"as many labels as images, got \[10, 10\] and \[20, 10\]"): data.mnist(tmp_path)


# ---- downloads, from this machine

@pytest.fixture
def server(tmp_path, raw, monkeypatch):
    "A web server on the loopback with a small MNIST; its address, the folder it serves, what was asked for."
    served, asked = tmp_path / "served", []
    served.mkdir()
    for name, content in raw.items(): (served / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args): super().__init__(*args, directory=str(served))

        def log_message(self, *args): asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        monkeypatch.setenv("IIN_NB_DATA", str(tmp_path / "cache"))
        yield f"http://127.0.0.1:{web.server_port}/", served, asked
        web.shutdown()
        thread.join()


def sums(folder): return tuple(hashlib.sha256((folder / f"{f}.gz").read_bytes()).hexdigest() for f in data._FILES)


@pytest.mark.parametrize(("name", "read"), [("mnist", data.mnist), ("fashion-mnist", data.fashion_mnist)])
def test_download_once(server, monkeypatch, tmp_path, name, read):
    url, served, asked = server
    monkeypatch.setitem(data._DOWNLOADS, name, (url, sums(served)))
    assert len(read()) == 30 and len(asked) == 4
    assert len(read()) == 30 and len(asked) == 4, "the second time from the cache"
    assert {p.name for p in (tmp_path / "cache" / name).iterdir()} == {f"{f}.gz" for f in data._FILES}
    (tmp_path / "cache" / name / f"{data._FILES[1]}.gz").write_bytes(b"damaged")
    assert len(read()) == 30 and len(asked) == 5, "a damaged file is fetched again"


def test_download_refuses_another_content(server, monkeypatch, tmp_path):
    url, served, _ = server
    good = sums(served)
    monkeypatch.setitem(data._DOWNLOADS, "mnist", (url, (good[0], "0" * 64, *good[2:])))
    with pytest.raises(DataError, match="data.mnist: expected a download from .*hash.*folder="): data.mnist()
    assert {p.name for p in (tmp_path / "cache" / "mnist").iterdir()} == {f"{data._FILES[0]}.gz"}, "the wrong file is not kept"


def test_download_refuses_what_is_not_there(server, monkeypatch):
    url, served, _ = server
    monkeypatch.setitem(data._DOWNLOADS, "mnist", (url, sums(served)))
    (served / f"{data._FILES[2]}.gz").unlink()
    with pytest.raises(DataError, match="404"): data.mnist()


def test_download_without_connection_or_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IIN_NB_DATA", str(tmp_path))
    with pytest.raises(DataError, match="Check the connection"): data.download("mnist", "http://127.0.0.1:9/")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IIN_NB_DATA", str(tmp_path / "file"))
    with pytest.raises(DataError, match="can be written"): data.download("mnist", "http://127.0.0.1:9/")
    with pytest.raises(DataError, match="one of mnist, fashion-mnist, got 'cifar'"): data.download("cifar")


def test_checksums_are_whole():
    for _, digests in data._DOWNLOADS.values(): assert [len(bytes.fromhex(d)) for d in digests] == [32] * 4


# ---- folders

def picture(path, color=(255, 0, 0), size=(20, 10), **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **kw)


@pytest.fixture
def album(tmp_path):
    root = tmp_path / "album"
    for i in range(6):
        name, color = (("blue", (0, 0, 255)), ("red", (255, 0, 0)))[i % 2]
        picture(root / name / f"{i}{('.png', '.JPG', '.bmp')[i % 3]}", color)
    (root / "notes.txt").write_text("not a picture")
    picture(root / ".thumbnails" / "hidden.png")
    return root


def test_folder_of_classes(album):
    found = data.image_folder(album, 8)
    assert found.images.shape == (6, 3, 8, 8) and found.name == "album"
    for x, name, file in zip(found.images, found.table["class"], found.table["file"], strict=True):
        assert file.startswith(name) and x[0 if name == "red" else 2, 4, 4] > 0.9 and x[2 if name == "red" else 0, 4, 4] < -0.9


def test_folder_without_classes(tmp_path):
    for i in range(5): picture(tmp_path / f"{i}.png")
    assert set(data.image_folder(tmp_path).table.columns) == {"file", "source"}
    picture(tmp_path / "sub" / "x.png")
    assert data.image_folder(tmp_path).table["class"].notna().sum() == 1, "those directly in the folder are unlabelled"


def test_pictures_are_upright_and_centred(tmp_path):
    wide = Image.new("RGB", (30, 10), (0, 0, 255))
    wide.paste((255, 0, 0), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    half = Image.new("RGB", (10, 10), (0, 0, 255))
    half.paste((255, 0, 0), (0, 0, 10, 5))                                # red on top, but held sideways
    exif = half.getexif()
    exif[0x0112] = 6
    half.save(tmp_path / "turned.png", exif=exif)
    assert (data._open(tmp_path / "wide.png", 10) == (255, 0, 0)).all()
    assert (data._open(tmp_path / "turned.png", 10)[:, 6:] == (255, 0, 0)).all()


def test_tables_of_concepts(album, tmp_path):
    frame = pd.DataFrame({"file": ["red/1.JPG", "blue/0.png"], "grade": [1.5, 2.5]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.rename(columns={"file": "path"}).to_csv(tmp_path / "b.csv", index=False)
    for table in (frame, frame.set_index("file"), frame.set_index("file").rename_axis("x"), tmp_path / "a.csv", str(tmp_path / "b.csv")):
        found = data.image_folder(album, 8, table).table
        assert set(found.columns) == {"grade", "file", "source"}
        assert found.set_index("file")["grade"].dropna().to_dict() == {"red/1.JPG": 1.5, "blue/0.png": 2.5}


@pytest.mark.filterwarnings("default")
def test_table_rows_without_a_picture_are_told(album, monkeypatch):
    monkeypatch.setattr(core, "_warned", set())
    table = pd.DataFrame({"file": ["red/1.JPG", "red/1.jpg"], "grade": [1, 2]})
    with pytest.warns(UserWarning, match="1 of 2 table rows name no picture, 'red/1.jpg' first"): data.image_folder(album, 8, table)


@pytest.mark.parametrize(("table", "said"), [
    (pd.DataFrame({"file": ["x.png"], "grade": [1]}), r"names like 'blue/0.png', got \['x.png'\] in the column 'file'"),
    (pd.DataFrame({"grade": [1, 2]}), r"a column 'file' .* got \['0', '1'\] in the index; among 'grade' is no 'file'\. Give paths"),
    (pd.DataFrame(index=[1, 2]), "in the index; among its columns is no 'file'"),
    (pd.DataFrame({"file": ["red/1.JPG"] * 2, "grade": [1, 2]}), "one row per file, got 'red/1.JPG' twice"),
    ("no_such.csv", "a csv table no_such.csv in .* or in .*, got no such file"),
    ("/no_such.csv", "a csv table at /no_such.csv, got no such"),
])
def test_tables_that_do_not_fit(album, table, said):
    with pytest.raises(DataError, match=said): data.image_folder(album, 8, table)


def test_a_csv_without_the_column_file(album, tmp_path):
    pd.DataFrame({"label": ["circle"] * 3, "name": ["red/1.JPG", "blue/0.png", "x"]}).to_csv(tmp_path / "a.csv", index=False)
    said = r"got \['circle', 'circle'\] in the first column; among 'label', 'name' is no 'file'"
    with pytest.raises(DataError, match=said): data.image_folder(album, 8, tmp_path / "a.csv")


def test_a_csv_is_looked_for_at_its_path_and_in_the_folder(album, tmp_path, monkeypatch):
    def write(path, grade): pd.DataFrame({"file": ["red/1.JPG"], "grade": [grade]}).to_csv(path, index=False)
    def read(table): return data.image_folder(album, 8, table).table["grade"].dropna().tolist()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=rf"labels.csv in {tmp_path / 'here'} or in {album}, got no such file") as e: read("labels.csv")
    assert e.value.__suppress_context__, "one traceback"
    write(album / "labels.csv", 1)
    assert read("labels.csv") == [1] and read(Path("labels.csv")) == [1]
    write("labels.csv", 2)
    assert read("labels.csv") == [2], "a path means what it means everywhere"
    assert read(album / "labels.csv") == [1]


def test_rows_are_shuffled_and_the_table_says_which_picture_each_is(album):
    found = data.image_folder(album, 8)
    files = found.table["file"].tolist()
    assert files != sorted(files)
    for x, file in zip(found.images, files, strict=True): assert torch.equal(x, data._as_images(data._open(album / file, 8)[None])[0])


def test_empty_csv(album, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="a csv table at"): data.image_folder(album, 8, tmp_path / "empty.csv")


@pytest.mark.parametrize("damage", [
    lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text", lambda b: b[:20], lambda b: b[:60] + bytes(40) + b[100:]])
def test_damaged_pictures_are_named(album, damage):
    x = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8))
    x.save(album / "red" / "bad.png")
    (album / "red" / "bad.png").write_bytes(damage((album / "red" / "bad.png").read_bytes()))
    with pytest.raises(DataError, match="a readable picture at .*bad.png.*Repair or remove"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.image_folder(album, 8)


def test_no_pictures(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", str(tmp_path)):
        with pytest.raises(DataError, match="data.image_folder: expected pictures .*got none. Check the path"): data.image_folder(path)


# ---- archives

def pack(path, files):
    "A zip of {name: color of a 89 × 109 picture, or raw bytes}."
    with zipfile.ZipFile(path, "w") as z:
        for name, color in files.items():
            if not isinstance(color, bytes):
                Image.new("RGB", (89, 109), color).save(buffer := io.BytesIO(), "png")
                color = buffer.getvalue()
            z.writestr(name, color)


@pytest.fixture
def archives(tmp_path):
    "Eight faces with two attributes, three pictures each of the ten animals."
    names = [f"{i:06}.png" for i in range(1, 9)]
    pack(tmp_path/"celeba10k_89x109_jpg.zip", {f"celebA/{n}": (20 * i, 0, 0) for i, n in enumerate(names)} | {"celebA/notes.txt": b"no"})
    table = pd.DataFrame({"image_id": names[::-1], "Smiling": [0, 1] * 4, "Male": [1] * 8})
    table.to_csv(tmp_path/"celeba10k_attributes.csv", index=False)
    kinds = {f"animalfaces10/{w}/{i}.png": (9 * i, 9 * k, 0) for k, w in enumerate(data.ANIMALS) for i in range(3)}
    pack(tmp_path/"animalfaces10_jpg.zip", kinds)
    return tmp_path


def test_faces_and_their_attributes(archives):
    found = data.celeba(archives, held_out=2)
    assert found.images.shape == (8, 3, 64, 64) and found.n_train == 6 and found.table["file"].tolist()[0] == "000001.png"
    assert found.table["Smiling"].tolist() == [1, 0] * 4, "each picture with its own row, whatever the order of the csv"
    assert torch.allclose(found.images[:, 0, 5, 5], torch.arange(8) * 20 / 127.5 - 1, atol=1e-6)
    assert data.celeba(archives, 32).images.shape[2:] == (32, 32)


def test_the_face_s_square_is_kept(tmp_path, archives):
    whole = Image.new("RGB", (89, 109), (0, 0, 255))
    whole.paste((255, 0, 0), data.FACE)
    whole.save(buffer := io.BytesIO(), "png")
    pack(archives/"celeba10k_89x109_jpg.zip", {"celebA/000001.png": buffer.getvalue()})
    assert (data.celeba(archives, held_out=0).images == torch.tensor([1.0, -1, -1])[:, None, None]).all()


def test_mirrored_keeps_concepts(archives):
    faces = data.celeba(archives, held_out=2)
    x = torch.randn(faces.images.shape, generator=generator(0)).clamp(-1, 1)
    faces = replace(faces, images=x)
    turned = faces.redraw(faces, 3)
    same = (turned.images == x).flatten(1).all(1)
    assert 0 < same.sum() < 8 and torch.equal(turned.images[~same], x[~same].flip(3)) and turned.table is faces.table


def test_animals_are_held_out_by_kind(archives):
    found = data.animal_faces(archives, 16, 1 / 3)
    assert found.images.shape == (30, 3, 16, 16) and found.n_train == 20
    assert sorted(found.held_out.table["class"]) == sorted(data.ANIMALS.values())
    green = {w: 9 * k for k, w in enumerate(data.ANIMALS)}
    assert torch.allclose(found.images[:, 1, 0, 0], torch.tensor([green[w] for w in found.table["wnid"]]) / 127.5 - 1, atol=1e-6)
    assert (found.table["class"] == found.table["wnid"].map(data.ANIMALS)).all()
    assert set(found.table["imagenet"]) == set(data.IMAGENET.values())


@pytest.mark.parametrize("read, name", [(data.celeba, "celeba10k_89x109_jpg.zip"), (data.animal_faces, "animalfaces10_jpg.zip")])
def test_archives_that_are_not_whole(archives, read, name):
    whole = (archives/name).read_bytes()
    for damage in (whole[:-200], whole[:40] + bytes(30) + whole[70:], b"", b"text"):
        (archives/name).write_bytes(damage)
        with pytest.raises(DataError, match=f"{read.__name__}: expected a whole zip archive at .*{name}.*Fetch it again"): read(archives)
    pack(archives/name, {"a.txt": b"x"})
    with pytest.raises(DataError, match="pictures in .*got none"): read(archives)
    pack(archives/name, {"a/n02127052/x.png": b"no picture"})
    with pytest.raises(DataError, match="a readable picture at a/n02127052/x.png"): read(archives)
    (archives/name).unlink()
    with pytest.raises(DataError, match=f"the archive .*{name}, got no such file"): read(archives)


def test_attributes_that_do_not_fit(archives):
    path = archives/"celeba10k_attributes.csv"
    pd.read_csv(path).iloc[:6].to_csv(path, index=False)
    with pytest.raises(DataError, match="attributes of every picture, got none of 000001.png and 1 more"): data.celeba(archives)
    path.write_text("file,Smiling\n000001.png,1\n")
    with pytest.raises(DataError, match="attributes by image_id"): data.celeba(archives)
    path.unlink()
    with pytest.raises(DataError, match="attributes by image_id"): data.celeba(archives)


def test_animals_of_another_kind(archives):
    pack(archives/"animalfaces10_jpg.zip", {"animalfaces10/n00000001/x.png": (0, 0, 0)})
    with pytest.raises(DataError, match="got n00000001"): data.animal_faces(archives)


def test_mnist_of_one_npz(tmp_path, raw):
    x, y = np.random.RandomState(0).randint(0, 256, (7, 28, 28), np.uint8), np.arange(7, dtype=np.uint8)
    parts = {"train_images": x[:5], "train_labels": y[:5], "test_images": x[5:], "test_labels": y[5:]}
    np.savez(tmp_path/"mnist70k.npz", **parts)
    found = data.mnist(tmp_path)
    assert (found.n_train, len(found)) == (5, 7) and found.table["class"].tolist() == list(range(7))
    assert torch.equal(found.images, data.strokes(torch.from_numpy(x)))
    np.savez(tmp_path/"mnist70k.npz", **(parts | {"test_labels": y}))
    with pytest.raises(DataError, match="data.mnist: expected as many labels"): data.mnist(tmp_path)
    for damage in (lambda b: b[:300], lambda b: b"", lambda b: b"text"):
        (tmp_path/"mnist70k.npz").write_bytes(damage((tmp_path/"mnist70k.npz").read_bytes()))
        with pytest.raises(DataError, match="data.mnist: expected train_images"): data.mnist(tmp_path)


def test_the_real_archives():
    if "IIN_NB_DATA" not in os.environ: pytest.skip("IIN_NB_DATA names no folder with the data")
    folder = Path(os.environ["IIN_NB_DATA"])/"data"
    animals = data.animal_faces(folder, 32)
    assert len(animals) == 898 and animals.table["class"].nunique() == 10
    share = animals.held_out.table["class"].value_counts() / animals.table["class"].value_counts()
    assert share.between(0.18, 0.22).all()
