from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from zoo.data import MNIST, Digits, ImageFolder
from zoo.data.images import InMemoryImages
from zoo.data.pixels import as_floats
from zoo.data.transforms import CropEach, FlipAlternately, FlipEach, PCAColor
from zoo.errors import UserError


class Watcher(LightningModule):
    """Keeps the batches that reach a task."""

    predict_view = "center"

    def __init__(self, facts=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": [], "predict": []}
        self.facts = facts

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return self.weight * batch[0].mean()

    def validation_step(self, batch, batch_idx):
        self.seen["val"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def predict_step(self, batch, batch_idx):
        self.seen["predict"].append(batch)
        return 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**arguments):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet, **arguments)


def seen(data, command="fit", **arguments):
    watcher = Watcher()
    getattr(trainer(**arguments), command)(watcher, datamodule=data)
    return watcher.seen


def rows(data, split):
    samples = data.samples(split)
    return samples.fetch(torch.arange(len(samples)))


def test_batches_keep_the_contract():
    data = Digits(image_size=12, resize=16, augment=[CropEach, PCAColor], batch_size=100)
    found = seen(data, num_sanity_val_steps=0)
    images, labels = found["train"][0]
    assert images.shape == (100, 1, 12, 12)
    assert labels.shape == (100,)
    assert labels.dtype == torch.int64
    assert sum(len(labels) for _, labels in found["train"]) == 1295
    images, labels = found["val"][0]
    assert images.shape == (100, 1, 16, 16)
    for images, _ in found["train"] + found["val"]:
        assert images.dtype == torch.float32
        assert 0 <= images.min() < images.max() <= 1
    expected, truth = rows(data, "val")
    assert torch.equal(torch.cat([labels for _, labels in found["val"]]), truth)
    resized = functional.resize(expected / 255.0, [16, 16], antialias=True)
    assert torch.allclose(torch.cat([images for images, _ in found["val"]]), resized, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_images_have_the_modules_dtype(precision, dtype):
    data = Digits(augment=[FlipEach, partial(v2.MixUp, alpha=1.0)], batch_size=400)
    found = seen(data, precision=precision, limit_train_batches=1)
    assert found["train"][0][0].dtype == found["train"][0][1].dtype == found["val"][0][0].dtype == dtype


@pytest.mark.parametrize("mix", [v2.MixUp, v2.CutMix])
def test_mixing_makes_soft_labels(mix):
    found = seen(Digits(augment=[partial(mix, alpha=1.0)], batch_size=1295), limit_val_batches=0)
    labels = found["train"][0][1]
    assert labels.shape == (1295, 10)
    assert torch.allclose(labels.sum(1), torch.ones(1295))
    assert ((labels > 0).sum(1) == 2).any()


def test_training_without_crops_is_resized_directly():
    data = Digits(image_size=10, resize=16, augment=[partial(FlipEach, p=0.0)])
    data.setup()
    images, labels = rows(data, "train")
    assert torch.equal(data.augmented(images, labels)[0], as_floats(images, [10, 10], torch.float32))


def test_moving_bytes_together_is_moving_floats_one_by_one():
    factories = [
        partial(CropEach, padding=2),
        FlipEach,
        partial(CropEach, image_size=8, padding=1, padding_mode="edge"),
        PCAColor,
    ]
    data = Digits(augment=factories)
    data.setup()
    images, labels = rows(data, "train")
    torch.manual_seed(0)
    fast = data.augmented(images, labels)[0]
    torch.manual_seed(0)
    expected = as_floats(images, [8, 8], torch.float32)
    for transform in data.augmentation.transforms:
        expected = transform(expected)
    assert torch.equal(fast, expected)
    assert not torch.equal(fast, as_floats(images, [8, 8], torch.float32))


def test_smaller_pictures_are_antialiased():
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = functional.resize(images / 255.0, [12, 9], antialias=True)
    assert torch.allclose(as_floats(images, [12, 9], torch.float32), expected, atol=1e-6)


def test_setup_draws_nothing_from_the_default_generator():
    before = torch.get_rng_state()
    Digits(augment=[partial(CropEach, padding=2), FlipEach, PCAColor]).setup()
    assert torch.equal(torch.get_rng_state(), before)


def test_colour_components_come_from_the_training_part():
    data = Digits(augment=[PCAColor])
    data.setup()
    reference = PCAColor()
    reference.fit(rows(data, "train")[0])
    assert torch.equal(data.augmentation.transforms[0].axes, reference.axes)


def test_the_same_step_sees_the_same_augmentation_again():
    first, again = (
        seen(Digits(augment=[partial(CropEach, padding=2), FlipEach]), limit_val_batches=0)["train"] for _ in range(2)
    )
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 8, "resize": 4}, "data.resize is 4, smaller than data.image_size, which is 8"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"val_fraction": 1.0}, "val_fraction must be at least 0 and below 1"),
        ({"val_fraction": 0.001}, "val_fraction: 0.001 of 1438 images in 10 classes is none"),
        (
            {"augment": [torch.nn.Linear]},
            "Linear can't be used here: it is not a subclass of torchvision.transforms.v2.Trans",
        ),
        ({"augment": [partial(CropEach, image_size=5)]}, "augment makes 1x5x5 of 8x8, data.image_size is 8"),
        ({"augment": [partial(CropEach, image_size=9)]}, "smaller than the crop of 9x9"),
        ({"augment": [partial(v2.RandomCrop, size=20)]}, "data.augment fails on images of 8x8: Required crop size"),
        ({"augment": [partial(v2.FiveCrop, size=8)]}, "data.augment fails on images of 8x8: 'tuple' object has no"),
        ({"augment": [v2.ToPILImage]}, "data.augment fails on images of 8x8: 'Image' object has no"),
        ({"augment": [partial(v2.Grayscale, num_output_channels=3)]}, "augment makes 3x8x8 of 8x8"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        Digits(**arguments).setup()
    assert "\n" not in str(caught.value)


def test_no_validation():
    data = Digits(val_fraction=0)
    data.setup()
    assert data.samples("val") is None
    assert data.val_dataloader() == []
    assert len(data.samples("train")) == 1438
    assert sum(data.facts["class_counts"]) == 1438


def test_setup_of_one_stage_reads_no_more(tmp_path):
    arguments = MNIST.write_example(tmp_path)
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"damaged")
    data = MNIST(**arguments)
    data.setup("fit")
    assert len(data.samples("train")) == 30
    with pytest.raises(RuntimeError, match="call setup"):
        data.samples("test")
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte is damaged"):
        data.setup("test")


