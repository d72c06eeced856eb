"""Pairs tell the truth: about every concept, with every row's fair chance, and never about copies."""
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from iin_nb import core, pairs
from iin_nb.core import DataError
from iin_nb.pairs import NEIGHBOURS, Concept, Pairs, concepts


def gen(seed=0): return torch.Generator().manual_seed(seed)


def table(n=600, seed=0, unlabelled=0.0):
    "A class of 5, a color of 3, a number; `unlabelled` of each missing at random."
    r = np.random.RandomState(seed)
    t = pd.DataFrame({"kind": r.randint(0, 5, n) * 1.0, "r": r.rand(n), "g": r.rand(n), "b": r.rand(n), "age": r.randn(n) * 10 + 40})
    for c in ("kind", "g", "age"): t.loc[r.rand(n) < unlabelled, c] = np.nan
    return t


SPEC = {"kind": "kind", "color": ["r", "g", "b"], "age": "age"}


def shared_by_hand(t, a, b):
    "The rule of the notebook, a loop over pairs."
    c = ((t[["r", "g", "b"]] - t[["r", "g", "b"]].dropna().mean()) / t[["r", "g", "b"]].dropna().std(ddof=0)).to_numpy()
    age = ((t.age - t.age.mean()) / t.age.std(ddof=0)).to_numpy()
    rows = []
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        values = [float(t.kind[i] == t.kind[j]), 1 - ((c[i] - c[j])**2).sum() / 6, 1 - (age[i] - age[j])**2 / 2]
        rows.append([0.0] + [max(0.0, v) if np.isfinite(v) else 0.0 for v in values])
    return torch.tensor(rows, dtype=torch.float32)


# ---- what a pair shares

@pytest.mark.parametrize("unlabelled", [0.0, 0.3, 0.9])
def test_shared_is_true_for_all_concepts(unlabelled):
    t = table(unlabelled=unlabelled)
    p = Pairs(t, concepts(t, SPEC))
    a, b, shared = p.sample(800, gen())
    assert shared.shape == (800, 4) and shared.dtype == torch.float32
    torch.testing.assert_close(shared, shared_by_hand(t, a, b), atol=1e-4, rtol=0)
    assert (shared[:, 0] == 0).all() and shared.min() >= 0 and shared.max() <= 1
    torch.testing.assert_close(p.shared(b, a), shared)   # symmetric
    for f in range(3):   # each with each: the pairs themselves on the diagonal, the rule of one pair everywhere
        among = p.shared_among(f, a[:60], b[:40])
        assert among.shape == (60, 40)
        torch.testing.assert_close(among.diagonal(), shared[:40, 1 + f])
        torch.testing.assert_close(among[7], p.shared(a[7].repeat(40), b[:40])[:, 1 + f])


def test_every_pair_shares_what_it_was_drawn_for():
    t = table(unlabelled=0.3)
    p = Pairs(t, concepts(t, SPEC))
    for f, usual in enumerate((1.0, 0.8, 0.99)):   # a row far from all others has no near neighbours
        a = p.can[:, f].nonzero()[:, 0]
        b = p.partners(f, a, gen(f))
        assert p.shared(a, b)[:, 1 + f].quantile(0.1) >= usual and (a != b).all() and p.can[b, f].all()


@pytest.mark.parametrize("d, expected", [(0.0, 1.0), (0.1, 0.995), (1.0, 0.5), (2**0.5, 0.0), (3.0, 0.0)])
@pytest.mark.parametrize("q", [1, 3])
def test_graded_sharing(d, expected, q):
    c = Concept("c", tuple("xyz"[:q]), None, (0.0,) * q, (1.0,) * q)
    assert c.shared(torch.zeros(1, q), torch.full((1, q), d)).item() == pytest.approx(expected, abs=1e-6)


