"""The laws of invariances: samples a layer cannot tell apart, shares of variance that are right where the truth is known."""
import math

import pytest
import torch

from iin_nb import hosts, invariance
from iin_nb.core import DataError, IINError
from iin_nb.fit import Recipe
from iin_nb.flow import FlowConfig
from iin_nb.invariance import Invariances, explained, fidelity, invariances, readable
from iin_nb.conditional import EmbedderConfig
from toy_explanation import explain_toy, recipes

SHORT = {"recipe": Recipe(n_steps=12, lr=3e-3, eval_every=6), "batch": 16, "embedder": EmbedderConfig(width=6, hidden=8, channels=4),
         "config": FlowConfig(12, n_blocks=1, hidden=8)}
MIX = torch.randn(192, 12, generator=torch.Generator().manual_seed(5)) / 8


def draw(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def painter():
    back = torch.linalg.pinv(MIX)
    return hosts.from_functions(lambda x: x.flatten(1) @ MIX, lambda z: (z @ back).reshape(-1, 3, 8, 8), draw(4, 3, 8, 8), "painter")


@pytest.mark.parametrize("a, b", [(1, 1), (1, 3), (3, 1), (0.5, 0.1)])
@pytest.mark.parametrize("m", [8, 30])
def test_the_share_is_the_truth(a, b, m):
    blocks = a * draw(1, 500, 3) + b * draw(m, 500, 3, seed=1)
    found, truth = explained(blocks), b**2 / (a**2 + b**2)
    assert found.low - 0.02 < truth < found.high + 0.02 and found.by_v == pytest.approx(truth, abs=0.05)
    assert found.within == pytest.approx(3 * b**2, rel=0.1) and found.between == pytest.approx(3 * a**2, rel=0.15)
    assert 0 <= found.low <= found.by_v <= found.high <= 1 and found.by_z == 1 - found.by_v


def test_the_share_has_no_unit_and_knows_the_ends():
    blocks = draw(1, 50, 2) + draw(9, 50, 2, seed=1)
    assert explained(7 * blocks + 3).by_v == pytest.approx(explained(blocks).by_v)
    assert explained(draw(1, 50, 2).expand(8, -1, -1)).by_v == 0 and explained(torch.zeros(8, 8, 2)).by_v == 0
    assert explained(draw(40, 400, 2)).by_v > 0.97, "draws alone leave nothing to z"
    for shape in ((7, 20, 2), (20, 7, 2)):
        with pytest.raises(DataError, match="invariance.explained"): explained(draw(*shape))


def test_fidelity_against_the_truth():
    x = draw(300, 6)
    half = hosts.from_functions(lambda t: t[:, :3], lambda z: 3 * z, x, "half")
    good, bad = torch.cat([x[None, :, :3].expand(2, -1, -1), draw(2, 300, 3, seed=1)], 2), draw(2, 300, 6, seed=2)
    one, other = fidelity(half, x, good, x), fidelity(half, x, bad, x)
    assert one.share == pytest.approx(1, abs=1e-4) and one.same_prediction == one.rebuilt_same == 1 and one.n == 600
    assert abs(other.share) < 0.1 and other.same_prediction < 0.6 and other.rebuilt_share == pytest.approx(1, abs=1e-4)


def test_several_layers_at_once(net, small_set, painter, snapshot):
    before = snapshot(net)
    host = hosts.tap(net, "features.5", small_set.images[:8])
    inv = invariances(host, painter, small_set, ["features.2", "features.5", "head"], **SHORT)
    x = small_set.held_out.images
    draws = inv.sample(x, 2, seed=0)
    assert list(draws) == ["features.2", "features.5", "head"] and all(d.shape == (2, len(x), 3, 8, 8) for d in draws.values())
    assert torch.equal(draws["head"], inv.sample(x, 2, "head", seed=0)), "one seed, one v, at every layer"
    trust = inv.fidelity(x, 2)
    assert all(math.isfinite(f.share) and f.same_prediction is not None for f in trust.values())
    shares = inv.variance(x, 8)
    assert all(set(row) == {"z̄"} and 0 <= row["z̄"].by_v <= 1 for row in shares.values())
    assert "3 layer(s)" in repr(inv) and all(t.certificate.holds for t in inv.layers.values())
    before.check()


def test_by_default_the_place_that_was_tapped(net, small_set, painter):
    host = hosts.tap(net, "features.5", small_set.images[:8])
    inv = invariances(host, painter, small_set, baseline=False, **SHORT)
    assert list(inv.layers) == ["features.5"] and inv.sample(small_set.images[:2], 3).shape == (3, 2, 3, 8, 8)
    for call in (lambda: inv.sample(small_set.images[:2], layer="x"), lambda: inv.factors(small_set.images[:2]),
                 lambda: inv.fidelity(small_set.images[:1]), lambda: inv.variance(small_set.images[:2])):
        with pytest.raises(IINError, match=r"invariance.*expected .*, got .*\. \S"): call()


def test_black_boxes_and_wrong_explanations(small_set, painter):
    box = hosts.from_functions(lambda x: x.mean((2, 3)), lambda z: z, small_set.images[:4], "means")
    assert list(invariances(box, painter, small_set, {"means": box}, baseline=False, **SHORT).layers) == ["means"]
    with pytest.raises(IINError, match="black box"): invariances(box, painter, small_set, ["features"])
    other = explain_toy(recipes(60)[0])
    with pytest.raises(IINError, match="Explain this autoencoder"): invariances(box, painter, small_set, explanation=other)


def test_what_does_not_belong_together_is_refused(net, small_set, painter):
    host = hosts.tap(net, "features.5", small_set.images[:8])
    for given, said in (((host, painter, small_set.images), "an ImageSet"), ((net, painter, small_set), "a Host"),
                        ((host, "painter", small_set), "a Host"), ((host, painter, small_set, []), "one layer")):
        with pytest.raises(IINError, match=f"expected (at least )?{said}"): invariances(*given)


def test_a_regression_says_what_z_has_at_least():
    z = draw(200, 6)
    assert readable(z, z[:, :2] @ draw(2, 3)) > 0.99 and readable(z, draw(200, 3, seed=1)) < 0.05
    half = readable(z, torch.stack([z[:, 0], draw(200, seed=1)], 1))
    assert 0.35 < half < 0.6 and readable(z, torch.zeros(200, 2)) == 0 and readable(z[:19], z[:19]) is None
    wide = torch.cat([z[:, :1] * torch.ones(8), 0.1 * draw(200, 3000, seed=2)], 1)
    assert readable(wide, z[:, :1]) > 0.8, "more numbers than inputs"


def test_a_tau_that_hears_nothing_is_found_out(small_set, painter):
    told = hosts.from_functions(lambda x: x.flatten(1) @ MIX, lambda z: z, small_set.images[:4], "tells all")
    inv = invariances(told, painter, small_set, baseline=False, **SHORT)   # trained for twelve steps
    with pytest.warns(UserWarning, match="a regression reads .* this τ has missed it"):
        share = inv.variance(small_set.images[:60], 8)["tells all"]["z̄"]
    assert share.missed and "at most" in str(share) and share.read > 0.9


def test_named_factors_of_a_toy():
    "Of sixteen numbers a layer keeps the figure; the color, which it ignores, is v's, the figure z's."
    u = recipes(1200)[0]
    expl = explain_toy(u)
    from iin_nb import latents, translation
    keeps = hosts.from_functions(lambda x: x[:, 10:13], lambda z: z, u, "keeps the figure")
    import pandas as pd
    z = latents.from_array(expl.host.encode(u), pd.DataFrame(index=range(len(u))))
    made = translation.translate(keeps, expl.host, (u, z), FlowConfig(16, n_blocks=2, hidden=32), EmbedderConfig(width=8, hidden=32),
                                 Recipe(n_steps=150, lr=1e-2, eval_every=50), 128, baseline=False)
    shares = Invariances({"figure": made}, expl).variance(u[:200], 8)["figure"]
    assert shares["shape"].by_v < 0.3 and shares["color"].by_v > 0.8 and shares["residual"].by_v > 0.8
    assert len(Invariances({"figure": made}, expl).factors(u[:5], 3)) == 15


def test_one_seed_one_bootstrap():
    blocks = draw(8, 20, 2)
    assert explained(blocks, seed=1) == explained(blocks, seed=1) and invariance.Explained(0.25, 0, 1, 1, 3).by_z == 0.75