@pytest.fixture
def photos(tmp_path):
    ImageFolder.write_example(tmp_path / "photos")
    folder = tmp_path / "photos" / "square"
    (folder / "3.png").write_bytes(b"")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:100])
    return folder


@pytest.mark.parametrize("num_workers", [0, 1])
def test_prediction_skips_and_names_what_it_can_not_read(photos, capsys, num_workers):
    data = Digits(files=[f"{photos}/*.png"], batch_size=1, resize=12, num_workers=num_workers)
    watcher = Watcher(facts={"in_channels": 3, "image_size": [10, 20]})
    trainer().predict(watcher, datamodule=data)
    names = [name for _, names in watcher.seen["predict"] for name in names]
    assert names == [f"{photos}/{n}.png" for n in (0, 1, 2, 4, 5, 6, 8, 9)]
    assert data.unreadable == [f"{photos}/{n}.png" for n in (3, 7)]
    assert {images.shape for images, _ in watcher.seen["predict"]} == {(1, 3, 15, 30)}
    images = watcher.seen["predict"][0][0]
    assert images.dtype == torch.float32
    assert 0.5 < images.max() <= 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")]
    assert len(errors) == 2
    assert f"{photos}/3.png" in errors[0]


def test_prediction_needs_no_data_set(photos, tmp_path):
    data = MNIST(root=str(tmp_path / "nowhere"), files=str(photos))
    watcher = seen(data, "predict")
    assert sum(len(names) for _, names in watcher["predict"]) == 8
    assert watcher["predict"][0][0].shape[1:] == (1, 28, 28)


