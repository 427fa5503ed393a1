"""How the tests run the command line in their own process, and compare what it leaves."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from zoo.cli import lightning
from zoo.cli.lightning import run
from zoo.errors import UserError

_quiet = lightning.quiet


def _quiet_logs_only() -> None:
    """The command line hides warnings from its users; tests are to see them."""
    with warnings.catch_warnings():
        _quiet()


lightning.quiet = _quiet_logs_only

TOYS = str(Path(__file__).parent / "toys")


def zoo(*argv: str) -> int:
    """One command, as if typed; its exit status."""
    try:
        return run([*argv])
    except UserError:
        raise
    except SystemExit as left:
        return int(left.code or 0)


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line in which a wrong command ends."""
    try:
        status = zoo(*argv)
    except UserError as error:
        text = f"zoo: error: {error}"
    else:
        assert status == 2, f"exit status {status}"
        text = capsys.readouterr().err.strip()
    assert "\n" not in text, text
    assert "Traceback" not in text
    return text


def folder_of(label: str) -> Path:
    """The newest run of this label."""
    return max((Path("runs") / label).iterdir(), key=lambda f: (f.stat().st_mtime_ns, f.name))


def quiet_trainer(**options: Any) -> Trainer:
    """A trainer for the CPU that prints and logs nothing, and trains for two epochs unless told otherwise."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(**{"accelerator": "cpu", "max_epochs": 2, "use_distributed_sampler": False, **quiet, **options})


def write_recipe(path: Path, model: dict[str, Any], data: dict[str, Any], **trainer: Any) -> Path:
    """A recipe for the CPU without a logger."""
    settings = {"accelerator": "cpu", "logger": False, "max_epochs": 2, "num_sanity_val_steps": 0, **trainer}
    path.write_text(yaml.safe_dump({"model": model, "data": data, "trainer": settings}))
    return path


def state(path: Path) -> dict[str, Any]:
    """All of a checkpoint that training depends on, flat."""
    checkpoint = torch.load(path, weights_only=True)
    found: dict[str, Any] = {}
    for key in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        _flatten(key, checkpoint.get(key), found)
    return found


def _flatten(key: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for k, v in value.items():
            _flatten(f"{key}.{k}", v, into)
    elif isinstance(value, list | tuple):
        for i, v in enumerate(value):
            _flatten(f"{key}.{i}", v, into)
    else:
        into[key] = value


def different(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """The names whose values are not identical, bit for bit."""
    names = first.keys() | second.keys()
    return sorted(n for n in names if n not in first or n not in second or not _same(first[n], second[n]))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b or (a != a and b != b)


__all__ = ["TOYS", "different", "folder_of", "quiet_trainer", "said", "state", "write_recipe", "zoo"]
