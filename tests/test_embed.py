"""Maps: PCA, placing, and UMAP in another process, which leaves nothing behind however it ends."""
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_explanation import explain_toy, recipes

from iin_nb import core, embed
from iin_nb.core import DataError, IINError, ShapeError
from iin_nb.embed import A, Atlas, B, _smallest, atlas, pca_map, place, repulsion, start_maps, umap_map, umap_place
from iin_nb.factors import Layout


def noise(n, d, seed=0): return torch.randn(n, d, generator=core.generator(seed))


@pytest.fixture(scope="module")
def toy():
    u, figure = recipes(200)
    return explain_toy(u), u, figure


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    "Begun with the first test, asked for with the last: two maps of the very same points, and one on a line."
    x = noise(120, 6)
    both = Atlas(x, torch.cat([noise(120, 2, 1), x], 1), Layout(("residual", "shape"), (2, 6)))
    return start_maps(both, ["z", "shape", "shape_1d"], tmp_path_factory.mktemp("maps"), seed=3)


@pytest.fixture(scope="module", autouse=True)
def begin(twins): pass


def gone(pid, seconds=10):
    "Whether a process ends within some seconds."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z": return True
        except OSError: return True
        time.sleep(0.05)
    return False


# ---- PCA

def test_pca_keeps_all_distances_where_it_can():
    x = (noise(50, 2) @ noise(2, 9, 1)).double()
    made = pca_map(x)
    assert torch.allclose(torch.cdist(made, made), torch.cdist(x, x), atol=1e-6)
    assert made.var(0)[0] > made.var(0)[1] and made.mean(0).abs().max() < 1e-5


def test_pca_is_the_same_from_any_side():
    x = noise(60, 5)
    assert torch.allclose(pca_map(x), pca_map(x.flip(0)).flip(0), atol=1e-4), "signs do not depend on the order of rows"
    assert pca_map(x.double()).dtype == torch.float64


@pytest.mark.parametrize("n, d, dim", [(1, 7, 2), (2, 7, 2), (5, 1, 2), (5, 1, 1), (3, 64, 2)])
def test_pca_of_little(n, d, dim):
    made = pca_map(noise(n, d), dim)
    assert made.shape == (n, dim) and torch.isfinite(made).all()


def test_pca_of_a_constant_is_a_point(): assert pca_map(torch.full((20, 5), 3.0)).abs().max() == 0


# ---- placing

@pytest.mark.parametrize("d, k, shift", [(1, 5, 0), (3, 5, 0), (64, 1, 0), (64, 5, 100), (64, 30, -100)])
def test_a_reference_point_lands_on_itself(d, k, shift):
    x, y = noise(400, d) + shift, 10 * noise(400, 2, 1)
    apart = torch.cdist(x, x).fill_diagonal_(9).amin(1) > 1e-2 if d == 1 else torch.ones(400, dtype=torch.bool)
    assert apart.sum() > 50
    assert (place(x, y, x, k) - y)[apart].abs().max() < 2e-2


def test_the_formula():
    x, y, new, k = noise(60, 4), noise(60, 2, 1), noise(9, 4, 2), 5
    found = place(x, y, new, k)
    for row, got in zip(new, found, strict=True):
        squared = (x - row).square().sum(1)
        near = squared.argsort()[:k]
        w = 1 / (squared[near] + 1e-6 * squared[near].max())
        assert torch.allclose(got, (w[:, None] * y[near]).sum(0) / w.sum(), atol=1e-4)


def test_far_from_the_origin_nothing_is_lost():
    x, y, new = noise(300, 8), noise(300, 2, 1), noise(50, 8, 2)
    assert (place(x + 300, y, new + 300) - place(x, y, new)).abs().median() < 1e-3


def test_placing_on_little():
    assert place(torch.ones(1, 3), torch.tensor([[5.0, 6]]), noise(4, 3)).tolist() == [[5, 6]] * 4
    same = place(torch.ones(5, 2), torch.arange(5.0)[:, None], torch.ones(1, 2))
    assert same.item() == pytest.approx(2), "identical references: their mean"
    assert place(noise(10, 2), noise(10, 1), noise(0, 2)).shape == (0, 1)
    assert place(noise(10, 2).double(), noise(10, 2).double(), noise(3, 2).double()).dtype == torch.float64


