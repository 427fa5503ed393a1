"""The light commands answer without torch, within a tenth of the time that importing it takes."""

import os
import subprocess
import sys
import time
from statistics import median

import pytest

LIGHT = (["--help"], ["--version"], ["list"], ["doctor", "--quick"])
BAR = 0.1  # of the time of `import torch`
GROWTH = 1.2  # of that, with 50 plugins installed


@pytest.mark.parametrize(
    "words",
    [
        *LIGHT,
        ["completion", "bash"],
        ["completion", "--complete", "2", "zoo", "show"],
        ["completion", "--complete", "2", "zoo", "export", "--"],
        ["completion", "--complete", "2", "zoo", "measure", "--"],
        ["completion", "--complete", "2", "zoo", "check", "--"],
        ["completion", "--complete", "2", "zoo", "schema", "--"],
        ["completion", "--complete", "2", "zoo", "new-plugin", "--"],
        ["completion", "--complete", "3", "zoo", "inspect", "signal", "--"],
    ],
    ids=" ".join,
)
def test_light_commands_do_not_import_torch(words):
    program = (
        "import sys; from zoo.__main__ import main; main(sys.argv[1:])\n"
        "heavy = {'torch', 'lightning', 'timm', 'numpy', 'jsonargparse', 'rich', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    left = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert left.returncode == 0, left.stderr
    assert left.stdout


def seconds(*words: str, path: str | None = None) -> float:
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": path})}
    start = time.perf_counter()
    left = subprocess.run([sys.executable, *words], capture_output=True, env=environment, check=False)
    spent = time.perf_counter() - start
    assert left.returncode in (0, 1), left.stderr  # doctor gives 1 where something is broken
    return spent


def shares(*paths: str, rounds: int = 3) -> dict[str, list[float]]:
    """Each command's time with each PYTHONPATH, as a share of ``import torch`` just before; medians over the rounds."""
    found: dict[str, list[list[float]]] = {" ".join(words): [] for words in LIGHT}
    for _ in range(rounds):
        torch = seconds("-c", "import torch")
        for words in LIGHT:
            found[" ".join(words)].append([seconds("-m", "zoo", *words, path=path) / torch for path in paths])
    return {name: [median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def plugin(i: int) -> dict:
    text = f'"""Module {i}."""\n\nimport torch\n\n\nclass Net{i}(torch.nn.Module):\n    """Net number {i}, deep."""\n'
    return {
        "files": {
            f"plugin{i}/__init__.py": "import torch\n",
            f"plugin{i}/net.py": text + "\n    def forward(self, x):\n        return x\n" * 50,
            f"plugin{i}/recipes/net{i}.yaml": f"# Net {i} on nothing\nmodel: Net{i}\n",
        },
        "entries": {
            "architectures": {f"Net{i}": f"plugin{i}.net:Net{i}"},
            "recipes": {f"plugin-{i}": f"plugin{i}.recipes"},
        },
    }


@pytest.mark.slow
def test_light_commands_take_a_tenth_of_importing_torch_and_little_more_with_50_plugins(fake_plugin, zoo_process):
    before = os.environ.get("PYTHONPATH", "")
    for i in range(50):
        fake_plugin(f"plugin-{i}", **plugin(i))
    listed = zoo_process("list", "net").stdout
    assert all(f"Net number {i}, deep.  [plugin-{i}]" in listed and f"  net{i} " in listed for i in range(50))
    for name, (bare, full) in shares(before, os.environ["PYTHONPATH"]).items():
        assert bare <= BAR, (name, bare)
        assert full <= GROWTH * BAR, (name, full)
