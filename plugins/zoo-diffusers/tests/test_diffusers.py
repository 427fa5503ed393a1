"""What is special about this plugin; what every entry must do is asked by the zoo's own kit, in one line."""

from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor
from zoo_diffusers.dit import DiTTransformer2D
from zoo_diffusers.folders import scheduler_of, write
from zoo_diffusers.unet import UNet2D

from zoo.architectures.base import skip_pretrained
from zoo.architectures.dit import DiT
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.tasks.denoising import Denoising
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.edm import EDM
from zoo.tasks.flow_matching import FlowMatching
from zoo.testing import conformance

test_everything = conformance("zoo-diffusers")

NETWORKS: dict[str, Any] = {"unet": UNet2D, "transformer": DiTTransformer2D}
each_network = pytest.mark.parametrize("kind", NETWORKS)
FACTS = Facts(num_classes=3, class_names=["a", "b", "c"], in_channels=1, image_size=[8, 8])


def randomised(network: Any, seed: int = 0) -> Any:
    """The network in evaluation, without zeros that would hide parts of it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def make(kind: str, seed: int = 0, **arguments: Any) -> Any:
    cls = NETWORKS[kind]
    torch.manual_seed(seed)
    return randomised(cls(**{**cls.example, "in_channels": 1, "image_size": [8, 8], **arguments}), seed)


def built(task: type[Denoising], kind: str = "unet", **options: Any) -> Any:
    cls = NETWORKS[kind]
    made = task(partial(cls, **cls.example), facts=FACTS, **options)  # type: ignore[call-arg]
    made.configure_model()
    randomised(made.denoiser)
    return made.eval()


def images(count: int = 4, side: tuple[int, int] = (8, 8), seed: int = 0) -> Tensor:
    return torch.randn(count, 1, *side, generator=torch.Generator().manual_seed(seed))


# Networks


@each_network
@torch.no_grad()
def test_the_librarys_network_is_told_its_own_steps_and_labels(kind: str) -> None:
    network, x = make(kind, num_classes=3, timestep=[100.0, -1.0]), images()
    t, labels = torch.tensor([0.01, 0.5, 0.77, 1.0]), torch.tensor([0, 1, 2, 3])
    expected = network.network(x, torch.tensor([0, 49, 76, 99]), class_labels=labels).sample
    torch.testing.assert_close(network(x, t, labels), expected, rtol=1e-4, atol=1e-5)
    nothing = network.network(x, 100 * t - 1, class_labels=torch.full((4,), 3)).sample
    torch.testing.assert_close(network(x, t), nothing, rtol=0, atol=0)
    assert (network(x, t, labels) - network(x, t)).abs().max() > 1e-3


@each_network
@torch.no_grad()
def test_sides_that_do_not_fit_and_images_that_are_not_square(kind: str) -> None:
    network, t = make(kind, image_size=[7, 9]), torch.rand(2)
    found = network(images(2, (7, 9)), t)
    assert found.shape == (2, 1, 7, 9)
    with pytest.raises(UserError, match="network without classes"):
        network(images(2, (7, 9)), t, torch.tensor([0, 0]))


def test_the_dit_begins_as_the_identity_and_drops_no_labels_itself() -> None:
    torch.manual_seed(0)
    network = DiTTransformer2D(**DiTTransformer2D.example, num_classes=3, in_channels=1, image_size=[8, 8]).train()
    x, t, labels = images(64), torch.rand(64), torch.randint(0, 3, (64,))
    assert not network(x, t, labels).any()
    randomised(network).train()
    torch.testing.assert_close(network(x, t, labels), network(x, t, labels), rtol=0, atol=0)


def test_of_learnt_variances_only_the_prediction_is_taken() -> None:
    config = {**DiTTransformer2D.example["config"], "out_channels": 2}
    network = make("transformer", config=config)
    t = torch.rand(4)
    assert network(images(), t).shape == (4, 1, 8, 8)
    torch.testing.assert_close(
        network(images(), t), network.network(images(), 1000 * t, t.new_zeros(4).long()).sample[:, :1]
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            "unet",
            {"config": {"block_out_chanels": [8]}},
            "no block_out_chanels here; did you mean block_out",
        ),
        ("unet", {"config": {"sample_size": 8}}, "UNet2DModel has no sample_size here"),
        ("unet", {"config": {"block_out_channels": [8, 16]}}, "UNet2D can't be built: Must provide the same number"),
        (
            "unet",
            {"in_channels": 3, "config": {**UNet2D.example["config"], "out_channels": 1}},
            "at least the images' 3",
        ),
        ("transformer", {"config": {"patch_size": 0}}, "patch_size is a number of pixels, not 0"),
        ("transformer", {"config": {"norm_type": "no"}}, "DiTTransformer2D can't be built"),
        ("transformer", {"num_classes": -1}, "num_classes must be at least 0"),
    ],
)
def test_mistakes_end_in_one_line(kind: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as one:
        make(kind, **arguments)
    assert "\n" not in str(one.value)


# Weights


@each_network
@torch.no_grad()
def test_a_written_task_opens_with_the_library_and_reads_back(kind: str, tmp_path: Path) -> None:
    task, folder = built(Diffusion, kind, conditional=True), tmp_path / "written"
    assert write(task, folder) == ['the label 3 is "no class"']
    theirs = NETWORKS[kind].library.from_pretrained(folder / kind)
    step, labels, x = torch.tensor([0, 9, 500, 999]), torch.tensor([0, 1, 2, 3]), images()
    expected = task.denoiser(x, (step + 1) / 1000, labels)
    torch.testing.assert_close(theirs(x, step, class_labels=labels).sample, expected, rtol=1e-4, atol=1e-5)
    again = {}
    for place in (folder, folder / kind):
        own = NETWORKS[kind](
            **NETWORKS[kind].example, pretrained=str(place), num_classes=3, in_channels=1, image_size=[8, 8]
        )
        again[place] = own.eval().network(x, step, class_labels=labels).sample
    for found in again.values():
        torch.testing.assert_close(found, theirs(x, step, class_labels=labels).sample, rtol=0, atol=0)
    with pytest.raises(UserError, match="is there already"):
        write(task, folder)


@torch.no_grad()
def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    task, folder = built(Diffusion), tmp_path / "written"
    write(task, folder)
    known = {**UNet2D.example, "pretrained": str(folder), "in_channels": 1, "image_size": [8, 8]}
    for changes, message in (
        ({"config": {**UNet2D.example["config"], "layers_per_block": 2}}, r"give config: \{'layers_per_block': 1\}"),
        ({"in_channels": 3}, r"give config: .*'in_channels': 1"),
        ({"num_classes": 4}, r"give config: .*'num_class_embeds': None"),
        ({"pretrained": str(tmp_path)}, "could not be read"),
    ):
        with pytest.raises(UserError, match=message) as one:
            UNet2D(**{**known, **changes})
        assert "\n" not in str(one.value)


def test_without_internet_there_is_one_line_and_a_checkpoint_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def no_internet(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_internet)
    known = {**UNet2D.example, "pretrained": "some/unet/unet"}
    with pytest.raises(UserError, match=r"huggingface.co/some/unet could not be reached \(no route to host\)"):
        UNet2D(**known)
    with skip_pretrained():
        UNet2D(**known)


# Schedulers that are written, and samples by the library alone


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [100, 1000])
def test_the_written_schedule_is_the_tasks(schedule: str, steps: int) -> None:
    task = built(Diffusion, schedule=schedule, trained_steps=steps, prediction="noise", clip=False)
    made = scheduler_of(task)
    assert (made.config.prediction_type, made.config.clip_sample) == ("epsilon", False)
    alphas = task.path.alpha(torch.arange(1, steps + 1).double() / steps)
    torch.testing.assert_close(made.alphas_cumprod.double().sqrt(), alphas, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("prediction", ["noise", "image", "velocity"])
@torch.no_grad()
def test_the_librarys_pipeline_samples_from_the_folder(prediction: str, tmp_path: Path) -> None:
    """Samples by the zoo and by the library, with the same noise."""
    task = built(Diffusion, prediction=prediction, schedule="linear", solver="ddim", steps=10)
    write(task, tmp_path / "written")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "written")
    pipeline.set_progress_bar_config(disable=True)
    ddim = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, set_alpha_to_one=True)
    ddim.set_timesteps(10)
    x = images()
    expected = task.generate(x * 1.0, None, [torch.Generator() for _ in range(4)])
    x = x * (1 - ddim.alphas_cumprod[-1]) ** 0.5
    for t in ddim.timesteps:
        x = ddim.step(pipeline.unet(x, t).sample, t, x, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(x, expected, rtol=1e-3, atol=2e-3)
    made = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert made.shape == (2, 8, 8, 1)
    assert np.isfinite(made).all()


@torch.no_grad()
def test_the_librarys_schedulers_sample_a_flow_and_edm(tmp_path: Path) -> None:
    x, labels, generators = images(), torch.tensor([0, 1, 2, 0]), [torch.Generator() for _ in range(4)]
    flow = built(FlowMatching, "transformer", conditional=True, solver="euler", steps=7)
    expected = flow.generate(x, labels, generators)
    write(flow, tmp_path / "flow")
    network = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "flow/transformer")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "flow/scheduler")
    scheduler.set_timesteps(sigmas=[1 - i / 7 for i in range(7)])
    found = x
    for t in scheduler.timesteps:
        found = scheduler.step(network(found, t.expand(4), labels).sample, t, found).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    edm = built(EDM, conditional=True, solver="euler", steps=6)
    expected = edm.generate(x, labels, generators)
    write(edm, tmp_path / "edm")
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "edm/unet")
    scheduler = diffusers.EDMEulerScheduler.from_pretrained(tmp_path / "edm/scheduler")
    scheduler.set_timesteps(6)
    found = 80 * x
    for t in scheduler.timesteps:
        predicted = unet(scheduler.scale_model_input(found, t), t.expand(4), labels).sample
        found = scheduler.step(predicted, t, found).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_can_not_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    task = Diffusion(partial(DiT, **DiT.example), facts=FACTS)
    task.configure_model()
    with pytest.raises(UserError, match="a DiT is not a network of diffusers"):
        write(task, tmp_path / "no")

    class Another(FlowMatching):
        pass

    with pytest.raises(UserError, match="a Another has no scheduler in diffusers; these have: Diffusion, EDM"):
        write(built(Another), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with_padding = Diffusion(partial(UNet2D, **UNet2D.example), facts=Facts(in_channels=1, image_size=[7, 8]))
    with_padding.configure_model()
    assert write(with_padding, tmp_path / "padded")[0].startswith("images of 7×8 were extended to 8×8")


@pytest.mark.slow
def test_the_recipe_trains_and_its_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo
    from zoo import registry
    from zoo.__main__ import main

    monkeypatch.chdir(tmp_path)
    few = ("--trainer.max_steps=3", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1")
    short = ("--model.steps=2", "--model.test_samples=20", "--model.judge_epochs=1")
    assert registry.find_recipe("diffusers_unet") == registry.find_recipe("zoo-diffusers:diffusers_unet")
    assert main(["fit", "--config", "diffusers_unet", "--trainer.logger=false", *few, *short]) == 0
    (checkpoint,) = Path("runs/diffusers_unet").glob("*/checkpoints/last.ckpt")
    assert main(["diffusers", "write", str(checkpoint), "written"]) == 0
    task, x, labels = zoo.load(checkpoint).eval(), torch.randn(2, 1, 28, 28), torch.tensor([3, 7])
    theirs = diffusers.UNet2DModel.from_pretrained("written/unet")
    with torch.no_grad():
        found = theirs(x, torch.tensor([99, 499]), class_labels=labels).sample
        torch.testing.assert_close(found, task.denoiser(x, torch.tensor([0.1, 0.5]), labels), rtol=1e-4, atol=1e-5)
    assert main(["diffusers", "write", str(checkpoint), "written"]) == 2
