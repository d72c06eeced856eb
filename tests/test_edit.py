"""Edits change the named block and nothing else, and have the distribution they promise."""
import pytest
import torch
from toy_explanation import NAMES, explain_toy, recipes

from iin_nb import edit
from iin_nb.core import DataError, IINError, ShapeError
from iin_nb.factors import Factors, Layout


@pytest.fixture(scope="module")
def toy():
    u, _ = recipes(800)
    expl = explain_toy(u)
    return expl, expl.encode(u)


def others(name): return [n for n in NAMES if n != name]


def test_the_toy_is_what_it_says(toy):
    u, _ = recipes(800)
    assert torch.allclose(toy[1].z_tilde, (u - u.mean(0)) / u.std(0, unbiased=False), atol=1e-5)


# ---- swap and grid

@pytest.mark.parametrize("factor", NAMES)
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_swap_takes_one_block_and_leaves_the_rest(toy, factor, rows):
    _, f = toy
    before = f.z_tilde.clone()
    made = edit.swap(f[:rows], f[20:20 + rows], factor)
    assert torch.equal(made[factor], f[20:20 + rows][factor])
    assert all(torch.equal(made[k], f[:rows][k]) for k in others(factor))
    assert torch.equal(f.z_tilde, before), "the originals are not written to"


def test_one_source_row_serves_all(toy):
    _, f = toy
    assert torch.equal(edit.swap(f[:5], f[9], "color").color, f[9].color.expand(5, 3))


def test_swap_shows_in_the_output(toy):
    expl, f = toy
    answer = lambda g: expl.decode(g).argmax(1)
    assert torch.equal(answer(edit.swap(f[:4], f[5:9], "shape")), answer(f[5:9]))
    assert torch.equal(answer(edit.swap(f[:4], f[5:9], "color")), answer(f[:4]))


def test_grid_is_every_swap(toy):
    _, f = toy
    made = edit.grid(f[:3], f[10:14], "shape")
    assert len(made) == 12
    for t in range(3):
        for s in range(4): assert torch.equal(made[4 * t + s].z_tilde, edit.swap(f[t], f[10 + s], "shape").z_tilde)


def test_factors_of_another_layout_are_refused(toy):
    _, f = toy
    other = Factors(Layout(NAMES, (9, 4, 3)), f.z_tilde)
    wrongs = lambda: edit.swap(f, other, "color"), lambda: edit.grid(f[:2], other[:2], "color"), lambda: edit.interpolate(f[0], other[0])
    for wrong in wrongs:
        with pytest.raises(DataError, match="of one layout.* Encode both"): wrong()
    with pytest.raises(ShapeError, match="replace"): edit.swap(f[:3], f[:2], "color")


# ---- interpolate

@pytest.mark.parametrize("n", [2, 3, 9, 50])
@pytest.mark.parametrize("factor", [None, *NAMES])
def test_both_ends_are_exact(toy, n, factor):
    _, f = toy
    for i in range(0, 60, 2):
        path = edit.interpolate(f[i], f[i + 1], n, factor)
        assert len(path) == n and torch.equal(path[0].z_tilde, f[i].z_tilde)
        assert torch.equal(path[n - 1].z_tilde, (f[i + 1] if factor is None else edit.swap(f[i], f[i + 1], factor)).z_tilde)


def test_the_steps_are_even(toy):
    _, f = toy
    steps = edit.interpolate(f[0], f[1], 11).z_tilde.diff(dim=0)
    assert torch.allclose(steps, ((f[1].z_tilde - f[0].z_tilde) / 10).expand(10, 16), atol=1e-6)