def test_placing_stays_on_the_map():
    x, y = noise(500, 5), noise(500, 2, 1)
    made = place(x, y, 100 * noise(50, 5, 3))
    assert (made >= y.amin(0) - 1e-4).all() and (made <= y.amax(0) + 1e-4).all()


def test_only_the_blocks_that_count_are_sorted():
    values = noise(7, 4321)
    assert torch.equal(values.gather(1, _smallest(values, 9)).sort(1).values, values.sort(1).values[:, :9])


@pytest.mark.parametrize("d, alike", [(1, 0.998), (2, 0.99)])
def test_repulsion_is_that_of_all_points(d, alike):
    y, at = 3 * noise(800, d), 2 * noise(50, d, 1)
    v = at[:, None] - y
    squared = v.square().sum(2, keepdim=True)
    exact = (2 * B * v / ((1e-3 + squared) * (1 + A * squared**B))).clamp(-4, 4).mean(1)
    found = repulsion(y).at(at)
    assert (found - exact).norm(dim=1).median() < 0.02 * exact.norm(dim=1).median() + 0.01
    assert torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1] > alike


@pytest.mark.parametrize("d", [1, 2])
def test_on_a_umap_a_point_comes_to_rest_where_forces_balance(d):
    x, new = noise(600, 4), noise(40, 4, 2)
    y = 3 * x[:, :d] + 0.5 * noise(600, d, 1)
    push = repulsion(y)
    at = umap_place(x, y, new, push, n_steps=500)
    distance, index = torch.cdist(new, x).topk(15, largest=False)
    w = (-distance / _sigma(distance)).exp()
    u = at[:, None] - y[index]
    squared = u.square().sum(2).clamp_min(1e-6)
    pull = ((w * 2 * A * B * squared ** (B - 1) / (1 + A * squared**B))[:, :, None] * u).sum(1)
    assert (pull - 5 * w.sum(1, keepdim=True) * push.at(at)).norm(dim=1).median() < 0.05 * pull.norm(dim=1).median()


def _sigma(distance):
    "By another way than the module's: a fine search."
    grid = torch.linspace(1e-3, 8, 40_000)
    sums = torch.stack([(-row[:, None] / grid).exp().sum(0) for row in distance])
    return grid[(sums - math.log2(distance.shape[1])).abs().argmin(1)][:, None]


def test_on_a_umap_a_reference_point_keeps_its_place():
    x, y = noise(400, 6), 5 * noise(400, 2, 1)
    assert (umap_place(x, y, x) - y).abs().max() < 1e-3


def test_on_a_umap_of_little():
    assert umap_place(noise(4, 3), noise(4, 2), noise(2, 3)).isfinite().all()
    assert umap_place(torch.ones(6, 3), torch.zeros(6, 2), torch.ones(2, 3)).tolist() == [[0, 0]] * 2
    assert umap_place(noise(30, 3), noise(30, 1), noise(0, 3)).shape == (0, 1)
    double = umap_place(noise(30, 3).double(), noise(30, 2).double(), noise(5, 3).double())
    assert double.dtype == torch.float64 and double.isfinite().all()
    with pytest.raises(DataError, match="embed.umap_place: expected one coordinate row per reference point"):
        umap_place(noise(9, 3), noise(8, 2), noise(2, 3))


def test_an_atlas_places_by_what_its_map_is(toy):
    explained, u, _ = toy
    made = atlas(explained, u, umap=False, names=["z"])
    fresh = explained.host.encode(recipes(5, seed=3)[0])
    z_tilde = explained.from_z(fresh).z_tilde
    assert torch.equal(made.place("z", fresh, z_tilde), place(made.z, made.coords["z"], fresh))
    made.method["z"] = "UMAP"
    assert torch.equal(made.place("z", fresh, z_tilde), umap_place(made.z, made.coords["z"], fresh))
    made.coords["z"] = made.coords["z"] + 50   # another map under the same name: its own repulsion
    assert torch.equal(made.place("z", fresh, z_tilde), umap_place(made.z, made.coords["z"], fresh))


def test_placing_is_fast():
    "Bound of the explorers: 15 ms for 200 points on a map of 10,000; here with room for a busy machine."
    x, y, new, times = noise(10_000, 64), 5 * noise(10_000, 2, 1), noise(200, 64, 2), []
    push = repulsion(y)
    for _ in range(10):
        start = time.perf_counter()
        umap_place(x, y, new, push)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.03