def test_prediction_needs_pictures(tmp_path):
    with pytest.raises(UserError, match=r"give pictures by --data\.files"):
        Digits().predict_dataloader()
    with pytest.raises(UserError, match=r"no picture matches nowhere/\*\.jpg"):
        Digits(files=["nowhere/*.jpg"]).predict_dataloader()
    (tmp_path / "a.jpg").touch()
    data = Digits(files=[str(tmp_path)])
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(facts={"in_channels": 4}, predict_view="center"))
    with pytest.raises(UserError, match="4 channels"):
        data.samples("predict")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_training_file_is_named(photos, num_workers):
    data = ImageFolder(root=str(photos.parent), num_workers=num_workers, image_size=8)
    data.setup("fit")
    with pytest.raises(UserError, match=r"square/[37]\.png can't be read as a picture: [^\n]*$"):
        list(data.train_dataloader())


def test_hyper_parameters_rebuild_the_data():
    import zoo.data

    data = Digits(image_size=16, augment=[partial(CropEach, padding=2), FlipEach], val_fraction=0.2)
    plain = data.plain_hparams()
    assert plain["init_args"]["augment"][0] == {"class_path": "zoo.parts.CropEach", "init_args": {"padding": 2}}
    assert plain["init_args"]["val_fraction"] == 0.2
    assert getattr(zoo.data, plain["class_path"].rpartition(".")[2]) is Digits


def test_two_epochs_show_both_sides_of_each_image():
    epochs = [set(), set()]

    class Sides(Watcher):
        def training_step(self, batch, batch_idx):
            epochs[self.current_epoch].update(image.numpy().tobytes() for image in batch[0])
            epochs_mirrored[self.current_epoch].update(image.flip(-1).numpy().tobytes() for image in batch[0])
            return super().training_step(batch, batch_idx)

    epochs_mirrored = [set(), set()]
    run = trainer(num_sanity_val_steps=0)
    run.fit_loop.max_epochs = 2
    run.fit(Sides(), datamodule=Digits(augment=[FlipAlternately], val_fraction=0, batch_size=500))
    assert epochs[0] == epochs_mirrored[1]
    assert epochs[0] != epochs[1]


def test_alternate_flips_come_first():
    with pytest.raises(UserError, match="FlipAlternately identifies images by their pixels, so it must be the first"):
        Digits(augment=[FlipEach, FlipAlternately]).setup("fit")


def on(device, **arguments):
    data = Digits(on_device=True, **arguments)
    data.setup()
    strategy = SimpleNamespace(root_device=torch.device(device))
    data.trainer = SimpleNamespace(strategy=strategy, world_size=1, global_rank=0, current_epoch=0, training=True)
    data.trainer.fit_loop = SimpleNamespace(batch_idx=-1)
    return data


def test_bytes_on_the_device_are_gathered_there():
    data = on("meta", batch_size=100)  # a device on which nothing can be put but what was made there
    (train, val) = (next(iter(loader)) for loader in (data.train_dataloader(), data.val_dataloader()))
    for images, labels in (train, val):
        assert images.device == labels.device == torch.device("meta")
    assert train[0].shape == (100, 1, 8, 8)


