import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from zoo.data import ImageFolder
from zoo.data.loading import check_split, split_indices
from zoo.data.transforms import CropEach, PCAColor
from zoo.errors import UserError


@pytest.fixture
def photos(tmp_path):
    ImageFolder.write_example(tmp_path)
    return tmp_path


def make(root, **arguments):
    data = ImageFolder(root=str(root), **{"image_size": 16, "resize": 20, **arguments})
    data.setup()
    return data


def files(data, split):
    samples = data.samples(split)
    return dict(zip(samples.paths, samples.labels.tolist(), strict=True))


def test_parts_of_a_plain_folder_are_fixed_and_disjoint(photos):
    data = make(photos)
    parts = {split: files(data, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 14, "val": 2, "test": 4}
    reference = dict(datasets.ImageFolder(str(photos)).samples)
    assert parts["train"] | parts["val"] | parts["test"] == reference
    assert sum(map(len, parts.values())) == len(reference)
    other = make(photos, split_seed=1)
    assert files(other, "test") == parts["test"]
    assert files(other, "val") != parts["val"]
    assert data.facts["class_names"] == ["circle", "square"]
    assert data.facts["class_counts"] == [7, 7]
    without = make(photos, test_fraction=0, val_fraction=0)
    assert without.samples("test") is without.samples("val") is None
    assert len(without.samples("train")) == 20


def ready(photos, *parts):
    for part in parts:
        for name in ("circle", "square"):
            (photos / "split" / part / name).mkdir(parents=True)
            for number in {"train": range(6), "val": range(6, 8), "test": range(8, 10)}[part]:
                shutil.copy(photos / name / f"{number}.png", photos / "split" / part / name)
    return photos / "split"


def test_a_ready_split_is_kept(photos):
    root = ready(photos, "train", "val", "test")
    data = make(root)
    assert {split: len(files(data, split)) for split in ("train", "val", "test")} == {"train": 12, "val": 4, "test": 4}
    assert all(path.startswith(str(root / "val")) for path in files(data, "val"))


def test_what_a_ready_split_lacks(photos):
    data = make(ready(photos, "train"), val_fraction=0.34)
    assert data.samples("test") is None
    assert len(data.samples("val")) == 4
    assert data.facts["class_counts"] == [4, 4]


def test_other_files_and_hidden_ones_are_left_out(photos):
    (photos / "circle" / "notes.txt").write_text("mine")
    (photos / "circle" / ".hidden.png").write_bytes(b"")
    (photos / ".cache").mkdir()
    (photos / "square" / "deeper").mkdir()
    shutil.move(photos / "square" / "3.png", photos / "square" / "deeper" / "THREE.PNG")
    data = make(photos, test_fraction=0, val_fraction=0)
    assert len(data.samples("train")) == 20
    assert data.facts["num_classes"] == 2


def test_mistakes_are_one_line(photos):
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pictures"):
        make(photos)
    root = ready(photos, "train", "val")
    shutil.rmtree(root / "val" / "circle")
    with pytest.raises(UserError, match="val/circle holds no pictures: every class needs some in every part"):
        make(root)
    (root / "val" / "triangle").mkdir()
    with pytest.raises(UserError, match="val/triangle is a class that the training part does not have"):
        make(root)
    with pytest.raises(UserError, match=r"the folder .*nowhere does not exist"):
        make(photos / "nowhere")
    with pytest.raises(UserError, match="test_fraction must be"):
        ImageFolder(test_fraction=1.0)
    shutil.rmtree(photos / "empty")
    shutil.rmtree(photos / "split")
    with pytest.raises(
        UserError, match=r"test_fraction: 0\.01 of 20 images in 2 classes is none; give at least 0\.06, or 0"
    ):
        make(photos, test_fraction=0.01)


def test_a_folder_of_one_class_says_what_was_left_out(photos):
    shutil.move(photos / "square", photos / "lost+found")
    with pytest.raises(UserError, match=r"only one class folder, circle \(left out: .*lost\+found\)\): give one"):
        make(photos)
    shutil.rmtree(photos / "circle")
    with pytest.raises(UserError, match=r"holds no class folders \(left out"):
        make(photos)


@pytest.mark.parametrize("missing_classes", [False, True])
def test_one_class_may_be_spelt_in_two_ways(photos, missing_classes):
    """As systems do: one stores the accent with its letter, another behind it."""
    root = ready(photos, "train", "val")
    for part, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
        shutil.move(root / part / "circle", root / part / name)
    data = make(root, missing_classes=missing_classes)
    assert data.class_names == ["caf\u00e9", "square"]
    assert sorted(data.samples("val").labels.tolist()) == [0, 0, 1, 1]


def test_sizes_of_batches(photos):
    plain = make(photos)
    images, labels = plain.augmented(*next(iter(plain.train_dataloader())))
    assert images.shape[1:] == (3, 16, 16)
    assert labels.dtype == torch.int64
    assert plain.samples("train")[0][0].shape == (3, 16, 16)
    assert plain.samples("val")[0][0].shape == (3, 20, 20)
    cropping = make(photos, augment=[CropEach])
    assert cropping.samples("train")[0][0].shape == (3, 20, 20)
    assert cropping.augmented(*next(iter(cropping.train_dataloader())))[0].shape[1:] == (3, 16, 16)


def test_random_resized_crops_differ_by_epoch_and_not_by_workers(photos):
    data = make(photos, crop="random_resized", batch_size=20)
    assert data.samples("train")[0][0].shape == (3, 16, 16)
    first, again = (next(iter(data.train_dataloader()))[0] for _ in range(2))
    assert torch.equal(first, again)
    whole = make(photos, batch_size=20)
    assert not torch.equal(first, next(iter(whole.train_dataloader()))[0])
    assert torch.equal(data.samples("val")[0][0], whole.samples("val")[0][0])
    workers = make(photos, crop="random_resized", batch_size=20, num_workers=2)
    assert torch.equal(first, next(iter(workers.train_dataloader()))[0])


def test_evaluation_pictures_are_torchvisions(photos):
    data = make(photos)
    transform = v2.Compose([v2.PILToTensor(), v2.Resize(20, antialias=True), v2.CenterCrop(20)])
    reference = datasets.ImageFolder(str(photos), transform)
    for (path, _), (expected, _) in zip(reference.samples, reference, strict=True):
        if path in files(data, "test"):
            index = data.samples("test").paths.index(path)
            assert (data.samples("test")[index][0].int() - expected.int()).abs().max() <= 1


def test_grey_and_colour_components(photos):
    data = make(photos, in_channels=1, mirror=False, augment=[PCAColor])
    assert data.facts["in_channels"] == len(data.facts["mean"]) == len(data.facts["std"]) == 1
    assert data.facts["mirror"] is False
    assert data.augmented(*next(iter(data.train_dataloader())))[0].shape[1:] == (1, 16, 16)
    reference = PCAColor()
    reference.fit(torch.stack([data.samples("train")[i][0] for i in range(14)]))
    assert torch.equal(data.augmentation.transforms[0].axes, reference.axes)


def test_the_advice_on_a_fraction_can_be_followed(photos):
    for number in range(1, 10):
        (photos / "circle" / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"0.6 of the 1 image of class circle is all .* at most 0.49"):
        make(photos, test_fraction=0.6)
    assert len(make(photos, test_fraction=0.49, val_fraction=0).samples("test")) == 5
    for number in range(1, 10):
        (photos / "square" / f"{number}.png").unlink()
    with pytest.raises(UserError, match="give more images, or 0"):
        make(photos, test_fraction=0.6)
    with pytest.raises(UserError, match=r"val_fraction: 0.1 of 2 images in 2 classes is none; give more images, or 0"):
        make(photos, test_fraction=0)


@pytest.mark.parametrize("count", [2, 3, 7, 50, 1000])
def test_advice_for_every_size(count):
    labels = torch.zeros(count, dtype=torch.int64)
    for fraction in (1e-6, 1 - 1e-6):
        with pytest.raises(UserError) as caught:
            check_split("f", fraction, labels, ["a"])
        advised = float(re.search(r"(least|most) ([\d.]+)", str(caught.value))[2])
        kept, held = split_indices(labels, advised, 0)
        assert len(kept)
        assert len(held)


@pytest.mark.parametrize(
    "names", [("train", "valid", "testing"), ("Train", "VALIDATION", "TEST"), ("training", "dev", "Test")]
)
def test_parts_of_many_names(photos, names):
    root = ready(photos, "train", "val", "test")
    for part, name in zip(("train", "val", "test"), names, strict=True):
        (root / part).rename(root / name)
    data = make(root)
    assert [len(files(data, split)) for split in ("train", "val", "test")] == [12, 4, 4]
    assert all(f"/{names[1]}/" in path for path in files(data, "val"))


def test_parts_that_are_not_clear_are_refused(photos):
    root = ready(photos, "train", "val")
    shutil.copytree(root / "val", root / "Valid")
    with pytest.raises(UserError, match="holds Valid and val, which are the same part"):
        make(root)
    shutil.rmtree(root / "Valid")
    (root / "Valid").mkdir()
    assert "folders that are not a part (1: Valid)" in make(root).summary()
    (root / "Valid").rmdir()
    shutil.copytree(root / "val", photos / "val")
    with pytest.raises(UserError, match=r"val looks like a part .* there is no"):
        make(photos)
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    with pytest.raises(UserError, match="train holds no class folders"):
        make(root)


def test_a_class_called_as_a_part_is_a_class(photos):
    (photos / "circle").rename(photos / "train")
    assert make(photos).facts["class_names"] == ["square", "train"]


def test_classes_may_be_missing_where_it_is_allowed(photos):
    root = ready(photos, "train", "val", "test")
    shutil.rmtree(root / "val" / "circle")
    with pytest.raises(UserError, match=r"data\.missing_classes true accepts"):
        make(root)
    shutil.rmtree(root / "train" / "square")
    data = make(root, missing_classes=True)
    assert data.facts["class_names"] == ["circle", "square"]
    assert data.class_counts == [6, 0]
    assert set(files(data, "val").values()) == {1}
    assert "6 train (1 of 2 classes), 2 val (1 of 2 classes), 4 test" in data.summary()


def test_links_are_followed_and_loops_end(photos, tmp_path_factory):
    pool = tmp_path_factory.mktemp("pool")
    shutil.move(photos / "circle" / "3.png", pool / "3.png")
    (photos / "circle" / "more").symlink_to(pool)
    (photos / "circle" / "again").symlink_to(pool)
    (photos / "circle" / "9.png").rename(pool / "nine")
    (photos / "circle" / "9.PNG").symlink_to(pool / "nine")
    (photos / "circle" / "loop").symlink_to(photos / "circle")
    (photos / "circle" / "up").symlink_to(photos)
    (photos / "circle" / "gone.png").symlink_to(pool / "gone.png")
    (photos / "circle" / "self.png").symlink_to(photos / "circle" / "self.png")
    (photos / "root").symlink_to(photos)
    os.mkfifo(photos / "square" / "pipe.png")
    data = make(photos, test_fraction=0, val_fraction=0)
    assert data.class_names == ["circle", "square"]
    assert data.class_counts == [10, 10]
    assert str(photos / "circle" / "again" / "3.png") in files(data, "train")
    said = data.summary()
    assert said.startswith("ImageFolder: 20 pictures of 2 classes: 20 train, no val, no test; left out: ")
    for reason in (
        "broken links (2: gone.png, self.png)",
        "links to folders already read (4: ",
        "not regular files (1: ",
    ):
        assert reason in said


def test_all_that_pillow_reads_and_nothing_of_the_system(photos):
    for number, suffix in enumerate((".jfif", ".JPG", ".jpe", ".TIFF", ".pbm", ".ico", ".dib")):
        picture = Image.open(photos / "circle" / "1.png").resize((24, 24))
        (picture.convert("1") if suffix == ".pbm" else picture).save(
            photos / "circle" / f"extra{number}{suffix}", {".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix)
        )
    for folder in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN"):
        for place in (photos, photos / "circle"):
            (place / folder).mkdir()
            shutil.copy(photos / "circle" / "1.png", place / folder)
    for name in ("Thumbs.db", "desktop.ini"):
        (photos / "circle" / name).touch()
    (photos / "circle" / "labels.csv").touch()
    data = make(photos, test_fraction=0, val_fraction=0)
    assert data.class_counts == [17, 10]
    assert all(data.samples("train")[i][0].shape == (3, 16, 16) for i in range(27))
    assert "not pictures (1: .csv)" in data.summary()


def test_brackets_in_names(photos):
    (photos / "circle").rename(photos / "cir[c]le (1)")
    assert make(photos).class_names == ["cir[c]le (1)", "square"]
    data = make(photos, files=[str(photos / "cir[c]le (1)" / "*.png"), str(photos / "cir[c]le (1)")])
    assert len(data.predict_samples()) == 10


def test_a_run_starts_with_one_line(photos, capsys):
    data = make(photos)
    data.trainer = SimpleNamespace(world_size=1, global_rank=0)
    for loader in (data.val_dataloader, data.train_dataloader, data.test_dataloader):
        loader()
    assert capsys.readouterr().out == "ImageFolder: 20 pictures of 2 classes: 14 train, 2 val, 4 test\n"


# Pictures that can't be read


def of_one_epoch(data, epoch=0, batch=-1):
    """Batches of an epoch, from the one behind ``batch`` on."""
    position = {"current_epoch": epoch, "fit_loop": SimpleNamespace(batch_idx=batch)}
    data.trainer = SimpleNamespace(world_size=1, global_rank=0, **position)
    try:
        return [images for images, _ in data.train_dataloader()]
    finally:
        data.trainer = None


@pytest.fixture
def damaged(photos):
    """Two files of the training part; it is left with the first 14 pictures of the example."""
    paths = make(photos).samples("train").paths
    return [paths[3], paths[9]]


def damage(paths):
    for path in paths:
        Path(path).write_bytes(b"no picture")


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_pictures_are_skipped_and_the_others_keep_their_order(photos, damaged, workers, capsys):
    options = {"crop": "random_resized", "num_workers": workers, "batch_size": 5}
    whole = make(photos, **options)
    before = [of_one_epoch(whole, epoch) for epoch in range(2)]
    orders = [whole.order(whole.samples("train")).indices(0, epoch).tolist() for epoch in range(2)]
    damage(damaged)
    data = make(photos, skip_unreadable=True, **options)
    assert list(files(data, "train")) == list(files(whole, "train"))
    for epoch, order in enumerate(orders):
        kept = [index not in (3, 9) for index in order]
        expected = torch.cat(before[epoch])[kept]
        assert torch.equal(torch.cat(of_one_epoch(data, epoch)), expected)
        resumed = of_one_epoch(data, epoch, batch=1)
        assert torch.equal(torch.cat(resumed), expected[sum(kept[:10]) :])
    said = capsys.readouterr().err
    assert said.count("skipped: ") == 2
    assert all(path in said for path in damaged)
    data.teardown("fit")
    assert capsys.readouterr().out == "ImageFolder: unreadable pictures skipped in training: 2\n"
    with pytest.raises(UserError, match="can't be read as a picture"):
        of_one_epoch(make(photos, **options))


def test_a_batch_of_unreadable_pictures_is_replaced(photos, damaged):
    whole = make(photos, batch_size=1)
    before = of_one_epoch(whole)
    order = whole.order(whole.samples("train")).indices(0, 0).tolist()
    damage(damaged)
    batches = of_one_epoch(make(photos, batch_size=1, skip_unreadable=True))
    assert len(batches) == 14
    for place, index in enumerate(order):
        readable = [p for p in [*range(place, 14), *range(place)] if order[p] not in (3, 9)]
        assert torch.equal(batches[place], before[readable[0]])
        assert (readable[0] == place) == (index not in (3, 9))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_keeps_two_samples(photos, workers):
    """A batch norm can't train with one."""
    options = {"batch_size": 3, "drop_last": True, "num_workers": workers}
    whole = make(photos, **options)
    before, order = of_one_epoch(whole), whole.order(whole.samples("train")).indices(0, 0).tolist()
    paths = whole.samples("train").paths
    damage([paths[index] for index in (*order[:2], order[3], order[12])])
    batches = of_one_epoch(make(photos, skip_unreadable=True, **options))
    assert [len(batch) for batch in batches] == [2, 2, 3, 3]
    assert torch.equal(batches[0], torch.stack([before[0][2], before[1][1]])), "order[3] can't be read either"


def test_each_process_says_what_it_skipped(photos, damaged, capsys):
    data = make(photos, skip_unreadable=True)
    data.trainer = SimpleNamespace(world_size=2, global_rank=1)
    data.note_skipped("x.png can't be read")
    data.teardown("fit")
    said = capsys.readouterr()
    assert said.err == "skipped on process 1: x.png can't be read\n"
    assert said.out == "ImageFolder: unreadable pictures skipped in training: 1 on process 1\n"


def test_if_none_can_be_read_training_ends(photos):
    data = make(photos, skip_unreadable=True)
    damage(files(data, "train"))
    with pytest.raises(UserError, match="none of the 14 training pictures can be read: "):
        of_one_epoch(data)


def test_evaluation_skips_no_picture(photos):
    data = make(photos)
    bad = [next(iter(files(data, "val"))), next(iter(files(data, "test")))]
    damage(bad)
    with pytest.raises(UserError, match=r"evaluation skips no pictures: .* \(2\): ") as caught:
        make(photos, skip_unreadable=True)
    assert all(path in str(caught.value) for path in bad)
    with pytest.raises(UserError, match="can't be read as a picture"):
        list(make(photos).test_dataloader())


def test_only_the_first_unreadable_pictures_are_listed(photos, monkeypatch):
    data = make(photos)
    monkeypatch.setattr(data, "check_samples", lambda split: [f"{split}-{number} is damaged" for number in range(7)])
    with pytest.raises(
        UserError, match=r"\(14\): val-0 .*; test-2 is damaged; and 4 more \(`zoo data check` lists all"
    ):
        data.refuse_unreadable(("val", "test"))


def test_statistics_skip_unreadable_pictures(photos, damaged):
    damage(damaged)
    data = make(photos, skip_unreadable=True, augment=[PCAColor])
    assert len(data.some_training_images()) == 12
    assert len(data.skipped) == 2
