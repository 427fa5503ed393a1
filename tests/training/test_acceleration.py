"""The same results in less time: what is stored and computed differently, and that nothing else is."""

import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from running import TOYS, different, folder_of, said, state, write_recipe, zoo
from torch import nn
from torch._dynamo.utils import counters
from zoo_toys.data import ToyTensors
from zoo_toys.networks import ToyNet
from zoo_toys.tasks import ToyClassification

import zoo as package
from zoo.errors import UserError
from zoo.training.acceleration import ChannelsLast, Compile, check_compiler, networks_of

DATA = {"class_path": "ToyTensors"}
# Without dropout: compiled, it draws other numbers.
MODEL = {
    "class_path": "ToyClassification",
    "init_args": {"architecture": {"class_path": "zoo_toys.networks.ToyNet", "init_args": {"dropout": 0.0}}},
}


def compiles() -> bool:
    try:
        check_compiler(torch.device("cpu"))
    except UserError:
        return False
    return True


@pytest.fixture
def traced(monkeypatch):
    """Networks are captured and differentiated as for any compiler, but run without one, which takes no time."""
    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, **options: compile(net, backend="aot_eager"))
    monkeypatch.setattr("zoo.training.acceleration.check_compiler", lambda device: None)
    torch.compiler.reset()
    counters.clear()


def checkpoint_of(name: str, *overlays: str, epochs: int = 1) -> Path:
    """The last checkpoint of a fit of the toy recipe, with overlays."""
    write_recipe(Path(f"{name}.yaml"), MODEL, DATA, max_epochs=epochs)
    words = [word for overlay in overlays for word in ("--config", f"trainer/{overlay}")]
    assert zoo("fit", "--config", f"{name}.yaml", *words, "--no-test") == 0
    return folder_of(name) / "checkpoints" / "last.ckpt"


def assert_alike(first: Path, second: Path) -> None:
    """The checkpoints hold the same names, numbers and settings, and nearly the same values."""
    a, b = (torch.load(path, weights_only=True) for path in (first, second))
    assert a["hyper_parameters"] == b["hyper_parameters"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    a, b = state(first), state(second)
    for name in different(a, b):
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


class Deeper(ToyNet):
    """Notes, of its second convolution, in which mode its input and its filters were channels last."""

    seen = set()

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__(num_classes)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, images):
        maps = self.norm(self.conv(images))
        for name, one in (("maps", maps), ("filters", self.second.weight)):
            if one.is_contiguous(memory_format=torch.channels_last) and not one.is_contiguous():
                self.seen.add((self.training, name))
        return self.head(self.second(maps).mean((2, 3)))


class Two(ToyNet):
    """Gives back what it is given."""

    def forward(self, images, times):
        return images, times


def fitted(*callbacks, architecture=ToyNet) -> ToyClassification:
    task = ToyClassification(architecture=architecture)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=list(callbacks), enable_progress_bar=False
    )
    trainer.fit(task, datamodule=ToyTensors())
    return task


class TestChannelsLast:
    def test_gives_the_results_of_the_usual_layout_and_the_same_checkpoint(self):
        assert_alike(checkpoint_of("usual"), checkpoint_of("other", "channels_last"))

    def test_feature_maps_and_filters_are_channels_last_in_training_and_evaluation(self):
        Deeper.seen.clear()
        fitted(ChannelsLast(), architecture=Deeper)
        assert Deeper.seen == {(True, "maps"), (True, "filters"), (False, "maps"), (False, "filters")}

    def test_the_network_is_left_as_it_was(self):
        task = fitted(ChannelsLast())
        assert not task.architecture._forward_pre_hooks
        maps = task.architecture.conv(torch.rand(2, 1, 6, 6))
        assert maps.is_contiguous()

    def test_images_need_not_be_the_only_argument(self):
        net = Two()
        ChannelsLast().change(net, torch.device("cpu"))
        images, times = torch.rand(2, 3, 4, 4), torch.rand(2)
        got_images, got_times = net(images, times)
        assert torch.equal(got_images, images)
        assert got_images.is_contiguous(memory_format=torch.channels_last)
        assert got_times is times


