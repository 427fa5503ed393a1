"""What every run needs besides the training step: checkpoints, run folders, logging, callbacks, optimisers."""
