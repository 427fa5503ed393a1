"""The conformance kit: tests that every architecture, task and data set must pass.

``zoo check`` runs it on everything installed; a plugin's test file needs one line:

>>> from zoo.testing import conformance
>>> test_everything = conformance("my-plugin")

Each check is a function whose docstring says what must be true; it declares the roles that it applies to.
"""

from zoo.testing.checks import CHECKS as CHECKS
from zoo.testing.checks import Check as Check
from zoo.testing.checks import Failed as Failed
from zoo.testing.checks import Skipped as Skipped
from zoo.testing.runner import Outcome as Outcome
from zoo.testing.runner import check_entry as check_entry
from zoo.testing.runner import conformance as conformance