def test_nothing_is_shared_with_the_unlabelled():
    number, kind = Concept("c", ("x",), None, (0.0,), (1.0,)), Concept("k", ("y",), (0, 1))
    nan, inf = float("nan"), float("inf")
    a, b = torch.tensor([[nan], [nan], [inf], [inf], [1.0]]), torch.tensor([[nan], [1.0], [inf], [1.0], [-inf]])
    assert (number.shared(a, b) == 0).all() and number.labelled(a).tolist() == [False, False, False, False, True]
    assert (kind.shared(torch.tensor([-1, -1, 0]), torch.tensor([-1, 0, -1])) == 0).all()


# ---- how pairs are drawn

def test_classmates_have_the_same_chance():
    t = pd.DataFrame({"kind": [0] * 7 + [1] * 30 + [2] * 2})
    p = Pairs(t, concepts(t, ["kind"]))
    for a, mates in ((3, [0, 1, 2, 4, 5, 6]), (0, list(range(1, 7))), (6, list(range(6))), (38, [37]), (37, [38])):
        count = torch.bincount(p.partners(0, torch.full((30_000,), a), gen(a)), minlength=39)
        assert count.nonzero()[:, 0].tolist() == mates
        expected = 30_000 / len(mates)
        assert ((count[mates] - expected).square() / expected).sum() < 3 * len(mates) + 10   # χ²


def test_rows_and_concepts_have_the_same_chance():
    t = table(200)
    a, b, shared = Pairs(t, concepts(t, SPEC)).sample(100_000, gen())
    count = torch.bincount(a, minlength=200)
    assert ((count - 500).square() / 500).sum() < 280   # χ², 199 degrees of freedom
    assert (shared[:, 1] == 1).float().mean() == pytest.approx(1 / 3 + 2 / 3 * 0.2, abs=0.02)


def test_neighbours_have_the_same_chance_and_are_the_nearest():
    t = table(300)
    p = Pairs(t, concepts(t, {"color": ["r", "g", "b"]}))
    count = torch.bincount(p.partners(0, torch.full((32_000,), 11), gen()), minlength=300)
    d = (p.values[0] - p.values[0][11]).square().sum(1)
    assert set(count.nonzero()[:, 0].tolist()) == set(d.argsort()[1:NEIGHBOURS + 1].tolist())
    assert ((count[count > 0] - 2000).square() / 2000).sum() < 45


@pytest.mark.parametrize("values", [[0.25, 0.5, 0.75], [0.5, 1.5]])
def test_ties_share_their_partners_fairly(values):
    t = pd.DataFrame({"x": np.repeat(values, 300)})
    p = Pairs(t, concepts(t, ["x"]))
    a = torch.arange(len(t)).repeat(40)
    b = p.partners(0, a, gen())
    assert (a != b).all() and (t.x.to_numpy()[a] == t.x.to_numpy()[b]).all()
    often = torch.bincount(b, minlength=len(t)).float() / 40
    assert often.max() < 4 and (often == 0).float().mean() < 0.02, "a few rows are everybody's partner"


def test_pairs_are_of_two_rows_even_if_nothing_is_shared():
    for n in (2, 3, 50):
        a, b, shared = Pairs(pd.DataFrame({"x": range(n)}), ()).sample(3000, gen())
        assert (a != b).all() and shared.shape == (3000, 1) and (shared == 0).all()
        assert len(a.unique()) == len(b.unique()) == n


def test_unlabelled_rows_take_part_but_not_as_partners():
    t = table(unlabelled=0.7)
    p = Pairs(t, concepts(t, {"kind": "kind"}))
    a, b, shared = p.sample(20_000, gen())
    known = torch.tensor(t.kind.notna().to_numpy())
    assert 0.3 < (~known[a]).float().mean() < 0.4   # 70 % of the rows, in half of the pairs
    assert known[b][known[a]].all() and (shared[known[a], 1] == 1).all() and (shared[~known[a], 1] == 0).all()