def test_interpolation_in_z_has_exact_ends_and_both_dtypes():
    for dtype in (torch.float32, torch.float64):
        a, b = torch.randn(2, 1, 64, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 100
        line = edit.interpolate_z(a, b, 7)
        assert line.dtype == dtype and torch.equal(line[:1], a) and torch.equal(line[-1:], b)


@pytest.mark.parametrize("wrong, says", [
    (lambda f: edit.interpolate(f[:2], f[0]), "edit.interpolate: expected one row, got 2 rows. Index"),
    (lambda f: edit.interpolate(f[0], f[:0]), "edit.interpolate: expected one row, got 0 rows. Index"),
    (lambda f: edit.interpolate(f[0], f[1], 1), "edit.interpolate: expected n of at least 2, got 1."),
    (lambda f: edit.interpolate_z(f.z_tilde[0], f.z_tilde[:1]), r"edit.interpolate_z: expected z_a of shape \(B, D\), got shape \(16,\)"),
    (lambda f: edit.interpolate_z(f.z_tilde[:1], f.color[:1]), r"edit.interpolate_z: expected z_b of shape \(B, 16\), got shape \(1, 3\)"),
    (lambda f: edit.interpolate_z(f.z_tilde[:2], f.z_tilde[:1]), "edit.interpolate_z: expected one row and one row, got 2 and 1"),
])
def test_bad_ends(toy, wrong, says):
    with pytest.raises(IINError, match=says): wrong(toy[1])


# ---- walk

@pytest.mark.parametrize("factor", NAMES)
def test_a_walk_holds_the_rest(toy, factor):
    expl, f = toy
    path = edit.walk(expl, f[3], factor, 40, seed=0)
    assert len(path) == 41 and torch.equal(path[0].z_tilde, f[3].z_tilde)
    assert all(torch.equal(path[k], f[3][k].expand(41, -1)) for k in others(factor))
    assert len(path[factor].unique(dim=0)) == 41


def test_a_walk_is_seeded_and_starts_anywhere(toy):
    expl, f = toy
    one, two = (edit.walk(expl, f[0], "color", 9, seed=s).color for s in (1, 2))
    assert torch.equal(one, edit.walk(expl, f[0], "color", 9, seed=1).color) and not torch.equal(one, two)
    one, two = (edit.walk(expl, f[0], "color", 9).color for _ in range(2))
    assert not torch.equal(one, two), "no seed: another walk each time"


@pytest.mark.parametrize("a", [0.0, 0.8, 0.96])
def test_stationary_law_and_autocorrelation(toy, a):
    expl, f = toy
    law, path = expl.laws["color"], edit.walk(expl, f[0], "color", 40_000, a, seed=1).color
    sigma, memory = law.root @ law.root.T, (1 + a) / (1 - a)   # one independent position in so many
    noise = 5 * (memory / 40_000) ** 0.5
    assert (path.mean(0) - law.mean).abs().max() < noise
    assert (path.T.cov() - sigma).abs().max() < 1.5 * noise
    x = path - law.mean
    for lag in (1, 5, 20):
        found = (x[:-lag] * x[lag:]).mean(0) / x.square().mean(0)
        assert (found - a ** lag).abs().max() < noise, f"lag {lag}"


def test_a_walk_forgets_where_it_began(toy):
    "From a start 50 std away the pull back is a per step, on average exactly."
    expl, f = toy
    law = expl.laws["color"]
    far = f[0].replace(color=law.mean[None] + 50)
    path = edit.walk(expl, far, "color", 60, 0.9, seed=0).color - law.mean
    expected = 50 * 0.9 ** torch.arange(61.0)
    assert (path.mean(1) - expected).abs().max() < 3


@pytest.mark.parametrize("wrong, says", [
    (lambda e, f: edit.walk(e, f[:2], "color"), "edit.walk: expected one row, got 2 rows"),
    (lambda e, f: edit.walk(e, f[0], "color", a=1.0), r"edit.walk: expected a in \[0, 1\), got 1.0"),
    (lambda e, f: edit.walk(e, f[0], "color", a=-0.1), r"edit.walk: expected a in \[0, 1\)"),
    (lambda e, f: edit.walk(e, f[0], "color", a=float("nan")), r"edit.walk: expected a in \[0, 1\)"),
    (lambda e, f: edit.walk(e, f[0], "color", 0), "edit.walk: expected n_steps of at least 1, got 0"),
    (lambda e, f: edit.walk(e, f[0], "hue"), "expected one of residual, shape, color, got 'hue'"),
    (lambda e, f: edit.resample(e, f, "hue"), "expected one of residual, shape, color, got 'hue'"),
    (lambda e, f: edit.resample(e, f, "color", "normal"), "law 'own', 'gaussian' or 'standard', got 'normal'"),
    (lambda e, f: edit.swap(f, f, "hue"), "expected one of residual, shape, color, got 'hue'"),
    (lambda e, f: edit.sample(e, 0), "edit.sample: expected n of at least 1, got 0"),
    (lambda e, f: edit.sample(e, 3, hold=f[0]), "edit.sample: expected hold and factors together.* got only hold"),
    (lambda e, f: edit.sample(e, 3, factors=["color"]), "edit.sample: expected hold and factors together.* got only factors"),
    (lambda e, f: edit.sample(e, 3, f[:2], ["color"]), "edit.sample: expected one row, got 2 rows"),
])
def test_bad_input_is_named(toy, wrong, says):
    with pytest.raises(DataError, match=says): wrong(*toy)


# ---- resample and sample

def test_own_draws_what_occurred(toy):
    expl, f = toy
    bank = set(map(tuple, expl.laws["shape"].bank.tolist()))
    assert set(map(tuple, edit.resample(expl, f, "shape", "own", 0).shape.tolist())) <= bank
    assert not set(map(tuple, edit.resample(expl, f, "shape", "gaussian", 0).shape.tolist())) & bank


def test_the_three_laws_have_their_covariance(toy):
    expl, f = toy
    many, law = Factors(f.layout, f.z_tilde.repeat(20, 1)), expl.laws["color"]
    sigma = law.root @ law.root.T
    for name, want in (("own", sigma), ("gaussian", sigma), ("standard", torch.eye(3))):
        color = edit.resample(expl, many, "color", name, 0).color
        assert (color.T.cov() - want).abs().max() < 0.05, name
    assert (sigma - torch.eye(3)).abs().max() > 0.5, "so that the laws can be told apart"


@pytest.mark.parametrize("law", ["own", "gaussian", "standard"])
def test_blocks_are_drawn_independently(toy, law):
    expl, f = toy
    many = edit.resample(expl, Factors(f.layout, f.z_tilde.repeat(20, 1)), ["shape", "color"], law, 0)
    assert torch.equal(many.residual[:800], f.residual)
    between = torch.cat([many.shape, many.color, many.residual], 1).T.corrcoef()
    assert between[:3, 3:].abs().max() < 0.04 and between[3:6, 6:].abs().max() < 0.04
    assert len(many.color[:800].unique(dim=0)) > 300, "each row has a draw of its own"


def test_sample_draws_everything_or_holds_the_rest(toy):
    expl, f = toy
    new = edit.sample(expl, 6000, seed=0)
    assert new.z_tilde.shape == (6000, 16) and (new.z_tilde.std(0) - f.z_tilde.std(0)).abs().max() < 0.06
    held = edit.sample(expl, 30, f[2], ["color"], seed=0)
    assert torch.equal(held.shape, f[2].shape.expand(30, 3)) and torch.equal(held.residual, f[2].residual.expand(30, 10))
    assert len(held.color.unique(dim=0)) == 30
    assert torch.equal(edit.sample(expl, 5, seed=3).z_tilde, edit.sample(expl, 5, seed=3).z_tilde)
    assert expl.decode(edit.sample(expl, 1)).shape == (1, 4)
