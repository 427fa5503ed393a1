"""Gives loaders of third parties their position back where Lightning forgets to."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer


class RestoreLoaders(Callback):
    """Restores the state of stateful training loaders (litData's, torchdata's) before the first batch.

    Lightning does so when it sets the loaders up, except after an epoch's end. Where an optimiser or schedule asks for
    the number of steps, it sets them up before it has read the state, and they would silently start anew.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load what is still waiting to be loaded, and start the loaders from there."""
        loop = trainer.fit_loop
        states, loop._combined_loader_states_to_load = loop._combined_loader_states_to_load, []
        if any(states) and loop._combined_loader is not None:  # the zoo's own loaders have empty states
            loop._combined_loader._load_state_dicts(states)
            iter(loop._data_fetcher)  # type: ignore[arg-type]  # it is there since the loader is