def test_rare_labels_are_drawn_as_often_as_others():
    g = torch.Generator().manual_seed(0)
    t = pd.DataFrame({"rare": [None] * 2000, "rarer": [None] * 2000, "all": torch.randint(3, (2000,), generator=g).numpy()})
    t.loc[:49, "rare"], t.loc[100:119, "rarer"] = [f"r{i % 2}" for i in range(50)], [f"r{i % 2}" for i in range(20)]
    p = Pairs(t, concepts(t, ["rare", "rarer"]))
    a, b, shared = p.sample(20_000, gen())
    assert 0.24 < (a < 50).float().mean() < 0.28 and 0.24 < ((a >= 100) & (a < 120)).float().mean() < 0.28
    assert [int(v.sum()) for v in p.labelled] == [50, 20]
    assert 0.24 < shared[:, 1].mean() < 0.28 and 0.24 < shared[:, 2].mean() < 0.28


def test_the_generator_decides():
    t = table(unlabelled=0.2)
    p, q = Pairs(t, concepts(t, SPEC)), Pairs(t, concepts(t, SPEC))
    for u, v in zip(p.sample(500, gen(4)), q.sample(500, gen(4)), strict=True): assert torch.equal(u, v)
    assert not torch.equal(p.sample(500, gen(4))[1], p.sample(500, gen(5))[1])


# ---- copies of one picture

@pytest.mark.parametrize("spec", [{"kind": "kind"}, {"age": "age"}, {"color": ["r", "g", "b"]}, SPEC])
@pytest.mark.parametrize("copies", [2, 10, 30])
def test_copies_are_never_paired(spec, copies):
    t = pd.concat([table(60).assign(source=range(60))] * copies, ignore_index=True).sample(frac=1, random_state=0, ignore_index=True)
    p, source = Pairs(t, concepts(t, spec)), torch.tensor(t.source.to_numpy())
    a, b, shared = p.sample(5000, gen())
    assert p.can.all() and (source[a] != source[b]).all() and (shared[:, 1:] > 0.05).any(1).float().mean() > 0.95


def test_a_class_of_copies_has_no_pairs():
    t = pd.DataFrame({"kind": [0, 0, 0, 1, 1], "source": ["a", "a", "a", "b", "c"]})
    p = Pairs(t, concepts(t, ["kind"]))
    assert p.can[:, 0].tolist() == [False, False, False, True, True]
    with pytest.raises(DataError, match=r"pairs.partners \(kind\): expected rows that have one"): p.partners(0, torch.tensor([0]), gen())


def test_numbers_of_copies_only_have_no_pairs():
    t = pd.DataFrame({"x": [0.5, 0.5, 0.7, None, 0.1], "source": ["a", "a", "a", "b", "a"]})
    with pytest.warns(UserWarning, match=r"\(x\): no two of 5 rows share it"): p = Pairs(t, concepts(t, ["x"]))
    assert not p.can.any()


def test_rows_without_a_source_are_no_copies_of_each_other():
    t = pd.DataFrame({"kind": [0, 0, 1, 1], "source": [None, None, "a", "b"]})
    assert Pairs(t, concepts(t, ["kind"])).can.all()


# ---- other tables than the one read from

def test_held_out_table_is_read_as_the_training_table_was():
    train, held = table(), table(50, seed=1)
    read = concepts(train, SPEC)
    color, rgb = read[1].read(held), ["r", "g", "b"]
    np.testing.assert_allclose(color, (held[rgb] - train[rgb].mean()) / train[rgb].std(ddof=0), atol=1e-5)
    held["kind"] = 77.0   # a class never seen
    assert (read[0].read(held) == -1).all()


@pytest.mark.filterwarnings("ignore:pairs.Pairs")
def test_a_lone_member_in_another_table_is_not_paired_with_itself():
    train = table()
    held = pd.DataFrame({"kind": [0.0, 1.0, 1.0, 4.0], "r": 0.5, "g": 0.5, "b": 0.5, "age": [np.nan, 30, np.nan, np.nan]})
    p = Pairs(held, concepts(train, SPEC))
    assert p.can[:, 0].tolist() == [False, True, True, False] and not p.can[:, 2].any() and p.can[:, 1].all()
    a, b, _ = p.sample(2000, gen())
    assert (a != b).all()


