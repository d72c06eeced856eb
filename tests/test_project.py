"""The repository holds together: one home for each setting, one notebook for each module, arrows in one direction, nothing stale."""
import ast
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path

import pytest

if sys.version_info >= (3, 11): import tomllib
else: tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
NBS, LIB, DATA = ROOT / "nbs", ROOT / "iin_nb", ROOT / "data"
HEAVY = "plotly", "ipywidgets", "anywidget", "umap", "pandas", "sklearn", "matplotlib", "SALib"
LAZY_BELOW = 40  # notebooks below this number hold no figure and no widget: importing their modules loads nothing heavy
SECONDS = 0.3  # that `import iin_nb` may add to `import torch`


@pytest.fixture(scope="module")
def settings():
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


@pytest.fixture(scope="module")
def pyproject(): return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def tool(monkeypatch):
    "A script of tools/ as a module."
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module


def notebooks():
    found = (p for p in NBS.rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts))
    return sorted(found)


def relative(path): return path.relative_to(ROOT).as_posix()


@lru_cache
def cells(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell): return "".join(cell["source"])


@lru_cache
def homes():
    "`{dotted module below iin_nb: (number, notebook)}`, by the `#| default_exp` and the file name of each notebook."
    found = {}
    for path in notebooks():
        text = "\n".join(source(c) for c in cells(path) if c["cell_type"] == "code")
        if said := re.search(r"^#\|\s*default_exp\s+(\S+)", text, flags=re.M):
            found[said[1]] = (int(re.match(r"\d*", path.name)[0] or -1), path)
    return found


def modules():
    "`{dotted name below iin_nb: path}` of what notebooks are meant to write."
    paths = (p for p in LIB.rglob("*.py") if not p.name.startswith("_"))
    return {p.relative_to(LIB).with_suffix("").as_posix().replace("/", "."): p for p in sorted(paths)}


def run(code, **kw): return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, **kw)


# ---- one home for each setting

def test_settings_and_pyproject_agree(settings, pyproject):
    project = pyproject["project"]
    assert project["name"] == settings["lib_name"]
    assert project["description"] == settings["description"]
    assert project["requires-python"] == f">={settings['min_python']}"
    assert project["license"] == settings["license"]
    assert [a["name"] for a in project["authors"]] == [settings["author"]]
    assert pyproject["tool"]["nbdev"]["lib_path"] == settings["lib_path"] and pyproject["tool"]["nbdev"]["nbs_path"] == settings["nbs_path"]


def test_what_settings_own_is_dynamic_elsewhere(pyproject):
    owned = {"version", "keywords", "dependencies", "optional-dependencies", "scripts", "entry-points"}
    assert owned <= set(pyproject["project"]["dynamic"])
    assert not owned & (pyproject["project"].keys() - {"dynamic"})


def test_version_has_one_home(settings):
    import iin_nb
    assert iin_nb.__version__ == settings["version"], "the installed metadata is old. Do: make setup (or pip install -e .)"
    assert settings["version"] not in (LIB / "__init__.py").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {settings['version']}" in changes, "CHANGELOG.md says nothing about this version"


