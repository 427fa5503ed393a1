"""What ``pyproject.toml`` can't say: the packages are those found below ``zoo``, and ``recipes`` as ``zoo.recipes``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["zoo", "zoo.*"]), "zoo.recipes"],
    package_dir={"zoo": "zoo", "zoo.recipes": "recipes"},
)