def test_concept_without_any_pair_warns_once(monkeypatch):
    monkeypatch.setattr(core, "_warned", set())
    train = table()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2): Pairs(train.head(4).assign(kind=[0.0, 1.0, 2.0, 3.0]), concepts(train, SPEC))
    assert [str(w.message) for w in caught] == ["pairs.Pairs (kind): no two of 4 rows share it; no pair is drawn for it."]


# ---- kinds

@pytest.mark.parametrize("column, classes", [
    (pd.Series(["b", "a", None, "a", "b"]), ("a", "b")),
    (pd.Series(["b", "a", "a", "b"], dtype="string"), ("a", "b")),
    (pd.Series([True, False, True, False]), (False, True)),
    (pd.Series([True, None, True, False, False], dtype="boolean"), (False, True)),
    (pd.Series([2, 1, 2, 1]), (1, 2)),
    (pd.Series([2, 1, None, 2, 1], dtype="Int64"), (1, 2)),
    (pd.Series([2.0, 1.0, np.nan, 2.0, 1.0]), (1.0, 2.0)),
    (pd.Series(pd.Categorical(["s", "l", "s", "l"], ["s", "m", "l"], ordered=True)), ("s", "l")),
    (pd.Series([0.5, 1.5, 0.5, 1.5]).astype("category"), (0.5, 1.5)),
    (pd.Series(["x", 3, "x", 3], dtype=object), (3, "x")),
    (pd.Series([0.5, 1.0, np.nan, 2.0]), None),
    (pd.Series([0.5, 1.0, None, 2.0], dtype="Float64"), None),
    (pd.Series([0.5, 1.0, np.inf, 2.0]), None)])