@pytest.mark.parametrize("wrong, error, says", [
    (lambda: place(noise(9, 3), noise(8, 2), noise(2, 3)), DataError, r"one coordinate row per reference point \(9, at least 1\), got 8"),
    (lambda: place(noise(0, 3), noise(0, 2), noise(2, 3)), DataError, "embed.place: expected one coordinate row per reference"),
    (lambda: place(noise(9, 3), noise(9, 2), noise(2, 4)), ShapeError, r"embed.place: expected new of shape \(B, 3\), got shape \(2, 4\)"),
    (lambda: place(noise(9, 3), noise(9, 2), noise(2, 3).double()), ShapeError, "embed.place: expected dtype torch.float32"),
    (lambda: pca_map(torch.tensor([[1.0, float("inf")]])), DataError, "embed.pca_map: expected finite x"),
    (lambda: pca_map(noise(3, 2)[0]), ShapeError, "embed.pca_map: expected x of shape"),
    (lambda: pca_map(noise(0, 2)), DataError, "embed.pca_map: expected at least one point"),
    (lambda: umap_map(noise(3, 2)), DataError, "embed.umap_map: expected at least 4 points, got 3. Use pca_map"),
    (lambda: umap_map(torch.full((9, 2), float("nan"))), DataError, "embed.umap_map: expected finite x"),
])
def test_bad_input_is_named(wrong, error, says):
    with pytest.raises(error, match=says): wrong()


def test_umap_of_a_constant_is_a_point_and_says_so():
    core._warned.clear()
    with pytest.warns(UserWarning, match="all points are the same"): assert umap_map(torch.ones(40, 5)).abs().max() == 0


# ---- an atlas

def test_atlas_has_every_map(toy):
    expl, u, _ = toy
    made = atlas(expl, u, umap=False)
    assert made.names == ["z", "residual", "shape", "color", "shape_1d", "color_1d"] == list(made.coords)
    assert {n: c.shape[1] for n, c in made.coords.items()} == {n: 1 if n.endswith("1d") else 2 for n in made.names}
    assert torch.equal(made.part("color_1d"), expl.encode(u).color) and torch.equal(made.part("z"), expl.host.encode(u))
    assert made.title("shape_1d") == "the shape factor of 200 inputs, PCA in 1-D" and made.title("z") == "z of 200 inputs, PCA in 2-D"
    for name in made.names: assert (made.place(name, made.z, made.z_tilde) - made.coords[name]).abs().max() < 2e-2


def test_atlas_makes_what_is_asked(toy):
    expl, u, _ = toy
    made = atlas(expl, u, umap=False, names=(n for n in ("shape", "z")))
    assert list(made.coords) == ["shape", "z"] and not atlas(expl, u, umap=False, names=[]).coords
    for wrong, says in (
        (lambda: made.title("color"), "expected one of shape, z, got 'color'"),
        (lambda: made.part("hue"), "expected one of z, residual.* got 'hue'"),
        (lambda: made.part("residual_1d"), "got 'residual_1d'"),
        (lambda: atlas(expl, u[:0], umap=False), "at least one input"),
        (lambda: atlas(expl, u, umap=False, names=["hue"]), "got 'hue'"),
    ):
        with pytest.raises(DataError, match=says): wrong()


# ---- maps in another process

def test_nothing_blocks_and_pca_stands_in(toy):
    expl, u, _ = toy
    bare = Atlas(expl.host.encode(u), expl.encode(u).z_tilde, expl.layout)
    start = time.perf_counter()
    making = start_maps(bare)
    early = making.result()
    assert time.perf_counter() - start < 2 and not making.ready()
    assert early.method == dict.fromkeys(bare.names, "PCA") and torch.equal(early.coords["shape"], pca_map(bare.part("shape")))
    assert not bare.coords, "the atlas that was passed is not written to"
    making.close()
    making.close()
    assert gone(making.process.pid) and not making.folder.exists() and not making.ready()
    start = time.perf_counter()
    assert set(making.result(30).method.values()) == {"PCA"} and time.perf_counter() - start < 2, "nobody waits for a process that is gone"


def test_nothing_to_make_is_ready_at_once(toy):
    expl, u, _ = toy
    now = atlas(expl, u, umap=False)
    making = start_maps(now, [])
    assert making.ready() and making.result(60).method == now.method and not making.folder.exists()


