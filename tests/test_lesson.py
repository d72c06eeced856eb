"The lesson's checks: solutions pass, usual slips are recognised, an unwritten exercise is no error."
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent/"nbs"/"learn"))
checks = pytest.importorskip("first_factor_checks", reason="the lesson is not in this copy")


def partner(labels, i, g):
    rows = (labels == labels[i]).nonzero()[:, 0]
    rows = rows[rows != i]
    return int(rows[torch.randint(len(rows), (1,), generator=g)])


def block_nll(a, b, rho, variance=None, constants=1.0):
    v = 1 - rho ** 2 if variance is None else variance
    return (0.5 * (b - rho * a).square() / v + 0.5 * math.log(v) + constants * 0.5 * math.log(2 * math.pi)).sum(1)


@pytest.mark.parametrize(("answer", "said"), [
    (partner, "✓"), (lambda labels, i, g: None, "Nothing came back"), (lambda labels, i, g: 1, "another label"),
    (lambda labels, i, g: i, "its own partner"),
    (lambda labels, i, g: (labels == labels[i]).nonzero()[:, 0], "one row number"), (lambda labels, i, g: 2, "only \\[2\\]"),
    (lambda labels, i, g: partner(labels, i, torch.default_generator), "same generator")])
def test_partner(answer, said, capsys):
    checks.check_partner(answer)
    assert re.search(said, capsys.readouterr().out)


@pytest.mark.parametrize(("answer", "said"), [
    (block_nll, "✓"), (lambda a, b, rho: None, "Nothing came back"),
    (lambda a, b, rho: block_nll(a, b, rho, constants=0), "2π is missing"),
    (lambda a, b, rho: block_nll(a, b, rho).mean(), "one number per row"),
    (lambda a, b, rho: block_nll(a, b, rho).tolist(), "Expected a tensor"),
    (lambda a, b, rho: block_nll(a, b, rho) / 3, "nats add up"), (lambda a, b, rho: -block_nll(a, b, rho), "its negative"),
    (lambda a, b, rho: (0.5 * (b - rho * a).square() / (1 - rho ** 2)).sum(1), "Both constants"),
    (lambda a, b, rho: block_nll(a, b, rho, variance=rho ** 2), "not ρ²")])
def test_block_nll(answer, said, capsys):
    checks.check_nll(answer)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "said"), [
    (lambda e, f, i: e.decode(f.replace(color=f[i].color)), "✓"), (lambda e, f, i: e.decode(f), "away from row 3"),
    (lambda e, f, i: e.decode(f.replace(color=f[i].color, digit=f[i].digit)), "old digit"), (lambda e, f, i: None, "Nothing came back"),
    (lambda e, f, i: f.replace(color=f[i].color), "Decode the factors")])
def test_recolor(answer, said, capsys):
    import iin_nb as iin
    checks.check_recolor(answer, iin.explanation.shipped("digits-autoencoder"), iin.data.color_digits().held_out)
    assert said in capsys.readouterr().out


def test_the_folded_solutions_run_as_pasted(capsys):
    "In a namespace that has what the notebook's own imports give it, and nothing else."
    cells = json.loads((Path(checks.__file__).parent/"your_first_factor.ipynb").read_text(encoding="utf-8"))["cells"]
    text = ["".join(c["source"]) for c in cells]
    names = {}
    exec(next(t for t in text if t.startswith("import math")).split("digits =")[0], names)
    for t in text:
        for solution in re.findall(r"```python\n(.*?)```", t, re.S): exec(solution, names)
    checks.check_partner(names["partner"])
    checks.check_nll(names["block_nll"])
    assert capsys.readouterr().out.count("✓") == 2