def test_kind_comes_from_the_column(column, classes):
    t = pd.DataFrame({"c": column})
    c, = concepts(t, ["c"])
    assert c.classes == classes and c.continuous == (classes is None)
    values = c.read(t)
    assert c.labelled(values).tolist() == [bool(pd.notna(v) and v != np.inf) for v in column]
    if classes: assert values[c.labelled(values)].unique().tolist() == list(range(len(classes)))
    else: torch.testing.assert_close(values[c.labelled(values)].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_a_list_of_columns_is_continuous_even_of_one():
    t = pd.DataFrame({"age": [20, 31, 31, 47], "height": [1, 2, 3, 4]})
    assert concepts(t, {"age": ["age"]})[0].continuous and concepts(t, {"size": ("age", "height")})[0].max_dims == 2
    assert not concepts(t.assign(age=[1, 1, 2, 2]), {"age": "age"})[0].continuous


def test_max_dims(): assert [c.max_dims for c in concepts(table(), SPEC)] == [4, 3, 1]


@pytest.mark.parametrize("spec", [None, {}, []])
def test_no_concepts(spec): assert concepts(table(), spec) == ()


def test_a_bare_name_is_one_concept(): assert [c.name for c in concepts(table(), "kind")] == ["kind"]


# ---- refusals

@pytest.mark.parametrize("column, spec, match", [
    (["a"] * 4, ["c"], r"at least two values, got \['a'\]"),
    ([None] * 4, ["c"], r"at least two values, got \[\]"),
    (["a", "a", "b", "c"], ["c"], "at least two training rows per value, got one of '[bc]'"),
    ([20, 31, 31, 47], ["c"], r"got one of (20|47). .*give a list: \{'c': \['c'\]\}"),
    ([0.5, 0.5, 0.5, np.nan], ["c"], "different values in each column, got one in 'c'"),
    ([0.5, np.nan, np.nan, np.nan], ["c"], "at least two labelled rows, got 1"),
    ([np.nan, np.inf, -np.inf, np.nan], {"c": ["c"]}, "at least two labelled rows, got 0"),
    (["a", "b", "a", "b"], {"c": ["c"]}, r"numeric columns, got .* give the column's name alone: \{'c': 'c'\}")])
def test_concepts_that_tell_nothing(column, spec, match):
    with pytest.raises(DataError, match=rf"pairs.concepts \(c\): expected .*{match}"): concepts(pd.DataFrame({"c": column}), spec)


def test_constant_column_with_rounding_noise_is_refused():
    with pytest.raises(DataError, match="one in 'y'"): concepts(pd.DataFrame({"x": np.random.rand(1000), "y": 0.1}), {"c": ["x", "y"]})


@pytest.mark.parametrize("spec, match", [
    ({"kind": "knd"}, r"\(kind\): expected columns of the table, got 'knd'. Did you mean 'kind'"),
    (["agee"], r"got 'agee'. Did you mean 'age'"),
    ({"color": ["r", "g", "blue"]}, "got 'blue'"),
    ({"color": []}, "got none"),
    ({"color": 5}, "got 5")])
def test_missing_columns_are_answered_with_names(spec, match):
    with pytest.raises(DataError, match=match): concepts(table(), spec)


@pytest.mark.parametrize("name, better", [
    ("hair color", "hair_color"), ("class", "class_"), ("2nd", "factor_2nd"), ("residual", "residual_"), ("items", "items_"), ("_x", "x"),
    ("", "factor"), (3, "factor_3"), ("a-b", "a_b"), ("None", "None_")])
def test_names_that_could_not_be_written(name, better):
    t = table().assign(**{str(name): table().kind})
    with pytest.raises(DataError, match=rf"names that can be written as f.name .*Rename it: \{{'{better}': "): concepts(t, {name: "kind"})
    assert concepts(t, {better: "kind"})[0].name == better


def test_names_are_unique():
    with pytest.raises(DataError, match="'kind' twice"): concepts(table(), ["kind", "age", "kind"])


def test_taken_names_are_those_of_factors():
    from iin_nb.factors import Factors, Layout
    f = Factors(Layout.of({"x": 1}, 3), torch.zeros(2, 3))
    own = {n for n in (*dir(Factors), *vars(f)) if not n.startswith("_")}
    assert own <= pairs.TAKEN, f"add {own - pairs.TAKEN} to pairs.TAKEN"


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows(n):
    with pytest.raises(DataError, match=f"pairs.Pairs: expected at least two rows, got {n}"): Pairs(table().head(n), ())


def test_table_without_the_concepts_columns():
    read = concepts(table(), SPEC)
    with pytest.raises(DataError, match=r"\(color\): expected columns of the table, got 'g'"): Pairs(table().drop(columns="g"), read)


def test_twins_share_all_but_what_their_labels_tell_apart():
    table = pd.DataFrame({"kind": list("abab") * 5, "size": ["s", None] * 10, "twin": np.arange(20) // 2, "source": np.arange(20) // 2})
    pairs = Pairs(table, concepts(table, ["kind"]))
    a, b, shared = pairs.sample(2000, torch.Generator().manual_seed(0))
    same = (table["twin"].to_numpy()[a] == table["twin"].to_numpy()[b])
    assert 0.35 < same.mean() < 0.65 and shared[same].unique(dim=0).tolist() == [[1, 0]] and not shared[~same, 0].any()
    assert (a != b).all()


def test_who_has_no_twin_is_paired_as_ever():
    "The same pairs for the same seed, with a column of twins of which nobody has one."
    table = pd.DataFrame({"kind": list("ab") * 10})
    plain, alone = (Pairs(t, concepts(t, ["kind"])) for t in (table, table.assign(twin=range(20))))
    for u, v in zip(plain.sample(50, torch.Generator().manual_seed(1)), alone.sample(50, torch.Generator().manual_seed(1)), strict=True):
        assert torch.equal(u, v)