def test_bytes_on_the_device_are_the_same_batches():
    options = {"augment": [FlipEach], "batch_size": 300}
    plain, there = (seen(Digits(on_device=where, **options), num_sanity_val_steps=0) for where in (False, True))
    for split in ("train", "val"):
        for one, other in zip(plain[split], there[split], strict=True):
            assert all(map(torch.equal, one, other))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_image_is_copied_to_a_gpu_at_a_step():
    data = on("cuda", batch_size=100)
    (source, _) = data._splits["train"]
    loader = iter(data.train_dataloader())
    images, labels = next(loader)
    assert images.is_cuda
    assert labels.is_cuda
    assert all(t.is_cuda for t in source.tensors)
    assert data.transfer_batch_to_device((images, labels), images.device, 0)[0].data_ptr() == images.data_ptr()


def test_the_first_images_are_every_process_s():
    found = []
    for rank in (0, 1):
        data = Digits(image_size=12, resize=16, augment=[CropEach])
        data.setup("fit")
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank)
        found.append(data.first_images(50))
    assert torch.equal(*found)
    expected = as_floats(rows(data, "train")[0][:50], (12, 12), torch.float32)
    assert torch.equal(found[0], expected)


def test_a_part_too_small_for_all_processes_is_refused():
    data = Digits(batch_size=1000)
    data.setup("fit")
    data.setup("test")
    count = len(data.samples("test"))
    data.trainer = SimpleNamespace(world_size=count + 1, global_rank=0)
    with pytest.raises(UserError, match=f"the test part has {count} samples, fewer than the {count + 1} processes"):
        data.test_dataloader()
    data.trainer = SimpleNamespace(world_size=count, global_rank=count - 1)
    assert len(data.test_dataloader()) == 1


class Stored(InMemoryImages):
    """Five channels of 40 images, stored as the test wants them."""

    native_size, in_channels, mirror = 6, 5, True
    class_names = ("a", "b")
    scale, kind = 1.0, torch.float32

    def read(self, part):
        generator = torch.Generator().manual_seed(0 if part == "train" else 1)
        images = torch.rand(40, 5, 6, 6, generator=generator, dtype=torch.float64) * self.scale
        return images.to(self.kind), torch.arange(40) % 2


@pytest.mark.parametrize(
    ("kind", "scale", "declared"),
    [
        (torch.uint8, 255, None),
        (torch.uint16, 65535, None),
        (torch.uint16, 10000, (0.0, 10000.0)),
        (torch.int16, 300, (-100.0, 300.0)),
        (torch.float32, 1, None),
        (torch.float32, 40, (-10.0, 40.0)),
    ],
)
def test_any_type_and_number_of_channels_by_its_own_range(kind, scale, declared):
    data = type("Kept", (Stored,), {"kind": kind, "scale": scale, "value_range": declared})(
        augment=[FlipEach, PCAColor], val_fraction=0.25, batch_size=30
    )
    found = seen(data, num_sanity_val_steps=0)
    low, high = declared or (0, scale)
    stored = rows(data, "val")[0].double()
    images = found["val"][0][0]
    assert images.dtype == torch.float32
    assert torch.allclose(images.double(), (stored - low) / (high - low), atol=1e-6)
    assert found["train"][0][0].shape == (30, 5, 6, 6)
    assert 0 <= found["train"][0][0].min() < found["train"][0][0].max() <= 1
    train = (rows(data, "train")[0].double() - low) / (high - low)
    assert torch.allclose(torch.tensor(data.facts["mean"]).double(), train.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(torch.tensor(data.facts["std"]).double(), train.std((0, 2, 3), correction=0), atol=1e-4)
    assert torch.allclose(data.first_images(3).double(), train[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 255}, r"Kept: values from .* to 25\d\.\d+ lie outside the range from 0 to 1; declare value_range"),
        ({"kind": torch.int32, "scale": 9}, "images of int32 have no range of their own: declare value_range"),
        ({"in_channels": 3}, r"Kept: read gives images \[40, 5, 6, 6\], wanted are \(N, 3, H, W\)"),
    ],
)
def test_stored_values_without_a_meaning_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        type("Kept", (Stored,), changes)().setup()
