"""The studies: figures from made-up rows against closed forms, going on after an interruption, and tiny real runs."""

import importlib.util
import json
import math
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
import zoo_studies
from torch.optim import SGD
from zoo_studies import book, depth, depth_page, ingredients, ingredients_page, main, training
from zoo_studies.book import ResultsFile
from zoo_studies.pages import mean_and_spread

from zoo import registry
from zoo.architectures.preact_resnet import DEEPEST_OF_PAIRS, PreActResNet
from zoo.architectures.resnet import ResNet, cifar_blocks
from zoo.data.cifar import CIFAR10
from zoo.data.digits import Digits
from zoo.data.transforms import FlipEach
from zoo.errors import UserError
from zoo.insight.signal import evenly
from zoo.tasks.classification import Classification

TINY = depth.Settings(
    depths=(8,), seeds=(0,), signal_depths=(8,), deep=(), epochs=1, images=40, image_size=8, precision="32-true"
)


def said(*words: str) -> str:
    with pytest.raises(UserError) as found:
        main(list(words))
    assert "\n" not in str(found.value)
    return str(found.value)


# Figures of made-up rows


def test_epochs_to_an_error_are_interpolated_between_the_middles_of_epochs():
    # 0.9 at 0, 0.5 at 0.5, 0.3 at 1.5, 0.2 at 2.5: 0.25 lies halfway between the last two.
    assert training.epochs_to([0.5, 0.3, 0.2], 0.25, 0.9) == pytest.approx(2.0)
    assert training.epochs_to([0.1], 0.5, 0.9) == pytest.approx(0.25)
    assert training.epochs_to([0.5, 0.3], 0.25, 0.9) is None
    assert training.epochs_to([0.2, 0.4], 0.25, 0.9) < 0.5, "the first time counts"


def test_differences_have_their_95_percent_intervals():
    # Two variances of 1, three values each: a standard error of sqrt(2/3), four degrees of freedom, t = 2.776.
    gap, half = ingredients_page.difference([2.0, 3.0, 4.0], [0.0, 1.0, 2.0])
    assert gap == pytest.approx(2.0)
    assert half == pytest.approx(2.776 * math.sqrt(2 / 3), rel=1e-3)
    assert math.isnan(ingredients_page.difference([1.0], [2.0])[1])
    # A variance of 1 in three values: sqrt(1/3), two degrees of freedom, t = 4.303.
    assert ingredients_page.gain([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.303 * math.sqrt(1 / 3)), rel=1e-3)
    assert math.isnan(ingredients_page.gain([1.0])[1])


@pytest.mark.parametrize(
    ("gap", "half", "says"),
    [(1.0, 0.9, "helps"), (-1.0, 0.9, "harms"), (1.0, 1.1, "within the noise"), (1.0, math.nan, "one seed")],
)
def test_verdict_asks_whether_the_interval_has_0_in_it(gap, half, says):
    assert ingredients_page.verdict(gap, half) == says


def run(without: str, seed: int, ten: float, one: float, seen: float) -> dict:
    errors = {"ten_error": ten, "one_error": one, "train_error": seen}
    return {"without": without, "seed": seed, **errors, "seconds": 30.0, "condition": 0}


PARTS = [
    run(ingredients_page.WHOLE, 0, 0.30, 0.32, 0.20),
    run(ingredients_page.WHOLE, 1, 0.32, 0.36, 0.22),
    run("dropout", 0, 0.35, 0.36, 0.05),
    run("dropout", 1, 0.37, 0.40, 0.07),
]


