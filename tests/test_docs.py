"""The documentation says what is so: its commands exist, its links lead somewhere, its catalogue is complete."""

import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from running import folder_of, zoo

from zoo import registry, results
from zoo.__main__ import main
from zoo.cli import measure, verbs
from zoo.testing.runner import entries_of

ROOT = Path(__file__).parent.parent
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if not {"_build", "catalogue"} & set(p.parts[-3:]))
PAGES = [ROOT / "README.md", *PAGES]
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What the pages call by an invented name, and what stands for it here.
INVENTED = {"FlowersNet": "AlexNet", "zoo-flowers": "lightning-zoo"}
RUN = "runs/alexnet/20260101-120000"


def commands() -> list[tuple[str, list[str]]]:
    """Page and words of every command that begins with ``zoo`` in a shell block."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
                if words[:1] == ["zoo"]:
                    found.append((str(page.relative_to(ROOT)), words[1:]))
    return found


def unique(*names: str) -> list[list[str]]:
    return [list(w) for w in dict.fromkeys(tuple(words) for _, words in commands() if words[0] in names)]


TRAINING = unique("fit", "validate", "test", "predict")


def test_there_are_commands_of_every_kind():
    plugins = [tomllib.loads(file.read_text())["project"] for file in ROOT.glob("plugins/*/pyproject.toml")]
    added = {verb for project in plugins for verb in project["entry-points"].get("zoo.commands", ())}
    assert "study" in added
    assert {words[0] for _, words in commands()} - set(verbs.OWN) - added <= {"--help", "--version"}
    assert {words[0] for _, words in commands()} >= {*verbs.OWN, *added}
    assert len(TRAINING) > 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run of the main recipe, where the pages' commands find their files."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sizes = ["--model.architecture.width", "0.05", "--data.image_size", "32", "--data.resize", "36"]
        assert zoo("fit", "--config", "alexnet", "--config", "trainer/debug", "--trainer.logger", "false", *sizes) == 0
        made = folder_of("alexnet")
        made.rename(RUN)
        shutil.copy(Path(RUN) / "checkpoints" / "best.ckpt", "best.ckpt")
    return folder


@pytest.mark.parametrize("words", TRAINING, ids=" ".join)
def test_training_commands_parse(words, checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(checkpoint)
    here = {"zoo-flowers": "alexnet", "recipes/alexnet.yaml": str(ROOT / "recipes" / "alexnet.yaml")}
    words = [here.get(word, word) for word in words]
    words = [word for word in words if word != "--print_config"]
    assert zoo(*words, "--print_config") == 0, capsys.readouterr().err
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"]


def test_print_config_refuses_what_does_not_exist(checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(checkpoint)
    for wrong in (["--model.architecture.widht", "1"], ["--trainer.max_epoch", "1"], ["--no-tests"]):
        assert zoo("fit", "--config", "alexnet", *wrong, "--print_config") == 2


@pytest.mark.parametrize("words", unique("list", "show", "completion", "--help", "--version"), ids=" ".join)
def test_light_commands_run(words, capsys):
    assert main([INVENTED.get(word, word) for word in words]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("words", unique("doctor", "check", "export", "schema", "measure", "new-plugin"), ids=" ".join)
def test_flags_and_names_of_other_commands_exist(words, capsys):
    command, *rest = words[: words.index("--")] if "--" in words else words
    with contextlib.suppress(SystemExit):  # argparse leaves so
        main([command, "--help"])
    help_ = capsys.readouterr().out
    for flag in (word.partition("=")[0] for word in rest if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}\b", help_), flag
    names = [INVENTED.get(word, word) for word in rest if not word.startswith("-")]
    if command == "check":
        assert entries_of(names)
    if command == "measure":
        assert [registry.find_recipe(name) for name in measure.parser().parse_args(rest).recipes] or "--table" in rest


@pytest.fixture(scope="module")
def generated():
    """Names of the pages that are made."""
    return set(generate().all_pages([]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page, generated):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / file).resolve() if file else page
        made = ROOT / "docs" / "catalogue"
        if path.is_relative_to(made):
            assert path.relative_to(made).as_posix() in generated, target
        else:
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def generate():
    """The module that makes the generated pages."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_catalogue_covers_every_entry_with_all_its_arguments(tmp_path):
    made = generate()
    made.write_all(tmp_path / "catalogue", tmp_path / "results")
    for entry in registry.entries():
        page = (tmp_path / "catalogue" / made.page_of(entry)).read_text()
        index = (tmp_path / "catalogue" / f"{entry.kind}.md").read_text()
        assert made.page_of(entry) in index
        assert page.startswith(f"# {entry.name}\n")
    for recipe in registry.recipes():
        assert recipe.path.read_text().rstrip() in (tmp_path / "catalogue" / made.page_of_recipe(recipe)).read_text()
    page = (tmp_path / "catalogue" / "architectures" / "AlexNet.md").read_text()
    assert "Krizhevsky" in page
    assert "| `width` | `float` | `1.0` | factor on every hidden layer's channels" in page
    assert "(../recipes/alexnet.md)" in page


