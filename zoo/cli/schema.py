"""``zoo schema``: a JSON Schema of recipes, by which editors complete and check every installed class and argument.

jsonargparse writes the schema of a parser; what it does not know is added here: short names, lists that are appended to
(``callbacks+``), and what a factory may be. This requires importing the classes, and allowing more import paths than
recipes may use. Allowed paths can't be revoked, so it runs in a separate process that reads no recipe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zoo import registry
from zoo.cli.parser import Parser
from zoo.errors import UserError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

Schema = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """``zoo schema``: print the schema, or write it to a file and print how an editor finds it.

    Returns:
        0.

    Raises:
        UserError: the file can't be written.
    """
    out = parser().parse_args(argv).out
    text = json.dumps(recipe_schema(), indent=1) + "\n"
    if out is None:
        print(text, end="")
        return 0
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}") from error
    print(f"wrote {out}; first line of a recipe for the YAML extension of VS Code and others:")
    print(f"# yaml-language-server: $schema={out}")
    return 0


def parser() -> Parser:
    """The command's options."""
    made = Parser("schema", "Write a JSON Schema of recipes, with all installed plugins, for editors.")
    made.add_argument("--out", metavar="FILE", help="left out, it is printed")
    return made


def recipe_schema() -> Schema:
    """The schema of recipes with all that is installed now. Classes that can't be imported are printed to stderr.

    Raises:
        UserError: it could not be created.
    """
    with TemporaryDirectory(prefix="zoo-schema-") as folder:
        file = Path(folder) / "schema.json"
        done = subprocess.run(
            [sys.executable, "-m", "zoo.cli.schema", str(file)], stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise UserError("the schema could not be created; see the error above")
        return json.loads(file.read_text(encoding="utf-8"))


# In the separate process


def _write(file: Path) -> None:
    _import_all()
    recipe, parts = (_of_parser(made()) for made in (_fit_parser, _factory_parser))
    definitions = {**parts["$defs"], **recipe["$defs"]}
    for factory, base in _factories().items():
        definitions[factory] = {"$ref": f"#/$defs/{base.__name__}"}
    fit = recipe["properties"]["fit"]
    schema = {
        "$schema": recipe["$schema"],
        "title": "A recipe of the zoo",
        "type": "object",
        "additionalProperties": False,
        "properties": fit["properties"],
        "$defs": _reachable(fit["properties"], definitions),
    }
    file.write_text(json.dumps(_completed(schema)), encoding="utf-8")


def _import_all() -> None:
    import timm.optim  # noqa: F401  so that its classes are known, too

    from zoo.parsing import import_and_allow

    for entry in registry.entries():
        import_and_allow(entry.full_path)
        if (reason := registry.failure(entry.full_path)) is not None:
            print(f"zoo: left out: {reason}", file=sys.stderr)


def _fit_parser() -> ArgumentParser:
    from zoo.cli.lightning import ZooCLI
    from zoo.parsing import ZooParser

    class Built(Exception):  # noqa: N818  no error: it ends the command line before anything is parsed
        """Carries the finished parser to the caller."""

    class ParserOnly(ZooCLI):
        """Stops when its parser is built."""

        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise Built(parser)

    try:
        ParserOnly("fit", parser_class=ZooParser, seed_everything_default=0, auto_configure_optimizers=False, args=[])
    except Built as built:
        return built.args[0]
    raise AssertionError("the command line was not built")


def _factories() -> dict[str, type]:
    """The classes that each kind of factory may build."""
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torchvision.transforms.v2 import Transform

    from zoo.architectures.base import Architecture

    return {
        "ArchitectureFactory": Architecture,
        "OptimizerFactory": Optimizer,
        "SchedulerFactory": LRScheduler,
        "TransformFactory": Transform,
    }


def _factory_parser() -> ArgumentParser:
    """A parser of the classes, without the arguments that a task fills in."""
    import inspect

    from zoo import factories
    from zoo.parsing import ZooParser

    parser = ZooParser()
    for factory, base in _factories().items():
        filled = inspect.signature(getattr(factories, factory).__call__).parameters
        parser.add_subclass_arguments(base, factory, skip=set(filled) - {"self"}, fail_untyped=False)
    return parser


def _of_parser(parser: ArgumentParser) -> Schema:
    from jsonargparse import set_parsing_settings

    set_parsing_settings(import_path_allowlist=_everything(), subclasses_disabled=[_is_other_module])
    return json.loads(parser.get_completion_script("jsonschema"))


def _everything() -> list[str]:
    """Allow every installed package, whose classes are imported already; no recipe is read here."""
    from importlib.metadata import packages_distributions

    from zoo.parsing import DENIED

    roots = {*packages_distributions(), *sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
    return [*sorted(root for root in roots if root.isidentifier() and root != "jsonargparse"), *DENIED]


def _is_other_module(cls: Any) -> bool:
    """Layers, which no recipe chooses: following their arguments would lead through the whole of torch."""
    from torch import nn
    from torchvision.transforms.v2 import Transform

    from zoo.architectures.base import Architecture
    from zoo.tasks.base import Task

    return isinstance(cls, type) and issubclass(cls, nn.Module) and not issubclass(cls, (Task, Architecture, Transform))


# What jsonargparse's schema lacks


def _reachable(node: Any, definitions: Schema) -> Schema:
    """The definitions that are used."""
    found: Schema = {}
    waiting = list(_references(node))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = definitions[name]
            waiting += _references(definitions[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _completed(node: Any) -> Any:
    """The schema with short names, without classes that recipes may not use, and with keys that append to lists."""
    if isinstance(node, list):
        return [_completed(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {key: _completed(value) for key, value in node.items() if key != "dict_kwargs"}
    if "anyOf" in node:
        node["anyOf"] = _with_names(node["anyOf"])
    if isinstance(properties := node.get("properties"), dict):
        if "facts" in properties:  # checked by ``zoo.contracts.check_facts``, not by the parser
            properties["facts"] = {"type": ["object", "null"]}
        node["properties"] = {**properties, **{f"{k}+": v for k, v in properties.items() if _holds_list(v)}}
    return node


def _with_names(choices: list[Schema]) -> list[Schema]:
    """The allowed classes among the alternatives, by all of their names, and also as a plain string."""
    paths = [path for choice in choices if (path := _class_path(choice))]
    if not paths:
        return choices
    kept = [choice for choice in choices if (path := _class_path(choice)) is None or _is_allowed(path)]
    names: list[str] = []
    for choice in kept:
        if path := _class_path(choice):
            known = _names(path, paths)
            choice["properties"]["class_path"] = {"enum": known}
            names += known
    if not names:
        return [{"type": "string"}]
    files = {"type": "string", "pattern": r"\.ya?ml$", "description": "A file with class_path and init_args."}
    kept = [choice for choice in kept if choice != {"type": "string"}]
    return [{"enum": names}, files, *kept]


def _class_path(choice: Schema) -> str | None:
    said = (choice.get("properties") or {}).get("class_path") or {}
    return said.get("const")


def _names(path: str, others: Sequence[str]) -> list[str]:
    """The class's names: its short name, if unique here, its stable path, and its defining path."""
    short = path.rpartition(".")[2]
    entries = [e for e in registry.find(short) if path in (e.full_path, e.stable_path)]
    alone = sum(other.rpartition(".")[2] == short for other in others if not other.startswith("timm.")) == 1
    meant = any(e.has_name for e in entries) or alone
    named = meant and not path.startswith("timm.")  # timm is imported for its optimisers only if one is named in full
    return list(
        dict.fromkeys([*([short] if named else []), path, *(p for e in entries for p in (e.stable_path, e.full_path))])
    )


def _is_allowed(path: str) -> bool:
    """Whether a recipe may use this class."""
    from zoo.parsing import DENIED, LIBRARIES

    registered = {p for entry in registry.find(path.rpartition(".")[2]) for p in (entry.full_path, entry.stable_path)}
    within = any(path.startswith(f"{library}.") for library in LIBRARIES)
    return path in registered or (within and path not in DENIED)


def _holds_list(schema: Schema) -> bool:
    return schema.get("type") == "array" or any(_holds_list(choice) for choice in schema.get("anyOf", ()))


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
