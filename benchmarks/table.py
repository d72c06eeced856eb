"The measured parts as a table with bars: RESULTS.md, and how many bars do not hold."
import json
from pathlib import Path

import numpy as np


def _over(seeds: dict, *path, worst=max) -> tuple[float, float]:
    "Mean and worst of one number over the seeds."
    values = []
    for run in seeds.values():
        for key in path: run = run[key]
        values.append(run)
    return float(np.mean(values)), float(worst(values))


class Table:
    "Rows of what, measured, bar, holds; `row` decides by the worst seed where `worst` is asked for, else by the mean."

    def __init__(self): self.rows = []

    def row(self, what: str, text: str, bar: str, holds: bool | None) -> None: self.rows.append((what, text, bar, holds))

    def seeds(self, what: str, seeds: dict, path: tuple, bar: float, above: bool, form: str = ".3f") -> None:
        "One number over three seeds against `bar`."
        mean, worst = _over(seeds, *path, worst=min if above else max)
        self.row(what, f"{mean:{form}} (worst {worst:{form}})", f"{'≥' if above else '≤'} {bar:g}", mean >= bar if above else mean <= bar)

    def markdown(self) -> str:
        lines = ["| what | measured | bar | holds |", "|---|---|---|---|"]
        return "\n".join(lines + [f"| {a} | {b} | {c} | {'' if d is None else 'yes' if d else '**no**'} |" for a, b, c, d in self.rows])


def _others(run: dict, concept: str, own: str, key: str = "probe") -> float:
    "The highest probe of `concept` from any block but its own."
    return max(v for k, v in run[key][concept].items() if k not in (own, "z"))


def _common(t: Table, kind: str, seeds: dict) -> None:
    t.seeds(f"{kind}: round trip, of max abs z", seeds, ("certificate", "relative_error"), 1e-5, False, ".1e")
    t.seeds(f"{kind}: round trip, of std, worst dimension", seeds, ("certificate", "std_error"), 1e-4, False, ".1e")
    t.seeds(f"{kind}: training T, seconds", seeds, ("training_seconds",), 90, False, ".0f")


def _classifier(t: Table, seeds: dict) -> None:
    t.seeds("classifier: prediction through E, T, T⁻¹, G unchanged", seeds, ("certificate", "same_prediction"), 1, True, ".4f")
    for name, bar, above in (("digit", 0.80, True), ("color", 0.03, False), ("residual", 0.05, False)):
        t.seeds(f"classifier response, 200 inputs: flip rate, {name} resampled", seeds, ("response", name, "flip_rate"), bar, above)
    sigma = " / ".join(f"{_over(seeds, 'response', n, 'sigma')[0]:.2f}" for n in ("digit", "color", "residual"))
    t.row("classifier response: σ of the class index, digit / color / residual", sigma, "paper's page (one input): 2.74 / 0.19 / 0.0", None)
    t.seeds("500-step walks, 20 starts: classes the digit factor visits", seeds, ("walk", "digit", "visited"), 8, True, ".2f")
    t.seeds("500-step walks, 20 starts: steps the color factor stays in its start class", seeds, ("walk", "color", "stayed"), 0.95, True)


def _autoencoder(t: Table, seeds: dict) -> None:
    for run in seeds.values():
        mlp, linear = run["probe_mlp"]["color"], run["probe"]["color"]
        own, z = (max(mlp[k], linear[k]) for k in ("color", "z"))
        run["color"] = {"own": own, "of z": own / z, "leak": _others(run, "color", "color")}
        run["digit leak"] = _others(run, "digit", "digit")
        run["mlp leak"] = {"digit": _others(run, "digit", "digit", "probe_mlp"), "color": _others(run, "color", "color", "probe_mlp")}
    t.seeds("autoencoder: digit from the digit block (linear)", seeds, ("probe", "digit", "digit"), 0.95, True)
    t.seeds("autoencoder: digit from any other block (linear)", seeds, ("digit leak",), 0.20, False)
    beside = (f"MLP {_over(seeds, 'mlp leak', 'digit')[0]:.3f}; shuffled labels {_over(seeds, 'chance', 'digit')[0]:.3f}; "
              f"from z {_over(seeds, 'probe', 'digit', 'z')[0]:.3f} (linear)")
    t.row("autoencoder: digit from any other block, beside it", beside, "", None)
    t.seeds("autoencoder: color R² from the color block (best of linear and MLP)", seeds, ("color", "own"), 0.93, True)
    t.seeds("autoencoder: the same as a share of that from z", seeds, ("color", "of z"), 0.97, True)
    t.seeds("autoencoder: color R² from any other block (linear)", seeds, ("color", "leak"), 0.05, False)
    t.row("autoencoder: color R² from any other block, MLP beside it", f"{_over(seeds, 'mlp leak', 'color')[0]:.3f}", "", None)
    t.seeds("digit swap: judge sees the source's digit", seeds, ("swap", "digit", "judge"), 0.93, True)
    t.seeds("digit swap: color read-out stays, mean abs error", seeds, ("swap", "digit", "color_error"), 0.08, False)
    t.seeds("color swap: judge sees the target's digit", seeds, ("swap", "color", "judge"), 0.95, True)
    t.seeds("color swap: color read-out arrives, mean abs error", seeds, ("swap", "color", "color_error"), 0.08, False)
    t.seeds("residual swap: judge sees the target's digit", seeds, ("swap", "residual", "judge"), 0.95, True)
    t.seeds("residual swap: change over the reconstruction error", seeds, ("swap", "residual", "change"), 3, True, ".1f")
    plain = " / ".join(f"{_over(seeds, 'reconstruction', k)[0]:.3f}" for k in ("judge", "color_error"))
    t.row("no swap (plain reconstruction): judge / color error", plain, "", None)