class TestCompile:
    def test_captures_the_whole_network_in_training_and_evaluation(self, traced):
        checkpoint_of("captured", "compile")
        assert counters["stats"]["unique_graphs"] >= 2
        assert not counters["graph_break"]
        assert counters["aot_autograd"]["ok"] == counters["stats"]["unique_graphs"]

    def test_gives_the_results_of_the_interpreter_and_the_same_checkpoint(self, traced):
        assert_alike(checkpoint_of("usual"), checkpoint_of("captured", "compile"))
        assert counters["stats"]["unique_graphs"]

    def test_goes_with_weight_averaging_and_channels_last(self, traced):
        both = checkpoint_of("both", "ema", "compile", "channels_last")
        assert_alike(checkpoint_of("usual", "ema"), both)
        assert "current_model_state" in torch.load(both, weights_only=True)

    def test_a_run_goes_on_compiled(self, traced):
        whole = checkpoint_of("whole", "compile", epochs=2)
        half = checkpoint_of("half", "compile")
        counters.clear()
        torch.compiler.reset()
        assert zoo("fit", "--ckpt_path", str(half), "--trainer.max_epochs", "2", "--no-test") == 0
        assert counters["stats"]["unique_graphs"]
        assert_alike(whole, folder_of("half") / "checkpoints" / "last.ckpt")

    def test_a_checkpoint_is_tested_compiled_and_loads_as_any_other(self, traced):
        checkpoint = checkpoint_of("captured", "compile")
        task = package.load(checkpoint)
        assert task.architecture._compiled_call_impl is None
        counters.clear()
        torch.compiler.reset()
        assert zoo("test", "--ckpt_path", str(checkpoint), "--config", "trainer/compile") == 0
        assert counters["stats"]["unique_graphs"]

    def test_the_network_is_left_interpreted(self, traced):
        task = fitted(Compile())
        counters.clear()
        task(torch.rand(3, 1, 6, 6))
        assert not counters["stats"]

    def test_feature_maps_come_out_of_a_compiled_network(self, traced):
        net = ToyNet(dropout=0.0).eval()
        images = torch.rand(3, 1, 6, 6)
        expected = net.features(images, ["conv"])["conv"]
        Compile().change(net, torch.device("cpu"))
        logits = net(images)
        torch.testing.assert_close(net.features(images, ["conv"])["conv"], expected)
        torch.testing.assert_close(net(images), logits)

    def test_hands_its_mode_to_torch(self, monkeypatch):
        given = {}
        monkeypatch.setattr(nn.Module, "compile", lambda net, **options: given.update(options))
        monkeypatch.setattr("zoo.training.acceleration.check_compiler", lambda device: None)
        Compile(mode="max-autotune").change(ToyNet(), torch.device("cpu"))
        assert given == {"mode": "max-autotune"}

    @pytest.mark.slow
    def test_a_machine_without_a_compiler_ends_in_one_line(self, zoo_process, tmp_path):
        write_recipe(Path("toy.yaml"), MODEL, DATA)
        words = ("fit", "--config", "toy.yaml", "--config", "trainer/compile")
        empty = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": TOYS}
        found = zoo_process(*words, **empty)
        assert found.returncode == 2, found.stderr
        assert "zoo: error: Compile: a C++ compiler (g++) is needed on cpu" in found.stderr
        assert "Traceback" not in found.stderr

    def test_a_network_that_cannot_be_compiled_ends_in_one_line(self, traced, monkeypatch, capsys):
        def backend(graph, inputs):
            raise RuntimeError("file too short")

        compile = torch.compile
        monkeypatch.setattr(
            nn.Module,
            "compile",
            lambda net, **o: setattr(net, "_compiled_call_impl", compile(net._call_impl, backend=backend)),
        )
        write_recipe(Path("toy.yaml"), MODEL, DATA)
        line = said(capsys, "fit", "--config", "toy.yaml", "--config", "trainer/compile")
        assert line.startswith("zoo: error: Compile: the network can't be compiled")
        assert "file too short" in line
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    @pytest.mark.slow
    def test_inductors_code_gives_the_same_results(self):
        if not compiles():
            pytest.skip("no C++ compiler works here")
        torch.compiler.reset()
        counters.clear()
        assert_alike(checkpoint_of("usual"), checkpoint_of("inductor", "compile"))
        assert counters["inductor"]["pattern_matcher_count"] or counters["inductor"]["fxgraph_cache_hit"]


def test_networks_are_found_once_and_not_their_parts():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.rest = ToyNet(), nn.ModuleList([ToyNet()])
            self.again, self.first.backbone = self.first, ToyNet()

    pair = Pair()
    assert networks_of(pair) == [pair.first, pair.rest[0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator here")
class TestOnTheDevice:
    """On an accelerator; none of these ran where this was written."""

    def test_both_overlays_train_there_and_agree(self):
        device = torch.accelerator.current_accelerator()
        check_compiler(device)
        words = ["--trainer.accelerator", "gpu", "--trainer.devices", "1"]
        write_recipe(Path("usual.yaml"), MODEL, DATA)
        assert zoo("fit", "--config", "usual.yaml", *words) == 0
        write_recipe(Path("fast.yaml"), MODEL, DATA)
        overlays = ["--config", "trainer/compile", "--config", "trainer/channels_last"]
        assert zoo("fit", "--config", "fast.yaml", *overlays, *words) == 0
        files = [folder_of(name) / "checkpoints" / "last.ckpt" for name in ("usual", "fast")]
        a, b = (torch.load(file, weights_only=True)["state_dict"] for file in files)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-4)