def test_requirements_are_pinned(settings):
    def names(lines): return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", r)[0]).lower() for r in lines}
    pins = names(line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#")
    wanted = names(settings["requirements"].split() + settings["dev_requirements"].split())
    assert not wanted - pins, f"constraints.txt has no pin for {sorted(wanted - pins)}. Do: make constraints"


# ---- one notebook for each module

def test_every_module_has_its_notebook():
    assert modules().keys() == homes().keys(), "modules and the default_exp of notebooks differ"


def test_every_room_has_its_own_number():
    taken = {}
    for name, (number, path) in homes().items():
        assert number >= 0, f"{relative(path)}: expected a name that starts with a number, since it exports {name}"
        assert number not in taken, f"{relative(path)} and {relative(taken[number])} share a number: which may import which?"
        taken[number] = path


def test_front_page_of_the_package_lists_what_exists():
    import iin_nb
    top = {name.partition(".")[0] for name in homes()}
    assert not top - set(iin_nb._modules), f"iin_nb/__init__.py does not open {sorted(top - set(iin_nb._modules))}"
    if missing := [m for m in iin_nb._modules if m not in top]: pytest.skip(f"not written yet: {', '.join(missing)}")


@pytest.mark.parametrize("name", ["explain", "load", "Explanation"])
def test_front_door_opens(name):
    import iin_nb
    if "explanation" not in homes(): pytest.skip("nbs/14_explanation.ipynb is not written yet")
    assert callable(getattr(iin_nb, name))


def test_export_is_in_step(tool):
    found = tool("check_export").differences()
    assert not found, "\n".join([*found, "Do: nbdev-export"])


def test_readme_is_in_step(tool):
    if not (NBS / "index.ipynb").exists(): pytest.skip("nbs/index.ipynb is not written yet")
    found = tool("readme").differences()
    assert not found, f"{found}. Do: make readme"


# ---- arrows

def imported(path, name):
    "Line and dotted target, below iin_nb, of every import of our own in a module, those inside functions too."
    package = ["iin_nb", *name.split(".")[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): targets = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{base}.{a.name}" for a in node.names]
        else: continue
        yield from ((node.lineno, t.partition(".")[2]) for t in targets if t.partition(".")[0] == "iin_nb")


def room(target):
    "The longest start of a dotted name that is a module: `core.HostError` is in `core`."
    parts = target.split(".")
    return next((".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in homes()), None)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_only_from_rooms_above(name):
    if name not in homes(): pytest.skip("no notebook, which test_every_module_has_its_notebook says")
    number, wrong = homes()[name][0], []
    for line, target in imported(modules()[name], name):
        if not (other := room(target)): wrong.append(f"line {line}: imports {target or 'iin_nb'}, which is no room: name the module")
        elif homes()[other][0] >= number: wrong.append(f"line {line}: imports {other} ({homes()[other][0]}) from {number}")
    assert not wrong, "\n".join(wrong)


def test_the_arrow_test_sees_every_kind_of_import(tmp_path):
    (tmp_path / "m.py").write_text(textwrap.dedent("""
        from iin_nb import core
        import iin_nb.flow as f
        from .fit import train
        from . import data
        def g():
            from ..hosts import tap
        """))
    found = [target for _, target in imported(tmp_path / "m.py", "explorers.m")]
    assert found == ["core", "flow", "explorers.fit.train", "explorers.data", "hosts.tap"]


def exported(path):
    "The names in a module's `__all__`."
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__": return ast.literal_eval(node.value)
    return []


def test_no_module_shares_its_name_with_a_public_function():
    "In one package, `embed` cannot be both the room and what is done in it: whoever is imported last wins."
    beside = {}
    for name in modules():
        package, _, own = name.rpartition(".")
        beside.setdefault(package, set()).add(own)
        if package: beside.setdefault("", set()).add(package.partition(".")[0])
    clash = [f"{name}.{f}" for name, path in modules().items() for f in exported(path) if f in beside[name.rpartition(".")[0]]]
    import iin_nb
    assert not [*clash, *(beside.get("", set()) & iin_nb._front.keys())]


# ---- what importing costs

def test_importing_is_cheap():
    code = "import time, torch; t = time.perf_counter(); import iin_nb; print(time.perf_counter() - t)"
    seconds = min(float(run(code, check=True).stdout) for _ in range(3))
    assert seconds <= SECONDS, f"import iin_nb takes {seconds:.2f} s beyond import torch"


def test_importing_loads_nothing_heavy():
    code = f"import sys, iin_nb; dir(iin_nb), iin_nb.__version__; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code, check=True).stdout.strip() == "[]"


def test_rooms_without_figures_load_nothing_heavy():
    names = [f"iin_nb.{name}" for name, (number, _) in homes().items() if number < LAZY_BELOW and name in modules()]
    if not names: pytest.skip("no module is written yet")
    code = f"""
        import importlib, sys
        for name in {names}:
            importlib.import_module(name)
            if found := [m for m in {HEAVY} if m in sys.modules]: sys.exit(f"{{name}} loads {{found}} when imported")
        """
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_attribute_errors():
    import iin_nb
    with pytest.raises(AttributeError, match="no_such_room"): _ = iin_nb.no_such_room
    assert {"core", "explain", "__version__"} <= set(dir(iin_nb))


# ---- notebooks

@pytest.mark.parametrize("path", notebooks(), ids=relative)
def test_notebook_is_clean(path):
    ids = [c.get("id") for c in cells(path)]
    assert all(ids) and len(set(ids)) == len(ids), "a cell without an id of its own: two exports would differ. Do: nbdev-clean"
    for cell in cells(path):
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", f"cell {cell['id']} has a saved error: {output.get('ename')}: {output.get('evalue')}"
            assert output.get("execution_count") is None, "execution counts are saved. Do: nbdev-clean"
            dead = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
            assert not dead, f"cell {cell['id']} has a saved widget without its kernel. Do: python tools/still.py {relative(path)}"


# ---- data

def test_data_is_what_its_registry_says():
    "`data/registry.json` has `{file: {sha256, origin, licence, recipe}}` for each file that stands there."
    registry = json.loads((DATA / "registry.json").read_text(encoding="utf-8"))
    files = {p.relative_to(DATA).as_posix(): p for p in DATA.rglob("*") if p.is_file() and not p.name.startswith(".")}
    for name in ("README.md", "registry.json"): files.pop(name, None)
    assert files.keys() == registry.keys()
    for name, path in files.items():
        said = registry[name]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"], f"data/{name} is not what its registry describes"
        assert all(said.get(key) for key in ("origin", "licence", "recipe")), f"data/{name}: origin, licence or recipe is missing"


# ---- the wheel

def test_wheel_through_sdist_carries_the_data(tmp_path, settings):
    "Built from a copy, without isolation: no network, and nothing left behind here."
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "nbs", "build", "dist", "*.egg-info", "__pycache__", "demo-report"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"iin_nb/assets/{p.relative_to(DATA).as_posix()}" for p in DATA.rglob("*") if p.is_file() and not p.name.startswith(".")}
    wanted |= {f"iin_nb/{p.relative_to(LIB).as_posix()}" for p in LIB.rglob("*.py")}
    assert not wanted - names
    assert wheel.name.startswith(f"iin_nb-{settings['version']}-")
    assert all(name.startswith(("iin_nb/", "iin_nb-")) for name in names)


# ---- measured

def test_the_front_page_quotes_what_was_measured():
    "Each row of its table of results stands word for word in benchmarks/RESULTS.md; that file says of each bar whether it holds."
    quoted = re.findall(r"^\| .* \| (?:yes|\*\*no\*\*|) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    measured = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8").splitlines()
    assert len(quoted) > 9 and not set(quoted) - set(measured)