def _baselines(t: Table, kind: str, store: dict) -> None:
    if found := store.get(f"published {kind}"):
        ours, theirs = found["found"]["ours"], found["found"]["published"]
        sizes = "/".join(map(str, ours["dims"].values()))
        millions = " / ".join(f"{run['parameters'] / 1e6:.2f} M" for run in (ours, theirs))
        t.row(f"{kind}: held-out pairs (nats, lower is better), dims {sizes} (residual first), {ours['seconds']:.0f} s: ours / published T",
              f"{ours['nll']:.1f} / {theirs['nll']:.1f} nats a pair ({millions})",
              "better by ≥ 15", ours["nll"] <= theirs["nll"] - 15)
    if found := store.get(f"dims {kind}"):
        runs = [found["found"][name] for name in ("ours", "published")]   # a run a seed
        sizes = " / published ".join(str(list(next(iter(r.values()))["dims"].values())) for r in runs)
        steps = " / ".join(f"{_over(r, 'steps')[0]:.0f}" for r in runs)
        took = " / ".join(f"{_over(r, 'seconds')[0]:.0f}" for r in runs)
        (ours, low), (theirs, high) = (_over(r, "nll", worst=w) for r, w in zip(runs, (max, min), strict=True))
        t.row(f"{kind}: held-out pairs (nats, lower is better) at our dims {sizes}, {steps} steps in {took} s",
              f"{ours:.1f} / {theirs:.1f} nats a pair (our worst {low:.1f}, their best {high:.1f})", "better by ≥ 10", ours <= theirs - 10)
        rows, worse = [], False
        for c in ("digit", "color"):   # same seeds, same splits: pairs
            us, them = (np.array([r["own"][c] for r in run.values()]) for run in runs)
            gap, error = (us - them).mean(), (us - them).std(ddof=1) / us.size**0.5
            worse |= bool(gap < 0)
            rows.append(f"{c} {us.mean():.4f} / {them.mean():.4f} ({gap:+.4f} ± {error:.4f})")
        how = f"mean of {us.size} seeds × splits (difference ± std/√{us.size}; splits overlap)"
        t.row(f"{kind}: own-block probes at our dims / published, {how}", ", ".join(rows), "no worse", not worse)
        rules = "; ".join(", ".join(f"{k} {d}" for k, d in v.items()) for v in found["found"]["formula"].values())
        t.row(f"{kind}: sizes by the released code's formula; by the paper's Eq. 11 as re-implemented", rules, "", None)


def _placed(t: Table, found: dict) -> None:
    n = found["z"]["references"]
    ratio = min(f["transform_ms"] / f["ours_ms"] for f in found.values())
    took = max(f["ours_ms"] for f in found.values())
    t.row(f"placing 200 points on a UMAP of {n:,}, slowest of {len(found)} maps", f"{took:.1f} ms", "≤ 15 ms", took <= 15)
    t.row("the same against umap-learn's warm transform, one run, least ratio", f"{ratio:.0f}×", "≥ 3×", ratio >= 3)
    for name, f in found.items():
        finds = f", its index finding {f['index_finds']:.0%} of a point's 15 nearest"
        for way, said in (("theirs", finds), ("exact", ", its neighbours looked up exactly")):
            us, them = f[f"ours_to_{way}"], f[f"{way}_to_{way}"]
            t.row(f"map {name}: median distance to umap-learn's place / of umap-learn's under two seeds{said}", f"{us:.3f} / {them:.3f}",
                  "no farther", us <= them)


