"Checks for the exercises of `your_first_factor.ipynb`: each says what is right, or what to look at next."
import math

import torch

from iin_nb import objective, scores, zoo


def _said(ok: bool, text: str) -> None: print(("✓ " if ok else "✗ ") + text)


def _unwritten(value) -> bool:
    if value is None:
        print("✗ Nothing came back yet: write your lines and `return` a value. Nothing below needs your answer, so read on if you like.")
    return value is None


def check_partner(partner) -> None:
    "Same label, never the row itself, every candidate possible."
    labels, g = torch.tensor([0, 1, 0, 2, 1, 0, 2, 0]), torch.Generator().manual_seed(0)
    if _unwritten(partner(labels, 0, g)): return
    found = [torch.as_tensor(partner(labels, 0, g)) for _ in range(200)]
    if any(j.numel() != 1 for j in found):
        return _said(False, "Expected one row number each time. Choose one of the rows: rows[torch.randint(len(rows), (1,), generator=g)].")
    found = [int(j) for j in found]
    if strangers := [j for j in found if labels[j] != 0]:
        return _said(False, f"Row {strangers[0]} has another label than row 0. Choose among the rows where labels == labels[i].")
    if 0 in found: return _said(False, "Row 0 came back as its own partner: a picture shares everything with itself. Leave i out.")
    if set(found) != {2, 5, 7}:
        do = "Draw at random, with torch.randint(len(rows), (1,), generator=g)."
        return _said(False, f"Of the partners 2, 5 and 7 only {sorted(set(found))} ever came. {do}")
    first, again = ([int(partner(labels, 0, torch.Generator().manual_seed(1))) for _ in range(20)] for _ in "ab")
    if first != again: return _said(False, "Other partners for the same generator: draw with it, torch.randint(…, generator=g).")
    return _said(True, "A random partner that shares the digit, and nothing else on purpose.")


def check_nll(block_nll) -> None:
    "Against the toolkit's own pair likelihood, with the usual slips recognised."
    g = torch.Generator().manual_seed(0)
    a, b, rho = torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g), 0.975
    mine = block_nll(a, b, rho)
    if _unwritten(mine): return
    if not isinstance(mine, torch.Tensor):
        return _said(False, f"Expected a tensor with one number per row, got {type(mine).__name__}. Leave out .item() and .tolist().")
    zero, shared = torch.zeros(5), torch.ones(5, 1)
    true = objective.pair_nll(a, zero, b, zero, shared, (3,), rho) - objective.gaussian_nll(a, zero)
    if (shape := tuple(mine.shape)) != (5,):
        return _said(False, f"Expected one number per row, shape (5,), got {shape}. Sum over the dimensions with .sum(1).")
    gap, both = (mine - true).mean().item(), -1.5 * math.log(2 * math.pi * (1 - rho**2))
    if torch.allclose(3 * mine, true, atol=1e-3): return _said(False, "This is the mean over the d dimensions; nats add up: .sum(1).")
    if torch.allclose(-mine, true, atol=1e-3): return _said(False, "This is the log-likelihood; its negative is wanted.")
    slips = {both: "Both constants are missing, ½ log 2π and ½ log(1 − ρ²): they decide whether ρ near 1 pays.",
             -1.5 * math.log(2 * math.pi): "½ log 2π is missing in each of the d dimensions.",
             -1.5 * math.log(1 - rho**2): "½ log(1 − ρ²) is missing in each of the d dimensions: without it, ρ near 1 looks free."}
    for size, text in slips.items():
        if abs(gap - size) < 1e-3: return _said(False, text)
    if not torch.allclose(mine, true, atol=1e-3):
        return _said(False, f"Off by {gap:.3f} nats on average. Is the variance 1 − ρ² (not ρ²), and the mean ρ a?")
    return _said(True, "Exactly the toolkit's likelihood. With ρ = 0.975 a pair that agrees is cheap; one that does not costs dearly.")


def check_recolor(recolor, expl, images) -> None:
    "Color read from the pixels, digit read by the judge."
    f, want = expl.encode(images.images[:64]), torch.tensor(images.table[["r", "g", "b"]].to_numpy()[3], dtype=torch.float32)
    y = recolor(expl, f, 3)
    if _unwritten(y): return
    if not isinstance(y, torch.Tensor):
        return _said(False, f"Expected pictures, got {type(y).__name__}. Decode the factors: expl.decode(…).")
    if (shape := tuple(y.shape)) != (64, 3, 32, 32):
        return _said(False, f"Expected pictures (64, 3, 32, 32), got {shape}. Decode the factors: expl.decode(…).")
    off = (scores.read_color(y) - want).abs().mean().item()
    if off > 0.12:
        do = "Did the color block of row i go into every row?"
        return _said(False, f"The colors are {off:.2f} away from row 3's, on a scale from 0 to 1. {do}")
    seen = (zoo.judge()(y).argmax(1) == torch.tensor(images.table["class"].to_numpy()[:64])).float().mean().item()
    if seen < 0.7:
        return _said(False, f"The judge still sees the old digit in only {seen:.0%} of them. Replace the color block and nothing else.")
    return _said(True, f"Color {off:.3f} from the wanted one, and the judge sees the same digit in {seen:.0%}.")
