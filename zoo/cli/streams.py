"""Output that does not end a run: whoever reads it may leave, its terminal may close, its disk may fill up."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_READER_LEFT = (errno.EPIPE, errno.EIO, errno.ENXIO)  # the last two: a terminal that was closed
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Lasting(io.FileIO):
    """A file descriptor that is turned to the null device once nobody reads it."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what nobody can read."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in _READER_LEFT:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())
                os.close(null)
            elif error.errno not in _FULL:
                raise
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let ``zoo fit | head`` go on when ``head`` ends. Streams that something else replaced stay as they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper or isinstance(getattr(stream.buffer, "raw", None), _Lasting):
            continue
        lasting = io.TextIOWrapper(
            io.BufferedWriter(_Lasting(stream.fileno(), "w", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        stream.flush()
        setattr(sys, name, lasting)
