"""``zoo check``: the conformance kit over what is installed, as a command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.cli.parser import Parser

if TYPE_CHECKING:
    from zoo.testing import Outcome


def main(argv: Sequence[str]) -> int:
    """``zoo check NAME…``: run all checks of the named entries or distributions, or of everything that is installed.

    Returns:
        0 if none failed, else 1.

    Raises:
        UserError: nothing has that name.
    """
    names = parser().parse_args(argv).names
    from zoo.testing.runner import check_entry, entries_of

    outcomes: list[Outcome] = []
    for entry in entries_of(names):
        start = time.perf_counter()
        found = check_entry(entry)
        for line in (str(o) for o in found if o.status != "passed"):
            print(line, flush=True)
        passed = sum(o.status == "passed" for o in found)
        print(
            f"{entry.label}: {passed} of {len(found)} checks passed in {time.perf_counter() - start:.1f} s", flush=True
        )
        outcomes += found
    print(summary(outcomes))
    return int(any(o.status == "failed" for o in outcomes))


def parser() -> Parser:
    """The command's options."""
    about = "Check that entries do what their kind must do; all that is installed where no name is given."
    made = Parser("check", about)
    made.add_argument("names", nargs="*", metavar="NAME", help="a registered class, its path, or a distribution")
    return made


def summary(outcomes: Sequence[Outcome]) -> str:
    """``N checks, N passed, 0 skipped``, and the number of failed ones if any."""
    count = {status: sum(o.status == status for o in outcomes) for status in ("passed", "skipped", "failed")}
    failed = f", {count['failed']} failed" if count["failed"] else ""
    return f"{len(outcomes)} checks, {count['passed']} passed, {count['skipped']} skipped{failed}"