def test_results_are_shown_from_their_rows(tmp_path):
    row = {
        "recipe": "alexnet",
        "command": "zoo fit --config alexnet",
        "seeds": [0, 1],
        "figures": {"test/top1": results.summary([0.98, 0.99]), "test/top1/7": results.summary([0.5, 0.5])},
        "duration": results.summary([100.0, 140.0]),
        "hardware": {"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 2, "memory_gib": 8, "gpu": None},
        "versions": {"python": "3.11"},
        "commit": "abc",
        "date": "2026-01-01",
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "alexnet.json").write_text(json.dumps(row))
    generate().write_all(tmp_path / "catalogue", tmp_path / "results")
    for name in ("_measured.md", "recipes/alexnet.md", "architectures/AlexNet.md"):
        page = (tmp_path / "catalogue" / name).read_text()
        assert (
            "| `zoo fit --config alexnet` | `test/top1` | 0.9850 ± 0.0071 | 0, 1 | 2:00 | Intel Xeon, 2 cores |" in page
        )
        assert "test/top1/7" not in page


def test_tables_that_pages_include_are_made(tmp_path):
    generate().write_all(tmp_path, ROOT / "docs" / "results")
    included = {
        name for page in PAGES for name in re.findall(r"catalogue/(_\w+\.md)", page.read_text(encoding="utf-8"))
    }
    for name in included:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "\n| " in text or text == "Nothing has been measured yet.\n", name
    assert "| DenseNet-121, memory saved |" in (tmp_path / "_memory_saved.md").read_text(encoding="utf-8")


def test_the_table_of_commands_is_the_commands():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for line in generate().command_table().splitlines()[2:]:
        name = re.match(r"\| \[`zoo ([\w-]+)`\]\(#(.*?)\) \|", line)
        assert name[1] in verbs.OWN
        assert name[2] in anchors(ROOT / "docs" / "commands.md"), line
    assert "catalogue/_commands.md" in text


def test_rows_of_one_recipe_are_compared():
    common = {
        "duration": results.summary([100.0]),
        "hardware": {"cpu": "Intel(R) Xeon(R) CPU", "cores": 2, "memory_gib": 8, "gpu": None},
        "versions": {"python": "3.11"},
    }
    figures = {name: results.summary([value]) for name, value in (("a/x", 0.2), ("a/x_start", 0.8), ("a/y", 3.0))}
    rows = [
        {"recipe": "mine", "command": "zoo fit --config mine", "figures": figures, **common},
        {"recipe": "mine", "command": "zoo test", "figures": {"a/x": results.summary([0.5])}, **common},
        {"recipe": "other", "command": "zoo fit --config other", "figures": figures, **common},
    ]
    page = generate().comparison(rows, "mine")
    assert "| `zoo fit --config mine` | 0.2 from 0.8 | 3 | 1:40 on Intel Xeon, 2 cores |" in page
    assert "| `zoo test` | 0.5 |  | 1:40 on Intel Xeon, 2 cores |" in page
    assert "other" not in page


def test_figures_are_not_typed_by_hand():
    """Accuracies stand in rows, and nowhere in the pages.

    Of the two pages left out, one has constants that another test holds to the code, one has published figures.
    """
    for page in PAGES[1:]:
        if page.name in ("initialisation.md", "residual.md"):
            continue
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"\b\d\d\.\d+ ?%|\b0\.\d{3,}\b", re.sub(r"`[^`]*`", "", text)), page


def test_the_sweeps_command_runs():
    sweep = yaml.safe_load((ROOT / "docs" / "sweeps" / "alexnet.yaml").read_text())
    assert sweep["metric"]["name"] == "val/top1"
    first = {name: values.get("values", [values.get("max")])[-1] for name, values in sweep["parameters"].items()}
    args = [f"--{name}={value}" for name, value in first.items()]  # as W&B's agent writes them
    command = [word for part in sweep["command"] for word in (args if part == "${args}" else [part])]
    assert command[0] == "zoo"
    short = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"]
    assert zoo(*command[1:], *short, "--trainer.logger", "false", "--model.architecture.width", "0.05") == 0
    recipe = yaml.safe_load((folder_of("alexnet") / "recipe.yaml").read_text())
    model = recipe["model"]["init_args"]
    assert model["optimizer"]["init_args"]["weight_decay"] == first["model.optimizer.weight_decay"]
    assert model["scheduler"]["init_args"]["max_lr"] == first["model.scheduler.max_lr"]
    assert model["architecture"]["init_args"]["dropout"] == first["model.architecture.dropout"]


def test_the_readmes_two_commands_stand_alone():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, says in (("run", "zoo fit --config recipes/alexnet.yaml"), ("test", "pytest -n auto")):
        (block,) = re.findall(rf"^<!-- ci: {name} -->\n```sh\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
        assert "\n" not in block
        assert block.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install")
        assert block.endswith(says)


def test_the_readmes_table_has_every_task_and_real_recipes():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    ours = [e.name for e in registry.entries() if e.kind == "tasks" and e.package == "lightning-zoo"]
    assert [name for name, _ in rows] == ours
    for _, recipes in rows:
        assert [registry.find_recipe(name) for name in re.findall(r"`([^`]+)`", recipes)]


def test_the_readme_prints_what_was_measured():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = json.loads((ROOT / "docs/results/alexnet.json").read_text())
    figure = dict(zip(row["seeds"], row["figures"]["test/top1"]["values"], strict=True))[0]
    assert f"\ntest/top1 {figure:.4f}\n" in text
    epochs = yaml.safe_load(registry.find_recipe("alexnet").read_text())["trainer"]["max_epochs"]
    assert f"\nepoch {epochs}/{epochs} " in text


def test_the_notebooks_cells_run(workspace):
    cells = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "howto" / "notebook.md").read_text(), re.DOTALL)
    values, scores = {}, []
    for cell in cells:
        exec(cell, values)
        scores.append(float(values["trainer"].callback_metrics.get("val/top1", 0)))
    assert values["results"][0][0].label == values["again"].facts["class_names"][values["results"][0][0].index]
    images = values["images"]
    assert torch.equal(values["again"](images), values["task"](images))
    assert max(scores) > 0.8