def test_effects_compare_networks_by_ten_crops_and_the_crops_by_seed():
    found = ingredients_page.effects(PARTS)
    # Variances of 2e-4, two values each: a standard error of sqrt(2e-4), two degrees of freedom, t = 4.303.
    assert found["dropout"] == pytest.approx((5.0, 4.303 * 100 * math.sqrt(2e-4)), rel=1e-3)
    # Gains of 2 and 4 points: mean 3, standard error 1, one degree of freedom, t = 12.71.
    assert found["ten crops averaged"] == pytest.approx((3.0, 12.71), rel=1e-3)
    text = ingredients_page.parts_table(PARTS)
    assert "| dropout | 36.0 ± 1.4 | 38.0 ± 2.8 | 6.0 ± 1.4 | 32.0 ± 1.4 | +5.00 ± 6.0" in text
    assert "| ten crops averaged |  |  |  |  | +3.00 ± 12.71 | within the noise |" in text
    assert "| +5.00 | one seed |" in ingredients_page.parts_table(PARTS[::2])


def test_the_best_rate_is_the_fastest_with_the_first_seed():
    def row(rate: float, seed: int, errors: list[float]) -> dict:
        return {"activation": "relu", "lr": rate, "seed": seed, "errors": errors}

    slow, fast, stuck = [0.6, 0.5, 0.2], [0.5, 0.2], [0.9, 0.9]  # the level lies halfway before each last one
    runs = [row(0.01, 0, slow), row(0.1, 0, stuck)]
    assert ingredients_page.best_rate(runs, "relu") == 0.01
    runs += [row(0.03, 0, fast), row(0.03, 1, slow)]
    assert ingredients_page.best_rate(runs, "relu") == 0.03
    assert ingredients_page.best_rate(runs, "tanh") is None
    assert ingredients_page.best_rate([], "relu") is None
    assert "| relu | 2.00 | 1.50 ± 0.71 | – | 0.03 |" in ingredients_page.race_table(runs)


def test_what_is_left_of_a_signal_is_the_other_end_over_its_own():
    signal = {"activation": [2.0, 7.0, 1.0], "gradient": [6.0, 7.0, 3.0]}
    assert depth_page.left_over(signal) == (0.5, 2.0)
    assert depth_page.left_over({"activation": [2.0, None], "gradient": [0.0, 3.0]}) == (None, 0.0)


def test_a_table_by_depth_has_means_and_spreads_and_marks_what_is_missing():
    def row(network: str, layers: int, seed: int, accuracy: float | None) -> dict:
        return {"network": network, "depth": layers, "seed": seed, "accuracy": accuracy}

    runs = [row("plain", 8, 0, 0.5), row("plain", 8, 1, 0.7), row("plain", 20, 0, None), row("residual", 20, 0, 0.9)]
    text = depth_page.by_depth({"runs": runs}, "accuracy", 1, 100)
    assert text.splitlines()[0] == "| layers | 8 | 20 |"
    assert "| plain | 60.0 ± 14.1 | – |" in text
    assert "| residual | – | 90.0 |" in text


def test_means_are_given_only_where_every_seed_has_a_number():
    assert mean_and_spread([0.1, 0.3], 1, 100) == "20.0 ± 14.1"
    assert mean_and_spread([0.1], 1, 100) == "10.0"
    assert mean_and_spread([0.1, None], 1) == "–"
    assert mean_and_spread([], 1) == "–"


# The file of rows


def test_a_finished_run_is_not_worked_out_again(tmp_path):
    work = []
    for _ in range(2):  # the second as another process would
        kept = ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {"epochs": 1})
        row = kept.once({"network": "plain", "seed": 0}, lambda: work.append(1) or {"loss": 1 / 3})
        assert row["loss"] == 0.33333
    kept.once({"network": "plain", "seed": 1}, lambda: work.append(2) or {"loss": math.nan})
    assert work == [1, 2]
    rows = json.loads((tmp_path / "a.json").read_text())["runs"]  # plain JSON, which has no NaN
    assert [row["loss"] for row in rows] == [0.33333, None]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_an_interrupted_run_leaves_the_finished_ones(tmp_path):
    def interrupted() -> dict:
        raise KeyboardInterrupt

    kept = ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {})
    kept.once({"seed": 0}, lambda: {"loss": 1.0})
    with pytest.raises(KeyboardInterrupt):
        kept.once({"seed": 1}, interrupted)
    assert [row["seed"] for row in book.read(tmp_path / "a.json")["runs"]] == [0]


