"""What all tasks share: facts, normalisation, groups of parameters, schedulers."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau, StepLR

from zoo.architectures.base import Architecture
from zoo.data.base import Data
from zoo.data.loading import TensorSource
from zoo.errors import UserError
from zoo.factories import ArchitectureFactory, OptimizerFactory, SchedulerFactory
from zoo.facts import Facts
from zoo.tasks.base import Task
from zoo.tasks.normalize import Normalize
from zoo.training.callbacks import Plateau
from zoo.training.parameter_groups import ParameterGroup, frozen_norms, split_parameters
from zoo.training.schedulers import WarmupCosine

warnings.filterwarnings("ignore")
DESCENT = partial(SGD, lr=0.5)


class Net(Architecture):
    def __init__(self, num_classes: int, in_channels: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_channels, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class Toy(Task):
    needs = ("num_classes",)
    monitor = "val/score"
    monitor_mode = "max"

    def __init__(
        self,
        architecture: ArchitectureFactory = Net,
        optimizer: OptimizerFactory = DESCENT,
        scheduler: SchedulerFactory | None = None,
        parameter_groups: list[ParameterGroup] | None = None,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.builds = 0
        self.rates: list[float] = []

    def build(self) -> None:
        self.builds += 1
        self.architecture = self.make("architecture", needs=("num_classes",))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return nn.functional.cross_entropy(self.architecture(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/score", 0.5)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return self.optimizers_for(self.architecture, groups=self.parameter_groups)


class Numbers(Data):
    said: ClassVar[Facts] = {"num_classes": 3, "in_channels": 1, "class_names": ["a", "b", "c"], "mirror": False}

    def __init__(self) -> None:
        super().__init__(batch_size=4)

    @property
    def facts(self) -> Facts:
        return self.said

    def samples(self, split: str) -> TensorSource:
        return TensorSource(torch.randn(8, 1), torch.arange(8) % 3)


def trainer(**options: Any) -> Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(**{"max_epochs": 2, "accelerator": "cpu", "enable_checkpointing": False, **quiet, **options})


def fitted(task: Toy, **options: Any) -> Toy:
    trainer(**options).fit(task, datamodule=Numbers())
    return task


# Facts


def test_facts_come_from_the_data() -> None:
    task = fitted(Toy())
    assert task.facts == Numbers.said
    assert task.hparams["facts"] == Numbers.said
    assert task.architecture.head.out_features == 3
    assert task.builds == 1


def test_own_facts_win_where_nothing_depends_on_them() -> None:
    task = fitted(Toy(facts={"mirror": True}))
    assert task.facts["mirror"] is True
    assert task.facts["num_classes"] == 3


def test_facts_that_differ() -> None:
    with pytest.raises(UserError, match="Toy was made for num_classes 5, the data has 3"):
        fitted(Toy(facts={"num_classes": 5}))


def test_facts_that_are_missing() -> None:
    with pytest.raises(UserError, match=r"Toy needs num_classes, .*: give model\.facts\.num_classes"):
        Toy().configure_model()


def test_predicting_leaves_the_data_no_say() -> None:
    task = Toy(facts={"num_classes": 5})
    trainer().predict(task, datamodule=Numbers())
    assert task.facts == {"num_classes": 5}


def test_wrong_factory() -> None:
    with pytest.raises(UserError, match="SGD can't be used here: it is not a subclass of zoo"):
        Toy(architecture=SGD)


def test_checkpoint_says_it_all() -> None:
    task = fitted(Toy(partial(Net, in_channels=1), scheduler=partial(StepLR, step_size=1)))
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    written = checkpoint["hyper_parameters"]
    assert written["architecture"]["init_args"] == {"in_channels": 1}
    assert written["optimizer"] == {"class_path": "torch.optim.sgd.SGD", "init_args": {"lr": 0.5}}
    assert written["facts"] == Numbers.said
    assert written["_class_path"].endswith("Toy")


# Normalisation


def network(fixed: int | None = None, mean: Any = None, std: Any = None) -> Architecture:
    made = Net(2)
    made.fixed_channels, made.mean, made.std = fixed, mean, std
    return made


def test_normalises_by_the_data() -> None:
    images = torch.rand(2, 3, 4, 4)
    facts: Facts = {"in_channels": 3, "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 4.0]}
    expected = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    torch.testing.assert_close(Normalize(network(), facts)(images), expected)


def test_the_network_s_own_normalisation_wins() -> None:
    images = torch.rand(2, 3, 4, 4)
    facts: Facts = {"in_channels": 3, "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 4.0]}
    found = Normalize(network(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), facts)(images)
    torch.testing.assert_close(found, 2 * images - 1)


def test_grey_is_repeated_for_three_channels() -> None:
    images = torch.rand(2, 1, 4, 4)
    found = Normalize(network(fixed=3), {"in_channels": 1, "mean": [0.5], "std": [0.5]})(images)
    torch.testing.assert_close(found, (2 * images - 1).expand(-1, 3, -1, -1))


def test_without_mean_and_deviation() -> None:
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(Normalize(network(), {"in_channels": 1})(images), images)


def test_channels_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="takes 3 channels, the data has 4"):
        Normalize(network(fixed=3), {"in_channels": 4})
    with pytest.raises(UserError, match="the mean has 3 channels, the images have 1"):
        Normalize(network(mean=(0.5, 0.5, 0.5)), {"in_channels": 1})


def test_normalisation_is_not_saved() -> None:
    assert not Normalize(network(), {"in_channels": 1, "mean": [0.5]}).state_dict().keys() & {"mean", "std"}


# Groups of parameters


def names_in(groups: list[Any], net: nn.Module) -> list[set[str]]:
    by_id = {id(p): name for name, p in net.named_parameters()}
    return [{by_id[id(p)] for p in group["params"]} for group in groups]


def test_first_match_wins() -> None:
    net = Net(2)
    made = split_parameters(
        net, [{"pattern": r"bias$", "weight_decay": 0.0}, {"pattern": r"^head\.", "lr": 0.1}, {"pattern": r"0\.weight"}]
    )
    assert names_in(made, net) == [
        {"body.0.bias", "body.1.bias", "head.bias"},
        {"head.weight"},
        {"body.0.weight"},
        {"body.1.weight"},
    ]
    assert [{k: v for k, v in g.items() if k != "params"} for g in made] == [{"weight_decay": 0.0}, {"lr": 0.1}, {}, {}]


def test_frozen_parameters_are_left_out_and_stay() -> None:
    net = Net(2)
    made = split_parameters(net, [{"pattern": "^body", "frozen": True}])
    assert names_in(made, net) == [{"head.weight", "head.bias"}]
    assert {name for name, p in net.named_parameters() if not p.requires_grad} == {
        name for name, _ in net.named_parameters() if name.startswith("body")
    }


def test_groups_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="no parameter's name has 'hed' in it"):
        split_parameters(Net(2), [{"pattern": "hed"}])
    with pytest.raises(UserError, match="groups before 'head' have all that it matches"):
        split_parameters(Net(2), [{"pattern": "body|head"}, {"pattern": "head", "lr": 0.1}])
    with pytest.raises(UserError, match="freezes every parameter"):
        split_parameters(Net(2), [{"pattern": "", "frozen": True}])
    with pytest.raises(UserError, match="'body' is frozen, so lr has no effect there"):
        split_parameters(Net(2), [{"pattern": "body", "frozen": True, "lr": 0.1}])


def test_groups_reach_the_optimizer() -> None:
    task = Toy(parameter_groups=[{"pattern": "^head", "lr": 0.25}], facts={"num_classes": 3})
    task.configure_model()
    optimizer = task.configure_optimizers()["optimizer"]
    assert [g["lr"] for g in optimizer.param_groups] == [0.25, 0.5]


# Schedulers


def test_one_cycle_gets_the_length_of_the_run() -> None:
    task = fitted(Toy(scheduler=partial(OneCycleLR, max_lr=1.0, pct_start=0.5)), max_epochs=3)
    reference = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = OneCycleLR(reference, max_lr=1.0, pct_start=0.5, total_steps=6)
    expected = []
    for _ in range(6):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        schedule.step()
    assert task.rates == pytest.approx(expected)


def test_steps_are_the_optimizer_s() -> None:
    task = fitted(Toy(scheduler=partial(WarmupCosine, warmup_steps=2)), max_epochs=4, accumulate_grad_batches=2)
    assert task.rates[::2] == task.rates[1::2]
    assert task.rates[::2] == pytest.approx([0.25, 0.5, 0.5, 0.0])


def test_length_that_the_recipe_gives_wins() -> None:
    task = fitted(Toy(scheduler=partial(OneCycleLR, max_lr=1.0, total_steps=100)))
    assert task.trainer.lr_scheduler_configs[0].scheduler.total_steps == 100


def test_endless_run_has_no_length() -> None:
    with pytest.raises(UserError, match=r"give trainer\.max_epochs"):
        fitted(Toy(scheduler=WarmupCosine), max_epochs=-1)


def test_others_step_by_epoch() -> None:
    task = fitted(Toy(scheduler=partial(StepLR, step_size=1, gamma=0.1)))
    assert task.rates == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_other_modes_are_left_alone() -> None:
    task = fitted(Toy(scheduler=partial(CyclicLR, base_lr=0.1, max_lr=0.2, mode="triangular2")))
    assert task.trainer.lr_scheduler_configs[0].scheduler.mode == "triangular2"


@pytest.mark.parametrize("mode", [{}, {"mode": "min"}])  # a parsed recipe also holds the class's default
def test_plateau_waits_for_the_task_s_monitor(mode: dict[str, str]) -> None:
    scheduler = partial(ReduceLROnPlateau, factor=0.1, patience=0, **mode)
    task = fitted(Toy(scheduler=scheduler), max_epochs=4, callbacks=[Plateau()])
    assert task.trainer.lr_scheduler_configs[0].scheduler.mode == "max"
    # The first validation is the best so far; none of the others is better.
    assert task.rates[::2] == pytest.approx([0.5, 0.5, 0.05, 0.005])


def test_plateau_with_rare_validation() -> None:
    scheduler = partial(ReduceLROnPlateau, factor=0.1, patience=0)
    options = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0, "callbacks": [Plateau()]}
    task = fitted(Toy(scheduler=scheduler), max_epochs=6, **options)
    assert task.rates[::2] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.05, 0.05])


# Optimisers and statistics of groups


class Normed(Net):
    """Two branches with batch norm, one without parameters of its own, one with a weight that the network fixes."""

    def __init__(self, num_classes: int = 2, in_channels: int = 1) -> None:
        super().__init__(num_classes, in_channels)
        self.body = nn.Sequential(
            nn.Linear(in_channels, 4),
            nn.BatchNorm1d(4),
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)),
            nn.Dropout(0.5),
        )
        self.neck = nn.BatchNorm1d(4)
        self.neck.weight.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.body(images)))


def test_a_group_has_its_own_optimizer() -> None:
    group = {"pattern": "^head", "optimizer": partial(Adam, lr=0.25), "weight_decay": 0.1}
    task = Toy(parameter_groups=[group, {"pattern": "bias$", "lr": 0.1}], facts={"num_classes": 3})
    task.configure_model()
    optimizer = task.configure_optimizers()["optimizer"]
    assert [type(one) for one in optimizer.optimizers] == [SGD, Adam]
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5, 0.25]
    assert optimizer.param_groups[2]["weight_decay"] == 0.1
    by_name = names_in(optimizer.param_groups, task.architecture)
    assert by_name[2] == {"head.weight", "head.bias"}


def test_one_optimizer_stays_alone() -> None:
    task = Toy(parameter_groups=[{"pattern": "", "optimizer": Adam}], facts={"num_classes": 3})
    task.configure_model()
    assert type(task.configure_optimizers()["optimizer"]) is Adam


def test_both_optimizers_step_once_a_batch() -> None:
    groups = [{"pattern": "^head", "optimizer": partial(Adam, lr=0.25)}]
    task = Toy(parameter_groups=groups, scheduler=partial(WarmupCosine, warmup_steps=1))
    before: dict[str, Tensor] = {}

    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            before.update({k: v.clone() for k, v in pl_module.state_dict().items()})

    fitted(task, max_epochs=3, accumulate_grad_batches=2, gradient_clip_val=0.5, callbacks=[Watch()])
    assert task.trainer.global_step == 3
    assert all(not torch.equal(v, before[k]) for k, v in task.state_dict().items())
    assert [g["lr"] for g in task.trainer.optimizers[0].param_groups] == pytest.approx([0.0, 0.0])


def test_what_the_network_fixes_is_in_no_group() -> None:
    net = Normed()
    assert len(split_parameters(net)) == sum(p.requires_grad for p in net.parameters())
    made = split_parameters(net, [{"pattern": r"neck\.weight"}, {"pattern": "neck"}])
    assert names_in(made, net)[0] == {"neck.bias"}


def test_frozen_statistics_stay() -> None:
    task = Toy(Normed, parameter_groups=[{"pattern": "^body", "frozen": True}])
    fitted(task, limit_val_batches=1)
    net = task.architecture
    for norm in (net.body[1], net.body[2][1]):
        assert norm.num_batches_tracked == 0
    assert net.neck.num_batches_tracked == 4
    task.eval()
    task.train()
    assert [m.training for m in net.body] == [True, False, True, True]
    assert not net.body[2][1].training
    assert net.neck.training


def test_what_a_task_keeps_in_evaluation_stays_so() -> None:
    task = Toy(Normed, parameter_groups=[{"pattern": r"body\.1", "frozen": True}], facts={"num_classes": 3})
    task.configure_model()
    task.train()
    task.architecture.neck.eval()  # as a task does with a network that it only looks through
    task.configure_optimizers()
    assert not task.architecture.neck.training
    assert not task.architecture.body[1].training


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["body.1", "body.2.1", "neck"]),
        (r"body\.1\.weight", []),
        (r"body\.2", ["body.2.1"]),
        (r"neck\.bias", []),
    ],
)
def test_which_statistics_are_frozen(pattern: str, expected: list[str]) -> None:
    net = Normed()
    by_id = {id(m): name for name, m in net.named_modules()}
    assert [by_id[id(m)] for m in frozen_norms(net, [{"pattern": pattern, "frozen": True}])] == expected
    assert frozen_norms(net, [{"pattern": pattern}]) == []


def test_wrong_optimizer_of_a_group() -> None:
    with pytest.raises(UserError, match="Linear can't be used here: it is not a subclass of torch"):
        Toy(parameter_groups=[{"pattern": "head", "optimizer": nn.Linear}])
