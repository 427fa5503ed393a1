"""Run folders that earlier code wrote are still loaded, tested, predicted from and gone on with, to the same figures.

``tests/earlier/README.md`` says how they were made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from earlier.arithmetic import fingerprint
from PIL import Image, ImageStat
from running import different, state
from sklearn.datasets import load_digits

from zoo import load
from zoo.__main__ import main

EARLIER = Path(__file__).resolve().parents[1] / "earlier"
NAMES = sorted(path.parent.name for path in EARLIER.glob("*/expected.json"))
TESTED = ("classification", "deep_dream")  # by a command of its own; all are when their resumed run ends
CPU = ["--trainer.accelerator", "cpu"]
LEVEL = 2.0  # of 255, by which a picture's mean and deviation may be off where the arithmetic differs


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the runs were made: sums over several threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest) -> Path:
    """A run folder that earlier code wrote."""
    return EARLIER / request.param


def expected_of(run: Path) -> dict[str, Any]:
    """What the earlier code noted of the run."""
    return json.loads((run / "expected.json").read_text())


def results_of(folder: Path) -> dict[str, float]:
    """The figures of its test."""
    return json.loads((folder / "results.json").read_text())


@cache
def here() -> str:
    """This machine's arithmetic."""
    return fingerprint()


def same_arithmetic(run: Path) -> bool:
    """Whether this machine computes bit for bit as the one did that made the run."""
    expected = expected_of(run)
    return expected["torch"] == torch.__version__ and expected["arithmetic"] == here()


def assert_same_state(run: Path, name: str, folder: Path) -> None:
    """A checkpoint of this name is the same in both folders: to the bit, or nearly with other arithmetic."""
    wanted, found = (state(path / "checkpoints" / name) for path in (run, folder))
    if same_arithmetic(run):
        apart = different(wanted, found)
        assert not apart, f"{run.name}, {name}: these differ: {apart[:5]}"
        return
    # Not the optimisers': the history of an L-BFGS magnifies the last bits.
    wanted, found = (
        {k: v for k, v in values.items() if k.startswith("state_dict.") or k in ("global_step", "epoch")}
        for values in (wanted, found)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)


def close(value: Any, run: Path) -> Any:
    """This figure, or list or dictionary of figures and names, up to what other arithmetic changes."""
    if isinstance(value, dict):
        return {key: close(one, run) for key, one in value.items()}
    if isinstance(value, list):
        return [close(one, run) for one in value]
    return pytest.approx(value, rel=1e-5 if same_arithmetic(run) else 1e-2, abs=1e-6) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_task_of_the_zoo_has_a_run() -> None:
    assert len(NAMES) == 7


def test_loads_with_the_same_weights(run: Path) -> None:
    task = load(run / "checkpoints" / "last.ckpt")
    assert type(task).__name__ == "".join(word.capitalize() for word in run.name.split("_"))
    sums = {k: [float(t.double().sum()), float(t.double().abs().sum())] for k, t in task.state_dict().items()}
    wanted = expected_of(run)["last"]
    assert sums.keys() == wanted.keys()
    for key, values in wanted.items():
        assert sums[key] == pytest.approx(values, rel=1e-12, abs=1e-12), key


def test_goes_on_from_the_middle_to_the_same_end(run: Path, workspace: Path) -> None:
    own = workspace / run.name
    shutil.copytree(run, own)
    ends = [path.name for path in (own / "checkpoints").glob("*.ckpt") if not path.stem.startswith("step=")]
    for path in (own / "results.json", *(own / "checkpoints" / name for name in ends)):
        path.unlink()
    middle = Path(run.name) / "checkpoints" / expected_of(run)["middle"]
    assert main(["fit", "--ckpt_path", str(middle), "--trainer.logger", "false"]) == 0
    assert state(own / "checkpoints" / "last.ckpt")["global_step"] == expected_of(run)["steps"]
    for name in ends:
        assert_same_state(run, name, own)
    assert results_of(own) == close(results_of(run), run)


@pytest.mark.parametrize("name", TESTED)
def test_tests_with_the_same_figures(name: str, workspace: Path) -> None:
    run = EARLIER / name
    assert main(["test", "--ckpt_path", str(run), "--out", "test", *CPU]) == 0
    assert results_of(Path("test")) == close(expected_of(run)["test"], run)


def test_predicts_the_same(run: Path, workspace: Path) -> None:
    write_digits(Path("digits"))
    wanted = expected_of(run)["predict"]
    assert main(["predict", "--ckpt_path", str(run), "--out", "predict", *wanted["flags"], *CPU]) == 0
    rows = json.loads(Path("predict/predictions.json").read_text())
    pictures = [figures_of(Path("predict") / row.pop("picture")) for row in rows]
    found = [{**row, "name": Path(row["name"]).name} for row in rows]
    assert found == close(wanted["rows"], run)
    for ours, theirs in zip(pictures, wanted["pictures"], strict=True) if wanted["pictures"] else ():
        assert ours["size"] == theirs["size"]
        for figure in ("mean", "stddev"):
            assert ours[figure] == pytest.approx(theirs[figure], abs=1e-3 if same_arithmetic(run) else LEVEL)


def write_digits(folder: Path) -> None:
    """The pictures that the run on digits was made to predict."""
    folder.mkdir()
    for i, shades in enumerate(load_digits().images[:5]):
        Image.fromarray((shades * (255 / 16)).round().astype("uint8")).save(folder / f"{i}.png")


def figures_of(path: Path) -> dict[str, list[float]]:
    """A picture's size, and mean and deviation of its colours."""
    with Image.open(path) as picture:
        found = ImageStat.Stat(picture.convert("RGB"))
        return {"size": list(picture.size), "mean": found.mean, "stddev": found.stddev}
