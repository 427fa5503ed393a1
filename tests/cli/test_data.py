"""``zoo data check`` on folders with damaged pictures."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import distributed
from torch.multiprocessing import start_processes

from zoo.cli.data import main
from zoo.data import ImageFolder
from zoo.data.art.style_folders import StyleFolders
from zoo.data.base import Data
from zoo.data.checking import problems
from zoo.errors import UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ImageFolder.write_example(tmp_path / "photos")
    return tmp_path / "photos"


def damage(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:60])
    return str(path)


def test_all_damaged_files_of_all_parts_are_listed(photos, capsys):
    recipe = photos.parent / "mine.yaml"
    recipe.write_text(
        f"model: {{class_path: Classification}}\ntrainer: {{max_epochs: 1}}\ndata: {{class_path: ImageFolder, "
        f"init_args: {{root: {photos}, image_size: 16, augment: [PCAColor], skip_unreadable: true}}}}\n"
    )
    assert main(["check", "--config", str(recipe)]) == 0
    assert capsys.readouterr().out.endswith(
        "train: 14 samples, no problems\nval: 2 samples, no problems\ntest: 4 samples, no problems\nno problems\n"
    )
    data = ImageFolder(root=str(photos), image_size=16)
    data.setup_to_check()
    bad = [damage(Path(data.samples(split).paths[place])) for split, place in (("train", 3), ("train", 7), ("test", 0))]
    assert main(["check", "--config", str(recipe), "--page", "page"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if "can't be read" in line] == bad
    assert lines[-1] == "3 problems"
    assert "train: 14 samples, 2 problems" in lines
    assert Image.open("page.png").size[0] > 4 * 192


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("p.nokind", "--page p.nokind can't be written: .nokind is not a picture format"),
        ("there", "--page there.png exists already, and nothing is overwritten"),
        ("no/where.png", "the folder no does not exist"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(name, line, photos, monkeypatch):
    Path("there.png").touch()
    monkeypatch.setattr(ImageFolder, "prepare_data", lambda self: pytest.fail("it was read"))
    with pytest.raises(UserError, match=line):
        main(["check", "--data", "ImageFolder", "--data.root", str(photos), "--page", name])


def test_mistakes_are_one_line(photos):
    for argv, line in (
        (["check"], "no data: give a recipe"),
        (["check", "--data", "ImageFolder", "--data.root", "nowhere"], "the folder nowhere does not exist"),
        ([], "zoo data check --config RECIPE"),
        (["look"], "invalid choice"),
    ):
        with pytest.raises(UserError, match=line):
            main(argv)


class Boxes(Data):
    """Samples that can be read, but whose boxes may lie outside."""

    facts = {}

    def samples(self, split):
        return [1, 2, 3]

    def check_samples(self, split):
        return [*super().check_samples(split), *(f"box {n} lies outside" for n in self.samples(split) if n > 2)]


def test_a_data_set_adds_its_own_checks():
    data = Boxes()
    data.setup_to_check()
    assert data.check_samples("val") == ["box 3 lies outside"]
    assert data.sample_pictures("val", 4) == []


def test_workers_find_the_same_and_leave_the_generator_alone(photos):
    data = ImageFolder(root=str(photos), image_size=16)
    data.setup_to_check()
    bad = damage(Path(data.samples("train").paths[5]))
    state = torch.random.get_rng_state()
    for workers in (0, 2):
        (found,) = problems(data.samples("train"), workers)
        assert bad in found
    assert torch.equal(state, torch.random.get_rng_state())


def test_processes_share_the_cpus_that_may_be_used(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "zoo.data.checking.DataLoader",
        lambda found, *_, num_workers, **__: asked.append(num_workers) or [[None] * len(found)],
    )
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    data, samples = ImageFolder(), range(1000)
    for trainer in (None, SimpleNamespace(world_size=2, global_rank=1), SimpleNamespace(world_size=8, global_rank=0)):
        data.trainer = trainer
        data.problems_of(samples)
    data.problems_of(range(10))
    data.num_workers = 4
    data.problems_of(samples)
    assert asked == [6, 3, 0, 0, 4]


def read_share(rank: int, folder: str) -> None:
    """One of two processes reads its share of four pictures, and writes what it read and what it learnt."""
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    read = []

    class Samples(list):
        def __getitem__(self, index):
            read.append(index)
            if index in (1, 2):
                raise UserError(f"picture {index}")

    found = problems(Samples(range(5)), 0, rank, 2)
    Path(folder, f"{rank}.json").write_text(json.dumps([read, found]))


def test_processes_share_the_pictures_and_learn_of_all(tmp_path):
    start_processes(read_share, (str(tmp_path),), nprocs=2, start_method="fork")
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert told == [[[0, 2, 4], ["picture 1", "picture 2"]], [[1, 3], ["picture 1", "picture 2"]]]


def test_contents_and_styles_are_checked(photos):
    data = StyleFolders(content=str(photos / "circle"), style=str(photos / "square"), image_size=16, val_fraction=0.2)
    bad = [damage(photos / "circle" / "1.png"), damage(photos / "square" / "2.png")]
    data.setup_to_check()
    found = [line for split in ("train", "val", "test") for line in data.check_samples(split)]
    assert sorted(line.split()[0] for line in found) == bad


def test_crops_of_unreadable_pictures_are_skipped(photos, capsys):
    options = {"content": str(photos / "circle"), "style": str(photos / "square"), "image_size": 16, "crops": 9}
    data = StyleFolders(**options, skip_unreadable=True, batch_size=3)
    data.setup("fit")
    contents, _ = data._parts["train"]
    bad = damage(Path(contents.paths[0]))
    data = StyleFolders(**options, skip_unreadable=True, batch_size=3)
    data.setup("fit")
    assert sum(len(batch[0]) for batch in data.train_dataloader()) == 8
    assert bad in capsys.readouterr().err
    with pytest.raises(UserError, match="can't be read"):
        StyleFolders(**options).setup("fit")
    tested, _ = data._parts["test"]
    damage(Path(tested.paths[0]))
    with pytest.raises(UserError, match="evaluation skips no pictures"):
        StyleFolders(**options, skip_unreadable=True).setup("fit")