def test_one_process_makes_the_maps_of_two(toy, tmp_path):
    "It lives as long as one of them is open, and takes another process' place only when that is gone."
    flat = Atlas(torch.ones(6, 3), torch.ones(6, 3), Layout(("residual", "shape"), (1, 2)))   # for which no UMAP is compiled
    first = start_maps(flat, ["z"], tmp_path)
    second = start_maps(flat, ["shape", "shape_1d"], tmp_path, after=first)
    assert second.process is first.process and len(list(tmp_path.iterdir())) == 2
    assert first.result(60).method["z"] == "UMAP" and not first.folder.exists() and first.process.poll() is None
    assert second.result(60).method == dict.fromkeys(["shape", "shape_1d"], "UMAP") and gone(second.process.pid)
    third = start_maps(flat, ["z"], tmp_path, after=second)
    assert third.process is not second.process and third.result(60).method["z"] == "UMAP" and not list(tmp_path.iterdir())


def test_closed_maps_do_not_stop_those_behind_them(toy, tmp_path):
    expl, u, _ = toy
    flat = Atlas(torch.ones(6, 3), torch.ones(6, 3), Layout(("residual", "shape"), (1, 2)))
    first = start_maps(atlas(expl, u, umap=False), ["z"], tmp_path)
    second = start_maps(flat, ["z"], tmp_path, after=first)
    first.close()
    assert not first.folder.exists() and first.result().method["z"] == "PCA"
    assert second.result(240).method["z"] == "UMAP" and not list(tmp_path.iterdir())


def test_coordinates_that_are_there_stay_until_the_new_ones_come(toy):
    expl, u, _ = toy
    stored = Atlas(expl.host.encode(u), expl.encode(u).z_tilde, expl.layout, {"z": noise(200, 2)}, {"z": "UMAP"})
    making = start_maps(stored, ["z", "shape"])
    early = making.result()
    making.close()
    assert torch.equal(early.coords["z"], stored.coords["z"]) and early.method == {"z": "UMAP", "shape": "PCA"}


def test_a_forgotten_handle_ends_the_work(toy):
    expl, u, _ = toy
    making = start_maps(atlas(expl, u, umap=False), ["z"])
    pid, folder = making.process.pid, making.folder
    del making
    assert gone(pid) and not folder.exists()


def test_a_process_that_fails_is_reported_once_and_a_pca_stays(toy, monkeypatch):
    expl, u, _ = toy
    monkeypatch.setattr(embed.sys, "executable", "/bin/false" if Path("/bin/false").exists() else "/usr/bin/false")
    core._warned.clear()
    making = start_maps(atlas(expl, u, umap=False), ["z"])
    with pytest.warns(UserWarning, match="ended early"): found = making.result(20)
    assert found.method["z"] == "PCA" and not making.folder.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        making.result(1)