def test_other_settings_and_damaged_files_are_refused(tmp_path):
    ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {"rates": (0.1, 0.2)}).write()
    ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {"rates": (0.1, 0.2)})  # tuples are lists there
    with pytest.raises(UserError, match="other settings"):
        ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {"rates": (0.1,)})
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match="no rows of a study"):
        ResultsFile(tmp_path / "b.json", "zoo study a", "About.", {})


def test_rows_say_what_they_were_measured_with(tmp_path):
    kept = ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {})
    kept.once({"seed": 0}, lambda: {"loss": 1.0})
    text = book.conditions(kept.content)
    assert text.startswith("1 runs on ")
    assert f"torch {torch.__version__.partition('+')[0]}" in text
    assert text.endswith("Again: `zoo study a`.")
    assert str(Path.home()) not in (tmp_path / "a.json").read_text()


# Training


def task_of(**changes) -> Classification:
    return Classification(partial(ResNet, depth=8, width=0.25), optimizer=partial(SGD, lr=0.05), **changes)


def test_a_curve_is_the_mean_over_all_of_an_epochs_images():
    losses, sizes = [], []

    class Noting(Classification):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()))
            sizes.append(len(batch[1]))
            return loss

    task = Noting(partial(ResNet, depth=8, width=0.25), optimizer=partial(SGD, lr=0.05))
    data = Digits(batch_size=500, val_fraction=0.5)
    _, curve = training.train(task, data, 2, seed=0)
    half = len(losses) // 2
    assert len(set(sizes)) > 1, "the last batch is smaller, so that a mean of batches would be wrong"
    for epoch in range(2):
        rows = slice(epoch * half, (epoch + 1) * half)
        mean = sum(n * v for n, v in zip(sizes[rows], losses[rows], strict=True)) / sum(sizes[rows])
        assert curve.losses[epoch] == pytest.approx(mean, rel=1e-5)
    assert all(0 <= error <= 1 for error in curve.errors)


