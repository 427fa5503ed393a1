"""What every test stands on: few threads, no account, a folder of its own, and plugins that are written on the spot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported: several test processes share the cores, and small tensors gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "all"  # not the first of each kind alone: each is an error
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ.pop("ZOO_DEBUG", None)
if os.environ.get("ZOO_DATA"):
    os.environ["ZOO_DATA"] = str(Path(os.environ["ZOO_DATA"]).resolve())  # each test has its own working folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def repo() -> Path:
    """The checkout's folder."""
    return ROOT


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that nothing is ever written into the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    for name in ("ZOO_DEBUG", "PL_GLOBAL_SEED"):
        monkeypatch.setenv(name, "")  # so that a test that sets it leaves none behind
        monkeypatch.delenv(name)


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's empty folder, without what an earlier run in this process left in the environment."""
    for name in ("ZOO_RUN_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, "")  # so that what the test sets is taken back
        monkeypatch.delenv(name)
    return Path.cwd()


def write_distribution(
    site: Path,
    name: str = "acme-zoo",
    version: str = "1.0",
    files: dict[str, str] | None = None,
    entries: dict[str, dict[str, str]] | None = None,
) -> Path:
    """Lay an installed distribution into a folder of packages.

    Args:
        site: the folder, as ``site-packages`` would be.
        name: of the distribution.
        version: of the distribution.
        files: their texts by path below ``site``; a package's missing ``__init__.py`` is written, but not in
            folders without Python files.
        entries: targets by name by kind (``{"architectures": {"Net": "acme.net:Net"}}``).

    Returns:
        ``site``.
    """
    for path, text in (files or {}).items():
        file = site / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if file.suffix == ".py" and file.parent != site:
            for folder in [file.parent, *file.parent.parents][: len(Path(path).parts) - 1]:
                (folder / "__init__.py").touch()
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: a trap\n")
    lines = [
        line
        for kind, points in (entries or {}).items()
        for line in (f"[zoo.{kind}]", *(f"{point} = {target}" for point, target in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


@pytest.fixture
def fake_plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """Write and "install" distributions for this test: here, and for the processes that it starts.

    Called as ``write_distribution``, the folder left out (or given as ``site``, where it is one of one's own); several
    calls install several plugins. Their modules are forgotten afterwards.
    """
    from zoo import registry

    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))

    def install(name: str = "acme-zoo", site: Path = site, **what: object) -> Path:
        write_distribution(site, name, **what)  # type: ignore[arg-type]
        import importlib

        importlib.invalidate_caches()
        registry.clear()
        return site

    yield install
    for module, loaded in list(sys.modules.items()):
        if str(getattr(loaded, "__file__", None) or "").startswith(str(site)):
            del sys.modules[module]
    monkeypatch.undo()
    registry.clear()


@pytest.fixture
def zoo_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own: ``zoo_process("list", "parts")``."""

    def run(*words: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "zoo", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
            check=False,
        )

    return run
