"""Write constraints.txt: the versions this environment really has, of the requirements, of [dev], and of everything those need.

    python tools/constraints.py          # after the checks have passed with these versions
"""
import re
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# Tested together, on Python 3.11; made by tools/constraints.py. Use: pip install -c constraints.txt -e ".[dev]"
# A pin with a marker has no release for older Pythons, which take the newest one that fits.
"""


def canonical(name): return re.sub(r"[-_.]+", "-", name).lower()


def closure(wanted):
    "`{canonical name: distribution}` of the requirement strings `wanted` and, through installed metadata, of all that they require."
    found, stack = {}, [Requirement(r) for r in wanted]
    while stack:
        req = stack.pop()
        key = (canonical(req.name), *sorted(req.extras))
        if key in found or (req.marker and not req.marker.evaluate({"extra": ""})): continue
        try: found[key] = dist = distribution(req.name)
        except PackageNotFoundError: raise SystemExit(f"constraints: expected {req.name} to be installed. Do: make setup.") from None
        for line in dist.requires or []:
            sub = Requirement(line)
            if not sub.marker or any(sub.marker.evaluate({"extra": e}) for e in ("", *req.extras)):
                sub.marker = None
                stack.append(sub)
    return {key[0]: dist for key, dist in found.items()}


def pin(dist):
    "One line, without the local part of the version (`+cpu`) and with a marker where the oldest Python 3.10 is not supported."
    line = f"{dist.metadata['Name']}=={dist.version.partition('+')[0]}"
    python = SpecifierSet(dist.metadata.get("Requires-Python") or "")
    first = next((v for minor in (10, 11, 12) for patch in range(20) if python.contains(v := f"3.{minor}.{patch}")), "3.10.0")
    return line if first == "3.10.0" else f'{line}; python_full_version >= "{first}"'


if __name__ == "__main__":
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    cfg = config["DEFAULT"]
    dists = closure(cfg["requirements"].split() + cfg["dev_requirements"].split())
    order = sorted(dists, key=lambda name: (name != "torch", name))
    (ROOT / "constraints.txt").write_text(HEAD + "".join(f"{pin(dists[name])}\n" for name in order), encoding="utf-8")
    print(f"constraints.txt: {len(order)} pins")
