"""The exceptions that end a command in one line."""

from typing import ClassVar


class UserError(Exception):
    """A mistake of the user; its text is the whole message (what is wrong, where, and what would be right).

    Attributes:
        status: the command's exit status.
    """

    status: ClassVar[int] = 2


class RunFailed(UserError):  # noqa: N818  named for what happened
    """A run that was asked for correctly and failed on the way, such as one whose loss became NaN."""

    status = 1
