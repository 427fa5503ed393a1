"""``zoo doctor``: versions, devices, plugins, W&B and data on this machine, and which of them are broken.

``--quick`` imports no library and no plugin: it checks that modules exist, not that they can be imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from importlib.metadata import EntryPoint, PackageNotFoundError, requires, version
from pathlib import Path

from zoo import __version__, registry
from zoo.cli import verbs
from zoo.cli.listing import claims
from zoo.cli.parser import Parser
from zoo.cpus import usable_cpus
from zoo.errors import UserError
from zoo.registry import Entry
from zoo.source import mentions

LIBRARIES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "jsonargparse", "wandb")
ALIASES = {"networks": "architectures", "models": "architectures", "optimizers": "parts", "callbacks": "parts"}
WIDTH = 14  # of the column of names


class Report:
    """Prints lines at once, and counts those that report something broken."""

    def __init__(self) -> None:
        self.broken = 0

    def section(self, title: str) -> None:
        """Start a section."""
        print(f"\n{title}")

    def say(self, name: str, text: str) -> None:
        """Print a fact."""
        print(f"  {name:<{WIDTH}}  {text}", flush=True)

    def fail(self, name: str, text: str) -> None:
        """Print something broken, and count it."""
        self.broken += 1
        print(f"! {name:<{WIDTH}}  {text}", flush=True)


def main(argv: list[str]) -> int:
    """Print the report.

    Returns:
        1 if something is broken, else 0.

    Raises:
        UserError: an argument other than ``--quick`` is given.
    """
    quick, report = parser().parse_args(argv).quick, Report()
    _machine(report)
    _versions(report)
    if not quick:
        _devices(report)
    _plugins(report, quick)
    _commands(report, quick)
    _contracts(report, quick)
    _recipes(report)
    _wandb(report)
    _data(report)
    print(f"\n{report.broken or 'nothing'} broken" + (" (looked up, not imported)" if quick else ""))
    return 1 if report.broken else 0


def parser() -> Parser:
    """The command's options."""
    about = """\
Versions, devices, plugins, recipes, W&B and data on this machine. What is
broken is marked with `!`, and makes the exit status 1."""
    made = Parser("doctor", about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="import nothing: plugins are looked up, devices left out")
    return made


def _machine(report: Report) -> None:
    print(f"zoo {__version__}")
    report.section("machine")
    report.say("Python", f"{sys.version.split()[0]}, {sys.executable}")
    report.say("platform", _platform())
    report.say("CPU", f"{usable_cpus()} usable of {os.cpu_count()}")
    report.say("memory", _memory())


def _platform() -> str:
    if not hasattr(os, "uname"):
        return sys.platform
    system = os.uname()  # the module ``platform`` costs a fifth of this command's time
    return f"{system.sysname} {system.release} {system.machine}"


