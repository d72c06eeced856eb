"""Everything `pyproject.toml` declares dynamic, read from `settings.ini`; and `data/`, which a wheel carries as `iin_nb.assets`."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

extra = "_requirements"
setup(
    version=cfg["version"],
    keywords=cfg["keywords"].split(),
    classifiers=[f"Development Status :: {cfg['status']}", "Intended Audience :: Science/Research", "Framework :: Jupyter",
                 "Programming Language :: Python :: 3", "Topic :: Scientific/Engineering :: Artificial Intelligence"],
    install_requires=cfg["requirements"].split(),
    extras_require={key[:-len(extra)]: cfg[key].split() for key in cfg if key.endswith(extra)},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": ["iin_nb = iin_nb._modidx:d"]},
    packages=[*find_packages(str(here), include=["iin_nb", "iin_nb.*"]), "iin_nb.assets"],
    package_dir={"iin_nb.assets": "data"},
    package_data={"iin_nb.assets": ["*", "**/*"]},
)
