"""Lightning's progress bar, with another for the steps in which a generator makes a batch of samples."""

from __future__ import annotations

from lightning.pytorch.callbacks import RichProgressBar


class SamplerBar(RichProgressBar):
    """A bar for the batches, and below it one for the sampler's steps, which goes when a batch is done."""

    _steps_id = None

    def stepped(self, done: int, steps: int) -> None:
        """Show how many of a batch's steps have been taken.

        Args:
            done: steps taken.
            steps: in all.
        """
        if self.is_disabled or self.progress is None:
            return
        if self._steps_id is None:
            self._steps_id = self._add_task(steps, "Sampling")
        if done == 1:
            self.progress.reset(self._steps_id, total=steps)
        self._update(self._steps_id, done, visible=done < steps)

    def _reset_progress_bar_ids(self) -> None:
        super()._reset_progress_bar_ids()
        self._steps_id = None
