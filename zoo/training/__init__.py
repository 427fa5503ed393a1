"""What every run does beside the training step: checkpoints, run folders, logging, callbacks, optimisers."""