def _memory() -> str:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return "not told by this system"
    return _gib(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


# Libraries


def _versions(report: Report) -> None:
    report.section("versions")
    ranges = _ranges()
    for name in LIBRARIES:
        wanted = ranges.get(name, "")
        try:
            found = version(name)
        except PackageNotFoundError:
            report.fail(name, f"not installed (wanted: {wanted or 'any'})")
            continue
        if _fits(found, wanted):
            report.say(name, found)
        else:
            report.fail(name, f"{found}, outside of the range {wanted}")


def _ranges() -> dict[str, str]:
    """The version ranges that the zoo's own metadata asks for."""
    import re

    try:
        lines = requires("lightning-zoo") or []
    except PackageNotFoundError:  # run from a folder that is not installed
        return {}
    plain = (line.partition(";") for line in lines)
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?", text) for text, _, marker in plain if not marker)
    return {match[1].lower(): match[2].strip() for match in found if match}


def _fits(found: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)


def _devices(report: Report) -> None:
    report.section("devices")
    try:
        import torch
    except Exception as error:  # a broken installation raises anything, from OSError to AttributeError
        report.fail("torch", f"can't be imported: {type(error).__name__}: {error}")
        return
    report.say("cpu", f"{torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        report.say(f"cuda:{i}", f"{about.name}, {_gib(about.total_memory)}, CUDA {torch.version.cuda}")
    if not torch.cuda.is_available():
        report.say(
            "cuda", f"none (torch is built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'})"
        )
    if torch.backends.mps.is_available():
        report.say("mps", "Apple GPU")


# Plugins


def _plugins(report: Report, quick: bool) -> None:
    report.section("classes")
    for message in registry.unreadable():
        report.fail("distribution", message)
    counts: dict[str, int] = defaultdict(int)
    for entry in registry.entries():
        counts[entry.distribution] += 1
        problem = _lookup_problem(entry) if quick else _import_problem(entry)
        if problem:
            report.fail(entry.name, problem)
    for distribution, count in counts.items():
        report.say(distribution, f"{count} registered")
    for name in dict.fromkeys(entry.name for entry in registry.entries()):
        for claim in claims(name):
            report.say(name, claim.partition(" ")[2])
    for point in registry.unknown_groups():
        dist = registry.distribution_of(point)
        report.fail(point.name, f"registered by {dist} in {point.group}, which the zoo does not read; {_groups(point)}")


def _groups(point: EntryPoint) -> str:
    """A suggestion for the group that was probably meant."""
    name = point.group.removeprefix("zoo.")
    close = [ALIASES[name]] if name in ALIASES else registry.suggest(name, registry.GROUPS)
    return f"did you mean zoo.{close[0]}?" if close else f"it reads zoo.{', zoo.'.join(registry.GROUPS)}"


def _commands(report: Report, quick: bool) -> None:
    """The verbs that plugins add; nothing if there are none."""
    if registry.commands():
        report.section("commands")
    for entry in registry.commands():
        name = verbs.called(entry)
        if problem := _lookup_problem(entry) or ("" if quick else _command_problem(entry)):
            report.fail(name, problem)
            continue
        taken = f"; {entry.name} is {'the zoo' if entry.name in verbs.OWN else 'another plugin'}'s, too"
        report.say(name, f"zoo {name}, of {entry.distribution}{taken if name != entry.name else ''}")


def _contracts(report: Report, quick: bool) -> None:
    """The forms, roles and facts that plugins add; nothing where there are none."""
    if registry.contract_points():
        report.section("contracts")
    for point in registry.contract_points():
        entry = Entry("contracts", point)
        if problem := _lookup_problem(entry) or ("" if quick else _contract_problem(point)):
            report.fail(entry.name, problem)
        else:
            report.say(entry.name, f"of {entry.distribution}")


def _contract_problem(point: EntryPoint) -> str | None:
    from zoo.contracts import load

    try:
        load(point)
    except UserError as error:
        return str(error)
    return None


def _command_problem(entry: Entry) -> str | None:
    try:
        found = entry.imported()
    except UserError as error:
        return str(error).removeprefix(f"{entry.name} is ")
    return None if callable(found) else f"registered by {entry.distribution} as {entry.point.value}, not a function"


def _lookup_problem(entry: Entry) -> str | None:
    spec = registry.locate(entry.module)
    if spec is None:
        return f"registered by {entry.distribution} as {entry.point.value}: there is no module {entry.module}"
    name = entry.full_path.rpartition(".")[2]
    if not mentions(entry.module, name):
        return f"registered by {entry.distribution} as {entry.point.value}: {entry.module} has no {name}"
    return None


def _import_problem(entry: Entry) -> str | None:
    try:
        found = entry.load()
    except UserError as error:
        return str(error).removeprefix(f"{entry.name} is ")
    base = _base(entry.kind)
    if base is not None and not issubclass(found, base):
        return f"registered by {entry.distribution} among the {entry.kind}, but is not a subclass of {base.__name__}"
    return None


def _base(kind: str) -> type | None:
    """The base class of each kind; parts may be anything."""
    from importlib import import_module

    name = {"architectures": "Architecture", "tasks": "Task", "data": "Data"}.get(kind)
    return getattr(import_module(f"zoo.{kind}.base"), name) if name else None


def _recipes(report: Report) -> None:
    report.section("recipes")
    for point in registry.recipe_packages():
        folders = registry.recipe_folders(point)
        count = sum(len(registry.yaml_files(folder)) for folder in folders)
        if not folders:
            report.fail(point.name, f"there is no package {point.value}")
        elif not count:
            report.fail(point.name, f"no .yaml file in {point.value}; are they among the distribution's package data?")
        else:
            report.say(point.name, f"{count} in {', '.join(map(str, folders))}")
    owners = defaultdict(list)
    for recipe in registry.recipes():
        owners[recipe.name].append(recipe)
    for name, claimed in owners.items():
        if len({recipe.package for recipe in claimed}) < len(claimed):
            report.fail(name, f"brought twice under one package name: {' and '.join(str(r.path) for r in claimed)}")
        elif len(claimed) > 1:
            report.say(name, _said_of_recipes(claimed))


def _said_of_recipes(claimed: list[registry.Recipe]) -> str:
    names = " or ".join(r.qualified for r in claimed if r.label != r.name)
    return f"is the zoo's own; plugins have others: say {names}" if claimed[0].ours else f"claimed twice; say {names}"


# W&B and data


def _wandb(report: Report) -> None:
    report.section("W&B")
    mode, key = os.environ.get("WANDB_MODE", ""), _key_source(report)
    report.say("WANDB_MODE", mode or "not set")
    report.say("API key", key or "none (`wandb login` keeps one)")
    if mode == "online" and key is None:
        report.fail("runs", "can't be kept: WANDB_MODE asks for online, and there is no key")
    elif mode in ("disabled", "offline", "dryrun") or key is None:
        report.say("runs", "not kept" if mode == "disabled" else "kept offline; `wandb sync` sends them later")
    else:
        report.say("runs", "kept online; offline without an internet connection")


def _key_source(report: Report) -> str | None:
    """Where the API key for W&B was found. Never prints the key."""
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if os.environ.get(variable):
            return f"in {variable}"
    import netrc
    from urllib.parse import urlsplit

    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    path = _netrc_file()
    try:
        return f"in {path}" if netrc.netrc(path).authenticators(server) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        report.fail("netrc", f"{path} can't be read: {error.strerror}")
    except netrc.NetrcParseError as error:  # its text may quote a key
        report.fail("netrc", f"{path} is malformed in line {error.lineno}")
    return None


def _netrc_file() -> Path:
    """The file that wandb reads the key from."""
    if os.environ.get("NETRC"):
        return Path(os.environ["NETRC"]).expanduser()
    found = (Path.home() / name for name in (".netrc", "_netrc"))
    return next((path for path in found if path.exists()), Path.home() / ".netrc")


def _data(report: Report) -> None:
    report.section("data")
    root = Path(os.environ.get("ZOO_DATA") or "data")
    report.say(
        "root", f"{root.absolute()} ({'from ZOO_DATA' if os.environ.get('ZOO_DATA') else 'ZOO_DATA is not set'})"
    )
    if not root.is_dir():
        report.say("there", "nothing: the folder does not exist")
        return
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    report.say("there", ", ".join(folders) or "nothing")