def test_no_process_no_folder(toy, tmp_path, monkeypatch):
    expl, u, _ = toy
    monkeypatch.setattr(embed.sys, "executable", str(tmp_path / "no-such-python"))
    with pytest.raises(OSError): start_maps(atlas(expl, u, umap=False), ["z"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_bad_requests_start_nothing(toy, tmp_path):
    expl, u, _ = toy
    now, blocked = atlas(expl, u, umap=False), tmp_path / "file"
    blocked.write_text("")
    few = atlas(expl, u[:3], umap=False)
    broken = Atlas(now.z * float("nan"), now.z_tilde, now.layout)
    for wrong, says in (
        (lambda: start_maps(now, ["hue"], tmp_path), "got 'hue'"),
        (lambda: start_maps(few, ["z"], tmp_path), "at least 4 points, got 3"),
        (lambda: start_maps(broken, ["z"], tmp_path), "finite z"),
        (lambda: start_maps(now, ["z"], blocked), "room and permission to write in"),
    ):
        with pytest.raises(IINError, match=says): wrong()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", ["end", "interrupt", "kill"])
def test_the_other_process_never_outlives_this_one(tmp_path, how):
    code = f"""
        import torch
        from iin_nb.embed import Atlas, start_maps
        from iin_nb.factors import Layout
        x = torch.randn(2000, 6)
        making = start_maps(Atlas(x, x, Layout(("residual", "shape"), (3, 3))), None, {str(tmp_path)!r})
        print(making.process.pid, flush=True)
        if {how!r} != "end": making.result(40)
        """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid = int(parent.stdout.readline())
    if how == "interrupt": parent.send_signal(signal.SIGINT)
    if how == "kill": parent.kill()   # nobody can tidy up but the other process, which sees the pipe close
    parent.wait(60)
    parent.stdout.close()
    assert gone(pid, 60)
    assert not list(tmp_path.iterdir()), "nor its folder"


@pytest.mark.skipif(os.name != "posix", reason="an open file may be removed")
@pytest.mark.parametrize("busy", ["writes without a pause", "misses a file"])
def test_a_folder_goes_while_the_other_process_is_at_work_in_it(tmp_path, busy):
    "The listener removes it while `_make` writes there, or fails because half of it went: neither leaves a rest."
    code = """
        import itertools, json
        from iin_nb import embed
        def write(folder):
            for i in itertools.count(): (folder/str(i)).write_bytes(b"x")
        def read(folder):
            while True: [(folder/str(i)).read_bytes() for i in range(3000)]
        embed._make = WORK
        embed._work()
        """.replace("WORK", "write" if "writes" in busy else "read")
    room = tmp_path/"room"
    room.mkdir()
    for i in range(3000): (room/str(i)).write_bytes(b"x")
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    worker.stdin.write(f'"{room}"\n'.encode())
    worker.stdin.flush()
    until = time.monotonic() + 60
    while "writes" in busy and not (room/"3000").exists() and time.monotonic() < until: time.sleep(0.05)
    worker.stdin.close()
    worker.wait(60)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_went_is_not_made_anew(tmp_path, monkeypatch):
    "Maps that share the process with others were closed while one was made."
    import json
    import shutil

    from safetensors.torch import save_file
    room = tmp_path/"room"
    room.mkdir()
    save_file({"z": torch.ones(6, 3)}, room/"parts.safetensors")
    (room/"asked.json").write_text(json.dumps({"names": ["z"], "seed": 0}))

    def closed_meanwhile(x, *rest, **kw):
        shutil.rmtree(room)
        return torch.zeros(len(x), 2)
    monkeypatch.setattr(embed, "umap_map", closed_meanwhile)
    with pytest.raises(Exception, match="(?i)no such file|os error"): embed._make(room)
    assert not list(tmp_path.iterdir())


def test_maps_come_and_are_reproducible(twins):
    "Same points, same seed: the same map, bit for bit. Asked last, so that compiling has had its time."
    made = twins.result(240)
    assert twins.ready() and set(made.method.values()) == {"UMAP"}
    assert torch.equal(made.coords["z"], made.coords["shape"])
    assert made.coords["z"].shape == (120, 2) and made.coords["shape_1d"].shape == (120, 1)
    assert all(torch.isfinite(c).all() and c.dtype == torch.float32 for c in made.coords.values())
    assert gone(twins.process.pid) and not twins.folder.exists()


def test_what_the_other_process_writes_is_safetensors(tmp_path):
    "The worker's own code, run here on constant points, for which no UMAP is compiled."
    import json

    from safetensors.torch import save_file
    save_file({"z": torch.ones(6, 3)}, tmp_path / "parts.safetensors")
    (tmp_path / "asked.json").write_text(json.dumps({"names": ["z"], "seed": 0}))
    read, write = os.pipe()
    code = "import sys; from pathlib import Path; from iin_nb.embed import _make; _make(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], stdin=read, capture_output=True)
    os.close(read), os.close(write)
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "0.safetensors")["coords"].shape == (6, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.safetensors", "asked.json", "parts.safetensors"], "no half-written file"


@pytest.mark.slow
def test_umap_of_few_and_of_flat_points():
    for n in (4, 5, 8, 15, 16, 17):
        for dim in (1, 2): assert torch.isfinite(umap_map(noise(n, 6), dim)).all() and umap_map(noise(n, 6), dim).shape == (n, dim)
    assert torch.isfinite(umap_map(noise(50, 1))).all()
    assert torch.isfinite(umap_map(noise(2, 4).repeat(30, 1))).all()
    assert torch.equal(umap_map(noise(60, 6), seed=1), umap_map(noise(60, 6), seed=1))
    assert not torch.equal(umap_map(noise(60, 6), seed=1), umap_map(noise(60, 6), seed=2))
