#!/usr/bin/env bash
# make.sh FOLDER: make the run folders that lie beside this file anew, in a folder that is not there yet.
# Needs `zoo` and `python` of one environment on the path. README.md says what they are for.
set -euo pipefail
[[ $# == 1 && ! -e $1 ]] || { echo "usage: make.sh FOLDER, which must not be there yet" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1" && cd "$1"
export OMP_NUM_THREADS=1 WANDB_MODE=offline WANDB_SILENT=true

fit() { # NAME SAVE_EVERY KEPT_STEP ARGUMENTS...: one run; of its checkpoints the last, the best and one in the middle
  local name=$1 every=$2 middle=$3
  shift 3
  zoo fit "$@" --trainer.accelerator cpu --checkpoint_every_n_steps "$every" --out "$name"
  rm -rf "$name/pictures" "$name/wandb" "$name"/result*.png
  find "$name/checkpoints" -name 'step=*.ckpt' ! -name "step=$middle.ckpt" -delete
  if cmp -s "$name/checkpoints/best.ckpt" "$name/checkpoints/last.ckpt"; then rm "$name/checkpoints/best.ckpt"; fi
}

plain="{class_path: PlainNet, init_args: {depth: 5, width: 0.125}}"
crops=(--data.image_size 32 --data.resize 40 --data.batch_size 4 --data.val_fraction 0.2 --data.test_fraction 0.2)

fit classification 16 16 --config resnet --data Digits --data.batch_size 128 --trainer.max_epochs 3 \
  --trainer.check_val_every_n_epoch 2 --model.architecture.depth 8 --model.architecture.width 0.125
fit adaptive_style_transfer 20 20 --config adain --trainer.max_epochs 2 --trainer.precision 32-true \
  --trainer.logger false "${crops[@]}" --data.crops 64 --data.style "[brick, ihc, hubble]" \
  --model.architecture.encoder "$plain" --model.architecture.layers null --model.architecture.width 1 \
  --model.style_layers null --model.optimizer.lr 0.03 --model.scheduler.max_lr 0.03
fit fast_style_transfer 3 3 --config fast_style --trainer.max_epochs 2 --trainer.precision 32-true \
  --trainer.logger false --trainer.gradient_clip_val 1.0 "${crops[@]}" --data.crops 16 \
  --model.architecture.width 0.0625 --model.architecture.blocks 0 --model.perceptual "$plain" \
  --model.style_layers null --model.content_layers null --model.scheduler.max_lr 0.01 \
  --model.optimizer "{class_path: torch.optim.SGD, init_args: {lr: 0.01, momentum: 0.9}}"
fit deep_dream 3 3 --config deepdream --trainer.logger false --data.picture "[chelsea, coffee]" --data.size 32 \
  --data.steps 4 --model.perceptual "{class_path: ResNet, init_args: {depth: 8, width: 0.125}}" \
  --model.layers "{layer2: 1.0, layer3: 0.5}" --model.scales "[0.5, 1.0]" --model.jitter 4
fit image_fitting 3 6 --config cppn --trainer.logger false --trainer.max_epochs 2 --data.picture "[astronaut, coffee]" \
  --data.size 24 --data.steps 5 --model.architecture.depth 2 --model.architecture.units 16 --model.pixels 256
fit style_transfer 2 2 --config style_transfer --trainer.logger false --trainer.max_steps 3 --data.content astronaut \
  --data.style "[ihc, hubble]" --data.style_weights "[1.0, 3.0]" --data.style_size 24 --data.size 16 --data.steps 4 \
  --model.perceptual "$plain" --model.style_layers null --model.content_layers null --model.scales "[0.5, 1.0]"
fit texture_synthesis 2 2 --config texture --trainer.logger false --data.texture ihc --data.size 16 --data.steps 3 \
  --model.perceptual "{class_path: VGG, init_args: {depth: 11, width: 0.02, pooling: average}}" --model.layers null \
  --model.optimizer "{class_path: torch.optim.LBFGS, init_args: {max_iter: 4, history_size: 3,
    line_search_fn: strong_wolfe}}" --model.scales "[0.75, 1.0]"

PYTHONPATH=$here python - <<'PYTHON'
"""Note what each run's last state is, and what test and prediction give."""

import json
import shutil
from pathlib import Path

import torch
from arithmetic import fingerprint
from PIL import Image, ImageStat
from sklearn.datasets import load_digits

from zoo.__main__ import main

FILES = ["--data.files", "[chelsea, ihc]", "--data.size", "48"]
PREDICT = {
    "classification": ["--data.files", "digits/*.png"],
    "adaptive_style_transfer": [*FILES, "--data.style", "hubble"],
    "fast_style_transfer": FILES,
    "deep_dream": [],
    "image_fitting": ["--data.size", "40"],
    "style_transfer": [],
    "texture_synthesis": [],
}
torch.set_num_threads(1)
digits = Path("digits")
digits.mkdir()
for i, shades in enumerate(load_digits().images[:5]):
    Image.fromarray((shades * (255 / 16)).round().astype("uint8")).save(digits / f"{i}.png")
for name, flags in PREDICT.items():
    run, cpu = Path(name), ["--trainer.accelerator", "cpu"]
    assert main(["test", "--ckpt_path", name, "--out", "test", *cpu]) == 0
    assert main(["predict", "--ckpt_path", name, "--out", "predict", *flags, *cpu]) == 0
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (middle,) = (run / "checkpoints").glob("step=*.ckpt")
    rows = json.loads(Path("predict/predictions.json").read_text())
    found = []
    for row in rows:
        row["name"] = Path(row["name"]).name
        with Image.open(Path("predict") / row.pop("picture")) as picture:
            figures = ImageStat.Stat(picture.convert("RGB"))
            found.append({"size": list(picture.size), "mean": figures.mean, "stddev": figures.stddev})
    if name == "classification":
        found = []  # captions, whose look is not the checkpoint's
    expected = {
        "torch": torch.__version__,
        "arithmetic": fingerprint(),
        "middle": middle.name,
        "steps": last["global_step"],
        "last": {
            key: [float(tensor.double().sum()), float(tensor.double().abs().sum())]
            for key, tensor in last["state_dict"].items()
        },
        "test": json.loads(Path("test/results.json").read_text()),
        "predict": {"flags": flags, "rows": rows, "pictures": found},
    }
    (run / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    for folder in ("test", "predict"):
        shutil.rmtree(folder)
shutil.rmtree(digits)
PYTHON
