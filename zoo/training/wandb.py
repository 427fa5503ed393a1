"""W&B without an account, a prompt or a wait: offline unless there is an API key and an internet connection."""

from __future__ import annotations

import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from zoo.errors import UserError

MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # the last two are earlier names
TIMEOUT = 6.0  # seconds to wait for W&B's server before a run continues offline


def configure_wandb(folder: Path) -> str:
    """Choose W&B's mode once, before a logger is used, and keep all of its files inside the run's folder.

    Args:
        folder: the run's.

    Returns:
        ``online``, ``offline`` or ``disabled``.

    Raises:
        UserError: ``WANDB_MODE`` is none of W&B's modes.
    """
    if (asked := os.environ.get("WANDB_MODE") or "online") not in MODES:
        raise UserError(f"the environment variable WANDB_MODE is {asked!r}: give online, offline or disabled")
    # Another process's service, if a run there started this one: it would take our folder for one of its own.
    os.environ.pop("WANDB_SERVICE", None)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    for variable, name in (("CACHE_DIR", "cache"), ("DATA_DIR", "data"), ("ARTIFACT_DIR", "artifacts")):
        os.environ.setdefault(f"WANDB_{variable}", str(folder.resolve() / "wandb" / name))
    if getattr(rank_zero_only, "rank", 0):  # only the first process has a run
        return os.environ.get("WANDB_MODE", "offline")
    import wandb

    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        return mode
    if not wandb.login(prompt=False, verify=False):
        return _offline()
    server = wandb.setup().settings.base_url
    if reachable(server):
        return "online"
    print(f"W&B: {server} did not answer in {TIMEOUT:.0f} s; this run is kept offline", flush=True)
    return _offline()


def _offline() -> str:
    import wandb

    os.environ["WANDB_MODE"] = "offline"  # for the processes that Lightning starts
    wandb.setup(settings=wandb.Settings(mode="offline"))
    return "offline"


def reachable(url: str, timeout: float | None = None) -> bool:
    """Whether a server answers in time, through the environment's proxy if one is set.

    Args:
        url: the server's URL.
        timeout: seconds for the name lookup and all addresses together; default: ``TIMEOUT``.
    """
    seconds = TIMEOUT if timeout is None else timeout
    answered: list[bool] = []
    asking = threading.Thread(target=lambda: answered.append(_answers(url, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(answered and answered[0])


def _answers(url: str, timeout: float) -> bool:
    from urllib.error import HTTPError

    try:
        urlopen(url, timeout=timeout).close()
    except HTTPError:
        return True  # it answered
    except (URLError, OSError, ValueError):
        return False
    return True


def run_of(loggers: list[Any]) -> Any:
    """W&B's run among these loggers, or None. Only on the process that logs."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            return logger.experiment
    return None


def where(loggers: list[Any]) -> tuple[str, str] | None:
    """Where the run's W&B page or files are, and the command that uploads them (empty when online)."""
    run = run_of(loggers)
    return None if run is None or not getattr(run, "dir", None) else place_of(run)


def place_of(run: Any) -> tuple[str, str]:
    """The same for a W&B run. A resumed run has several parts; all of them are uploaded."""
    if getattr(run, "url", None):
        return str(run.url), ""
    shown = os.path.relpath(Path(run.dir).parent.parent)
    return shown, f"wandb sync {shlex.quote(shown)}/offline-run-*"


def finish(status: int) -> None:
    """Finish W&B's run, if there is one, so that everything is on disk when the command ends."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=status)
