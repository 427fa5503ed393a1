"""The recipe parser: it resolves the names of registered classes, and refuses all others.

jsonargparse finds a class by its short name among the subclasses that are already imported. So the right module only
has to be imported in time: a custom loader (``set_loader``) sees every configuration file and every value of the
command line, and imports the classes that it names. The import lists allow the registered classes and listed parts of
libraries; everything else is refused before it is imported.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, set_loader, set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from zoo import registry
from zoo.errors import UserError
from zoo.facts import FactValue
from zoo.parsing_errors import condense, shortened
from zoo.parsing_yaml import LARGEST, load_yaml, size

LIBRARIES = (
    "torch.optim",
    "torch.nn",
    "timm.optim",
    "torchvision.transforms.v2",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.fabric.plugins",
)
# These take functions, or execute their arguments.
DENIED = (
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.lambda_function",
    "torchvision.transforms.v2.Lambda",
    "torchvision.transforms.v2._misc.Lambda",
)


def _paths_of(found: Iterable[registry.Entry]) -> list[str]:
    return [path for entry in found for path in {entry.full_path, entry.stable_path}]


set_parsing_settings(
    import_path_denylist=["*", *DENIED],
    import_path_allowlist=[*LIBRARIES, *_paths_of(registry.entries())],
    instantiate_subclass_spec_in_any=False,
)


# A text is a value from the command line; whatever else a recipe gives is right as it is, until the task checks it.
register_type(
    FactValue,
    serializer=lambda value: value,
    deserializer=yaml.safe_load,
    deserializer_exceptions=(yaml.YAMLError,),
    type_check=lambda value, _: not isinstance(value, str),
)


def import_and_allow(text: str) -> None:
    """Import the entry with this name or path, and add the class's path to the allowed imports."""
    found = registry.mentioned(text)
    registry.import_named(text)
    if found and registry.failure(text) is None:
        homes = {f"{cls.__module__}.{cls.__qualname__}" for cls in (entry.load() for entry in found)}
        set_parsing_settings(import_path_allowlist=sorted({*homes, *_paths_of(found)}))


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            # Strings in the facts are never class names.
            if not (key == "facts" and isinstance(value, dict) and "class_path" not in value):
                yield from _strings(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _strings(value)


# Names that Lightning uses for its own classes, too: they mean the library's.
IN_FULL = {"ReduceLROnPlateau": "torch.optim.lr_scheduler.ReduceLROnPlateau"}


def _own_in_full(name: str) -> str:
    """The stable path of the zoo's class if a plugin uses the same name; else the text itself.

    Once the plugin's class is imported, the name alone would be ambiguous to jsonargparse.
    """
    meant = [e for e in registry.find(name) if e.has_name and len(registry.find(name, e.kind)) > 1]
    return meant[0].stable_path if meant else name


def _in_full(node: Any) -> Any:
    """The tree with such names replaced by paths where a class is allowed; in a list, only in a ``class_path``."""
    if isinstance(node, str):
        return IN_FULL.get(node, node)
    if isinstance(node, list):
        return [_in_full(value) if isinstance(value, dict) else value for value in node]
    if not isinstance(node, dict):
        return node
    return {k: _name_in_full(k, v) if isinstance(v, str) else _in_full(v) for k, v in node.items()}


def _name_in_full(key: str, value: str) -> str:
    if key == "class_path" and (claimed := registry.clash(value)) is not None:
        raise UserError(claimed)  # else it would mean whichever was imported
    return _own_in_full(IN_FULL.get(value, value) if key in ("class_path", "scheduler") else value)


def load_recipe(text: str) -> Any:
    """Load plain YAML and import the registered classes that it names.

    Raises:
        yaml.YAMLError: it is not valid YAML, gives a key twice, or holds values that can't be used.
    """
    # What jsonargparse makes of a null that is given to a class within a class.
    value = _in_full(None if text == "None" else load_yaml(text))
    for found in _strings(value):
        import_and_allow(found)
    return value


set_loader("zoo", load_recipe, exceptions=(yaml.YAMLError,))


PLAIN = ("--config", "-c", "--ckpt_path", "--out")  # options whose value is never a class


def _words_in_full(words: Sequence[str]) -> list[str]:
    return [
        word if before in PLAIN or word.startswith(tuple(f"{option}=" for option in PLAIN)) else _word_in_full(word)
        for before, word in zip(["", *words], words, strict=False)
    ]


_NEGATIVE = re.compile(r"-(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|-\.?inf", re.IGNORECASE)


def with_negative_values(words: Sequence[str]) -> list[str]:
    """The words with ``--lr -1e-3`` as ``--lr=-1e-3``: argparse would take the value for an option."""
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"--[^=]+", joined[-1]) and _NEGATIVE.fullmatch(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _word_in_full(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{_own_in_full(IN_FULL.get(value, value))}"


class ZooParser(LightningArgumentParser):
    """A parser that resolves registered names and reports errors in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("parser_mode", "zoo")
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._builders: list[tuple[Any, type, bool]] = []

    # The three calls that Lightning 2.6 makes and jsonargparse 5 no longer has, by the names that stay.

    def add_instantiator(self, instantiator: Any, class_type: Any, subclasses: bool = True, *rest: Any) -> None:
        """Register a function that builds a class for Lightning."""
        self._builders.append((instantiator, class_type, subclasses))

    def instantiate_classes(self, cfg: Any, **kwargs: Any) -> Any:
        """Build all objects of a configuration."""
        return self.instantiate(cfg, instantiators=self._builders, **kwargs)

    def dump(self, *args: Any, skip_none: bool | None = None, **kwargs: Any) -> str:
        """Write a configuration as text."""
        return super().dump(*args, **kwargs if skip_none is None else {"skip_unset": skip_none, **kwargs})

    # Parsing

    @property
    def default_env(self) -> bool:
        """False: jsonargparse would let ``JSONARGPARSE_DEFAULT_ENV`` read every option from the environment."""
        return False

    @default_env.setter
    def default_env(self, default_env: bool) -> None:
        self._default_env = False

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Parse, after importing the classes that the arguments name."""
        words = _words_in_full(with_negative_values(sys.argv[1:] if args is None else args))
        for word in words:
            import_and_allow(word.split("=", 1)[-1])
        return super().parse_args(words, *rest, **kwargs)

    def parse_object(self, cfg_obj: Any, *rest: Any, **kwargs: Any) -> Any:
        """Parse plain data, after importing the classes that it names.

        Raises:
            UserError: with shared values expanded it is too large.
        """
        tree = cfg_obj if isinstance(cfg_obj, dict) else cfg_obj.as_dict()
        if size(tree, {}) > LARGEST:
            raise UserError(f"a recipe or checkpoint that expands to more than {LARGEST:,} values is refused")
        for text in _strings(tree):
            if "\0" in text:
                raise UserError(f"a recipe or checkpoint holds a NUL character: {text[:60]!r}")
            import_and_allow(text)
        cfg_obj = _in_full(cfg_obj)
        return super().parse_object(cfg_obj, *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error in one line and exit with status 2; the full report with ``--debug``."""
        if self.exit_on_error and not os.environ.get("ZOO_DEBUG"):
            sys.stderr.write(f"zoo: error: {shortened(condense(message))}\n")
            sys.exit(2)
        super().error(message, ex)
        raise AssertionError("unreachable")


def refuse_functions(config: Any, where: str = "") -> None:
    """Refuse a parsed configuration that names a function, which an allowed class might call.

    Raises:
        UserError: it names a function.
    """
    if isinstance(config, Namespace):
        config = vars(config)
    if isinstance(config, dict):
        for key, value in config.items():
            refuse_functions(value, f"{where}.{key}".strip("."))
    elif isinstance(config, list | tuple):
        for value in config:
            refuse_functions(value, where)
    elif inspect.isroutine(config):
        place = where.replace(".init_args", "")
        raise UserError(f"{place}: {config.__name__} is a function; a recipe may name classes only")


def words_for_enums(config: Any) -> None:
    """Write the members of an ``Enum`` that a library has as defaults as words, so that a recipe can hold them."""
    values = vars(config) if isinstance(config, Namespace) else config
    places = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(places):
        if isinstance(value, Enum) and isinstance(value, str):
            values[key] = str(value.value)
        else:
            words_for_enums(value)


def from_spec(base: type, spec: dict[str, Any]) -> Any:
    """Build an object from plain data, under the same import lists as a recipe.

    Args:
        base: what its class must be a subclass of.
        spec: ``class_path`` and ``init_args``.

    Raises:
        jsonargparse.ArgumentError: the data names something else, or wrong arguments.
    """
    parser = ZooParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", fail_untyped=False)
    parsed = parser.parse_object({"it": spec})
    refuse_functions(parsed["it"])
    return parser.instantiate(parsed)["it"]