def _sketched(t: Table, found: dict) -> None:
    over = lambda row, key: [run[key][row] for run in found.values()]   # noqa: E731
    for row, rank, right in (("stroke", 0.6, 0.9), ("slant, by lean", None, None), ("slant", None, None)):
        v = over(row, "rank")
        t.row(f"two sketches, {row}: rank correlation with what is measured", f"{np.mean(v):.3f} (worst {min(v):.3f})",
              f"≥ {rank}" if rank else "shown", min(v) >= rank if rank else None)
        v, everyone = over(row, "right way, visible"), over(row, "right way, all")
        t.row(f"two sketches, {row}: a swap moves it the right way, where it differs visibly (of all pairs)",
              f"{np.mean(v):.3f}, worst {min(v):.3f} ({np.mean(everyone):.3f})", f"≥ {right}" if right else "shown",
              min(v) >= right if right else None)
        v = over(row, "judge")
        t.row(f"two sketches, {row} swapped: judge keeps the digit", f"{np.mean(v):.3f} (worst {min(v):.3f})",
              f"≥ {right}" if right else "shown", min(v) >= right if right else None)


def _explorers(t: Table, found: dict) -> None:
    if kernel := found.get("kernel"):
        for name, kinds in kernel.items():
            worst = max(k["p95"] for k in kinds.values())
            said = "; ".join(f"{kind} {k['median']:.0f} / {k['p95']:.0f}" for kind, k in kinds.items())
            t.row(f"explorer {name}, 200 events in the kernel: ms median / 95th percentile", said, "≤ 60 ms", worst <= 60)
    if page := found.get("page"):
        for name, k in page.items():
            said = f"{k['median']} ms (95th percentile {k['p95']})"
            t.row(f"explorer {name}, seen in JupyterLab: key or click to the finished update, median", said, "≤ 250 ms", k["median"] <= 250)
        seconds = page["factors"]["open_cold_seconds"]
        t.row("`explorers.factors` of the shipped explanation, cold kernel, to the picture", f"{seconds:.1f} s", "≤ 10 s", seconds <= 10)
    if place := found.get("place"): _placed(t, place)
    if points := found.get("points"):
        frames = lambda way: " / ".join(str(points[way][g]["frames_per_second"]) for g in ("lasso", "pan", "zoom"))   # noqa: E731
        slowest = min(g["frames_per_second"] for g in points["sample"].values())
        t.row(f"{points['n']:,} points on four maps: frames a second, lasso / pan / zoom (all as WebGL points)",
              f"{frames('sample')} ({frames('all')})", "≥ 20", slowest >= 20)
    if sketches := found.get("sketches"): _sketched(t, sketches)


def write_table(store: dict, path: Path) -> int:
    "Write RESULTS.md; the number of bars that do not hold."
    t = Table()
    if found := store.get("hosts"):
        trained = [v for k, v in found["found"].items() if k.startswith("seed")]
        t.row("classifier host, held-out digits and colors: three training seeds", f"{np.mean(trained):.4f} (worst {min(trained):.4f})",
              "≥ 0.975", np.mean(trained) >= 0.975)
        shipped, judge = found["found"]["shipped"], found["found"]["judge"]
        t.row("classifier host as shipped / judge, same pictures", f"{shipped:.4f} / {judge:.4f}", "≥ 0.975", shipped >= 0.975)
    for kind, part in (("classifier", _classifier), ("autoencoder", _autoencoder)):
        if found := store.get(f"explanations {kind}"):
            _common(t, kind, found["found"])
            part(t, found["found"])
        _baselines(t, kind, store)
    if found := store.get("times"):
        s = found["found"]
        t.row("`iin-nb demo`, cold numba cache", f"{s['demo']:.0f} s", "≤ 300 s", s["demo"] <= 300)
        t.row("`iin-nb demo --quick`, cold numba cache", f"{s['demo --quick']:.0f} s", "≤ 60 s", s["demo --quick"] <= 60)
    if found := store.get("imports"):
        s = found["found"]["seconds"]
        extra = s[len(s) // 2]
        t.row(f"`import iin_nb` beyond `import torch`, median of {len(s)}", f"{extra:.2f} s", "≤ 0.3 s", extra <= 0.3)
    beside = path.with_name("explorers.json")
    if beside.exists(): _explorers(t, json.loads(beside.read_text()))
    minutes = ", ".join(f"{k} {v['minutes']:.0f}" for k, v in store.items())
    versions = next(iter(store.values()), {}).get("versions", {})
    head = ("# Results\n\nMeasured by `make results` on two CPU cores: mean of three seeds, the worst beside it; definitions in "
            "`nbs/23_scores.ipynb`. All on held-out digits and held-out colors; swaps are read by a judge trained on other images.\n\n")
    path.write_text(head + t.markdown() + f"\n\nMinutes: {minutes}. Versions: {', '.join(f'{k} {v}' for k, v in versions.items())}.\n")
    missed = sum(r[3] is False for r in t.rows)
    print(path.read_text(), f"{missed} of {sum(r[3] is not None for r in t.rows)} bars do not hold." if missed else "Every bar holds.")
    return missed