def test_training_ends_at_the_error_that_was_asked_for_and_depends_on_the_seed_alone():
    data = partial(Digits, batch_size=500, val_fraction=0.5)
    assert len(training.train(task_of(), data(), 4, seed=0, until=1.0)[1].losses) == 1
    first, again, other = (training.train(task_of(), data(), 1, seed=s)[1].losses for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_watched_data_validates_on_its_training_images():
    plain, watched = Digits(val_fraction=0.5), training.watching(Digits)(val_fraction=0.5)
    for data in (plain, watched):
        data.setup()
    assert type(watched).__name__ == "Digits"
    images = {split: watched.samples(split).fetch(torch.arange(5))[0] for split in ("train", "val", "test")}
    assert torch.equal(images["val"], images["train"])
    assert torch.equal(images["train"], plain.samples("train").fetch(torch.arange(5))[0])
    assert torch.equal(images["test"], plain.samples("test").fetch(torch.arange(5))[0])


# The depth study


def test_depth_study_goes_on_where_it_was_and_writes_its_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(depth, "QUICK", TINY)
    few = dict(list(depth.FAMILIES.items())[2:4])
    monkeypatch.setattr(depth, "FAMILIES", few)
    assert main(["depth", "--quick", "--out", str(tmp_path)]) == 0
    rows = book.read(tmp_path / "depth.json")["runs"]
    assert [(r["network"], "signal" in r, r.get("seed")) for r in rows] == [
        *((name, True, None) for name in few),
        *((name, False, 0) for name in few),
    ]
    assert {p.name for p in tmp_path.iterdir()} == {
        "depth.json",
        "depth.md",
        "depth-accuracy.png",
        "depth-loss.png",
        "depth-signal.png",
    }
    assert all(f"| {name} |" in (tmp_path / "depth.md").read_text() for name in few)
    monkeypatch.setattr(depth, "train_one", lambda *_: pytest.fail("a finished run was trained again"))
    assert main(["depth", "--quick", "--out", str(tmp_path)]) == 0
    assert book.read(tmp_path / "depth.json")["runs"] == rows
    monkeypatch.setattr(depth, "QUICK", replace(TINY, epochs=2))
    assert "other settings" in said("depth", "--quick", "--out", str(tmp_path))


def test_signals_of_residual_networks_are_those_of_their_sums():
    torch.manual_seed(0)
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    network = PreActResNet(4, 1, depth=8, width=0.25)
    seen = []
    network.layer1[0].register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    found = depth.signal(network, images, labels)
    assert found["position"][0] == 0.0
    assert found["position"][-1] == 1.0
    assert len(found["activation"]) == 5  # the first convolution, three blocks, the logits
    assert found["activation"][1] == pytest.approx(float(seen[0].var(correction=0)), rel=1e-4)


def test_without_care_the_signal_is_lost_and_with_care_it_is_not():
    settings = replace(TINY, image_size=16)
    lost, kept = (depth.signal_of(depth.FAMILIES[name], 20, settings) for name in list(depth.FAMILIES)[:2])
    assert depth_page.left_over(lost["signal"])[1] < 1e-20
    assert 1e-3 < depth_page.left_over(kept["signal"])[1] < 1e3


@pytest.mark.parametrize(("count", "most"), [(5, 60), (60, 60), (1001, 60)])
def test_points_are_spread_evenly_with_both_ends(count, most):
    places = evenly(count, most)
    assert (places[0], places[-1], len(places)) == (0, count - 1, min(count, most))
    steps = {b - a for a, b in pairwise(places)}
    assert max(steps) - min(steps) <= 1


def test_the_plan_has_every_family_at_every_depth_and_only_skips_beyond():
    settings = depth.Settings(depths=(8, 14), seeds=(3, 4), deep=(218,))
    planned = depth.plan(settings)
    assert len(planned) == len(set(planned)) == 2 * 2 * 5 + 2
    assert planned[-2:] == [(218, 3, "residual"), (218, 3, "identity skips")]
    real = depth.Settings()
    assert min(real.depths) <= 8
    assert max(real.depths) > 100
    for layers in (*real.depths, *real.deep):  # raises where there is no such network
        cifar_blocks("ResNet", layers)
        cifar_blocks("PreActResNet", layers, 2 if layers <= DEEPEST_OF_PAIRS else 3)
    cifar_blocks("ResNet", depth.FAMILIES["residual"].thousand)
    cifar_blocks("PreActResNet", depth.FAMILIES["identity skips"].thousand, 3)


def test_the_papers_depths_are_trained_by_their_recipes(tmp_path, monkeypatch, capsys):
    assert "cifar-10-batches-py has no data_batch_1" in said("depth", "--full", "--root", str(tmp_path))
    CIFAR10.write_example(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs a GPU" in said("depth", "--full", "--root", str(tmp_path))
    assert "goes with --full" in said("depth", "--root", str(tmp_path))
    calls = []

    def measured(recipe: str, seeds: list[int], flags: list[str]) -> dict:
        calls.append((recipe, seeds, flags))
        return {"figures": {"test/top1": {"mean": 0.9}}}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(depth, "measure", measured)
    assert main(["depth", "--full", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert ("cifar10/resnet110", [0], ["--model.architecture.depth", "1202", "--data.root", str(tmp_path)]) in calls
    assert len(calls) == len(depth.PAPERS)
    assert "| residual | 90.0 |" in (tmp_path / "out" / "depth-full.md").read_text()


def test_the_papers_recipes_build_networks_of_these_depths():
    networks = {"plain, batch norm": "PlainNet", "residual": "ResNet", "identity skips": "PreActResNet"}
    for name, layers, recipe in depth.PAPERS:
        content = yaml.safe_load(registry.find_recipe(recipe).read_text())
        assert content["model"]["init_args"]["architecture"]["class_path"] == networks[name]
        assert content["data"]["class_path"] == "CIFAR10"
        assert name == "plain, batch norm" or cifar_blocks(name, layers, 3 if layers in (164, 1001) else 2)


# The ingredient study


def test_ingredient_study_on_the_real_formats(tmp_path, monkeypatch, capsys):
    assert "no cifar-10-batches-py/data_batch_1" in said("ingredients", "--root", str(tmp_path))
    CIFAR10.write_example(tmp_path)
    monkeypatch.setitem(ingredients.SIZES, "CIFAR10", 40)
    monkeypatch.setitem(ingredients.QUICK, "images", 20)
    monkeypatch.setattr(ingredients, "PARTS", {"dropout": {"dropout": 0.0}, "crops and reflections": {}})
    words = ["ingredients", "--quick", "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    content = book.read(tmp_path / "out" / "ingredients.json")
    assert len(content["runs"]) == 5
    assert content["settings"]["images"] == 20
    assert str(tmp_path) not in (tmp_path / "out" / "ingredients.json").read_text()
    assert "| dropout |" in (tmp_path / "out" / "ingredients.md").read_text()
    assert (tmp_path / "out" / "ingredients-errors.png").stat().st_size > 5000


def test_ingredients_are_left_out_one_at_a_time():
    settings = ingredients.Settings()
    whole = ingredients.network(settings).keywords
    for name, changes in ingredients.PARTS.items():
        assert ingredients.network(settings, **changes).keywords.items() >= whole.items()
        steps = [getattr(step, "func", step).__name__ for step in ingredients.augmentation(settings, name)]
        assert steps == {
            "crops and reflections": ["CenterCrop", "PCAColor"],
            "colour shifts": ["CropEach", "FlipEach"],
        }.get(name, ["CropEach", "FlipEach", "PCAColor"])
    assert FlipEach not in ingredients.augmentation(replace(settings, data="MNIST5k"), ingredients.WHOLE)


def test_overlapping_pooling_does_not_change_the_size_of_the_network():
    settings = ingredients.Settings()
    size = [settings.image_size] * 2
    both = [ingredients.network(settings, overlapping_pooling=o)(image_size=size).map_size for o in (True, False)]
    assert both[0] == both[1] == (2, 2)


def test_the_study_uses_the_digits_without_a_root_and_everything_in_full():
    assert asdict(ingredients.settings_of(None))["data"] == "MNIST5k"
    assert ingredients.settings_of(None).images == 4000
    assert ingredients.settings_of(None, quick=True).images == 500


# The command


def test_studies_are_listed_and_misspelt_ones_refused_in_a_line(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in zoo_studies.STUDIES)
    assert max(map(len, text.splitlines())) <= 80
    assert "depth" in said("dept")
    assert "unrecognized arguments: --fast" in said("depth", "--fast")


def test_what_is_said_of_a_run_fits_80_columns(tmp_path, capsys):
    kept = ResultsFile(tmp_path / "a.json", "zoo study a", "About.", {})
    figures = dict.fromkeys(("ten_error", "one_error", "train_error", "train_loss"), 0.12345)
    kept.once({"without": "response normalisation", "seed": 0}, lambda: figures)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("response normalisation, seed 0  0:0")
    assert max(map(len, lines)) <= 80


def test_initialisation_study_writes_into_its_folder(tmp_path, monkeypatch):
    from zoo_studies import signal_by_init

    seen = []
    monkeypatch.setattr(signal_by_init, "run", seen.append)
    assert main(["initialisation", "--out", str(tmp_path / "new")]) == 0
    assert seen == [tmp_path / "new"]


def test_the_docs_have_the_tables_of_the_rows(tmp_path):
    spec = importlib.util.spec_from_file_location("generate", Path(__file__).parents[3] / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    kept = ResultsFile(tmp_path / "ingredients.json", "zoo study ingredients", "About.", asdict(ingredients.Settings()))
    for row in PARTS:
        kept.once({"without": row["without"], "seed": row["seed"]}, lambda row=row: row)
    pages = generate.study_tables(tmp_path)
    assert "| dropout | 36.0 ± 1.4 |" in pages["_study_ingredients.md"]
    assert "10000 training images of 33×33 pixels" in pages["_study_ingredients.md"]
    assert pages["_study_depth.md"] == "Nothing has been measured yet.\n"
