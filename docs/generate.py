"""Writes the pages that are made and not typed: the catalogue, from the registry and docstrings, and the results.

Only files whose text changed are written, so that a second build is quick.
"""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo import contracts, registry, results, source
from zoo.cli import listing, showing, verbs
from zoo.contracts.forms import FORMS
from zoo.contracts.roles import ROLES
from zoo.registry import Entry, Recipe

# The plugin whose rows the pages on depth and ingredients show; it need not be installed for the site to be built.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins" / "zoo-studies" / "src"))

from zoo_studies import book, depth_page, ingredients_page

TITLES = {
    "architectures": ("Architectures", "Networks: layers, initialisation, and where features come out."),
    "tasks": ("Tasks", "Training procedures: loss, metrics, optimisers, prediction, drawing."),
    "data": ("Data", "Files, splits, transforms, and what the data says of itself."),
    "parts": ("Parts", "Optimisers, schedulers, callbacks, losses and transforms that a recipe may name."),
    "recipes": (
        "Recipes",
        "Which of the above, with which numbers. Each runs as it stands; those in `trainer/` are overlays.",
    ),
}
SECTION = re.compile(r"^([A-Z][a-z]+):\n((?:[ \t]+.*(?:\n|\Z)|\n)+)", re.MULTILINE)


def write_all(target: Path, folder: Path) -> None:
    """Write all generated pages.

    Args:
        target: folder of the pages; what else is in it is removed.
        folder: of the rows that ``zoo measure`` and the benchmarks wrote.
    """
    rows = results.rows(folder)
    made = {"_measured.md": measured_table(rows), "_benchmarks.md": benchmark_tables(folder / "benchmarks")}
    made |= {f"_measured_{name}.md": comparison(rows, name) for name in ("fast_style", "adain")}
    made["_commands.md"] = command_table()
    made["_memory_saved.md"] = benchmark_rows(folder / "benchmarks" / "families.json", "memory saved")
    _write(target, all_pages(rows) | made | study_tables(folder / "studies") | contract_tables())


def all_pages(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name and text of every page of the catalogue."""
    pages = {"index.md": _catalogue_index()}
    for kind in registry.KINDS:
        pages |= _kind_pages(kind, rows)
    return pages | _recipe_pages(rows)


def _write(target: Path, pages: Mapping[str, str]) -> None:
    wanted = {target / name for name in pages}
    for old in target.rglob("*.md") if target.is_dir() else ():
        if old not in wanted:
            old.unlink()
    for name, text in pages.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for folder in target.iterdir():
        if folder.is_dir() and not any(folder.rglob("*.md")):
            shutil.rmtree(folder)


# Catalogue


def page_of(entry: Entry) -> str:
    """Where a class's page lies below the catalogue."""
    return f"{entry.kind}/{_slug(entry.label)}.md"


def page_of_recipe(recipe: Recipe) -> str:
    """Where a recipe's page lies below the catalogue."""
    return f"recipes/{_slug(recipe.label)}.md"


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


def _catalogue_index() -> str:
    lines = ["# Catalogue", "", "Made from the registry: everything that is installed where this site was built.", ""]
    lines += [f"- [{title}]({kind}.md): {about}" for kind, (title, about) in TITLES.items()]
    return "\n".join([*lines, "", *_toctree(f"{kind}" for kind in TITLES)])


def _toctree(names: Iterable[str]) -> list[str]:
    return ["```{toctree}", ":hidden:", "", *names, "```", ""]


def _kind_pages(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    entries = [e for e in registry.entries() if e.kind == kind]
    pages = {page_of(entry): class_page(entry, rows) for entry in entries}
    links = [(f"[{e.name}]({page_of(e)})", source.summary(e), e.package) for e in entries]
    pages[f"{kind}.md"] = _index_page(kind, links, [page_of(e) for e in entries])
    return pages


def _recipe_pages(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    recipes = registry.recipes()
    pages = {page_of_recipe(recipe): recipe_page(recipe, rows) for recipe in recipes}
    links = [(f"[{r.label}]({page_of_recipe(r)})", comment(r)[:1], r.package) for r in recipes]
    shown = [(link, text[0] if text else "", package) for link, text, package in links]
    pages["recipes.md"] = _index_page("recipes", shown, [page_of_recipe(r) for r in recipes])
    return pages


def _index_page(kind: str, links: Sequence[tuple[str, str, str]], pages: Sequence[str]) -> str:
    title, about = TITLES[kind]
    rows = [(link, escaped(text), package) for link, text, package in links]
    body = table(("name", "what it is", "package"), rows) if rows else ["None is installed."]
    return "\n".join([f"# {title}", "", about, "", *body, "", *(_toctree(pages) if pages else [])])


def class_page(entry: Entry, rows: Sequence[Mapping[str, Any]]) -> str:
    """A class: where it is from, what it says, its arguments, the recipes that use it and what they reached."""
    view = showing.view_of_class(entry.load())
    used = [r for r in registry.recipes() if showing.names(r, entry)]
    facts = {
        "package": entry.distribution,
        "in a recipe": f"`{entry.name}`",
        "path": f"`{entry.stable_path}`",
        **view.notes,
    }
    lines = [f"# {entry.name}", "", *_fact_list(facts)]
    own, *module = view.docs
    lines += [markdown(own), "", *(f"{markdown(doc)}\n" for doc in module if doc)]
    if view.arguments:
        lines += ["## Arguments", "", *_argument_table(entry, view), ""]
    if used:
        lines += ["## Recipes that use it", ""]
        lines += [f"- [{r.label}](../{page_of_recipe(r)})" for r in used] + [""]
    return "\n".join([*lines, *_measured_section(used, rows)])


def _fact_list(facts: Mapping[str, str]) -> list[str]:
    return [*(f"- {key}: {text}" for key, text in facts.items() if text), ""]


def _argument_table(entry: Entry, view: Any) -> list[str]:
    filled = showing.FILLED if entry.kind == "architectures" else {}
    rows = []
    for name, annotation, default in view.arguments:
        value = filled.get(name) or ("required" if default is None else code(default))
        rows.append((code(name), code(annotation) if annotation else "", value, markdown(view.meanings.get(name, ""))))
    return table(("argument", "type", "default", "meaning"), rows)


def recipe_page(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> str:
    """A recipe: what it says of itself, the command, the file, the classes in it and what it reached."""
    name, overlay = recipe.label, recipe.name.startswith("trainer/")
    command = f"zoo fit --config {'RECIPE --config ' if overlay else ''}{name}"
    used = [e for e in registry.entries() if showing.names(recipe, e)]
    lines = [f"# {name}", "", " ".join(map(escaped, comment(recipe))), ""]
    lines += ["```sh", command.replace("RECIPE", "alexnet"), "```", ""]
    if used:
        lines += ["Uses " + ", ".join(f"[{e.name}](../{page_of(e)})" for e in used) + ".", ""]
    lines += ["```yaml", recipe.path.read_text(encoding="utf-8").rstrip(), "```", ""]
    return "\n".join([*lines, *_measured_section([recipe], rows)])


def comment(recipe: Recipe) -> list[str]:
    return listing.leading_comment(recipe.path)


def _measured_section(recipes: Sequence[Recipe], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {r.label for r in recipes}
    found = [row for row in rows if row["recipe"] in names]
    return ["## Measured", "", measured_table(found)] if found else []


# Results


def measured_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a figure of each row: mean and standard deviation over the seeds, and what it was measured with."""
    if not rows:
        return "Nothing has been measured yet.\n"
    lines = []
    for row in rows:
        times, seeds = results.clock(row["duration"]["mean"]), ", ".join(map(str, row["seeds"])) or "none"
        where, what = results.machine(row), f"{row['commit'] or row['versions']['zoo']}, {row['date']}"
        for figure, value in results.main_figures(row).items():
            lines.append((code(row["command"]), code(figure), results.shown(value), seeds, times, where, what))
    title = ("command", "figure", "mean ± standard deviation", "seeds", "time a run", "on", "code")
    return "\n".join([*table(title, lines), "", _versions(rows), ""])


def comparison(rows: Sequence[Mapping[str, Any]], recipe: str) -> str:
    """A line a row of a recipe, a column a figure, each beside its figure at the start where there is one."""
    found = [row for row in rows if row["recipe"] == recipe]
    names = list(dict.fromkeys(n for row in found for n in results.main_figures(row) if not n.endswith("_start")))
    lines = []
    for row in found:
        figures = row["figures"]
        cells = [" from ".join(_mean(figures[k]) for k in (n, f"{n}_start") if k in figures) for n in names]
        time = f"{results.clock(row['duration']['mean'])} on {results.machine(row)}"
        lines.append((code(row["command"]), *cells, time))
    title = ("command", *(code(name) for name in names), "time of the command")
    return "\n".join([*table(title, lines), "", _versions(found), ""]) if found else "Nothing has been measured yet.\n"


def _mean(figure: Mapping[str, Any]) -> str:
    return f"{figure['mean']:.3g}"


def _versions(rows: Sequence[Mapping[str, Any]]) -> str:
    found = dict.fromkeys(", ".join(f"{k} {v}" for k, v in row["versions"].items()) for row in rows)
    return f"Versions: {'; '.join(found)}."


def benchmark_tables(folder: Path) -> str:
    """A section a benchmark, in the columns that its rows have."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {found['title']}", "", escaped(found["about"]), "", *_row_table(found["rows"]), ""]
        parts += [_conditions(found), ""]
    return "\n".join(parts) or "Nothing has been measured yet.\n"


def benchmark_rows(path: Path, word: str) -> str:
    """Those rows of a benchmark that have this word in their first column."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}
    rows = [row for row in found["rows"] if word in next(iter(row.values()))]
    return "\n".join([*_row_table(rows), "", _conditions(found), ""]) if rows else "Nothing has been measured yet.\n"


def _row_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, [[escaped(_number(row.get(column, ""))) for column in columns] for row in rows])


def study_tables(folder: Path) -> dict[str, str]:
    """Name and text of the tables of each study of ``zoo study`` that has pages of its own."""
    tables = {"depth": depth_page.tables, "ingredients": ingredients_page.tables}
    found = {name: folder / f"{name}.json" for name in tables}
    return {
        f"_study_{name}.md": tables[name](book.read(path)) if path.is_file() else "Nothing has been measured yet.\n"
        for name, path in found.items()
    }


def command_table() -> str:
    """A line for each of the zoo's own verbs, as ``zoo --help`` has them."""
    lightning = "zoo-validate-zoo-test-zoo-predict"  # these share a section
    anchors = {name: lightning if f"zoo-{name}" in lightning else f"zoo-{name}" for name in verbs.OWN}
    rows = [(f"[`zoo {v.name}`](#{anchors[v.name]})", v.summary, code(v.example)) for v in verbs.OWN.values()]
    return "\n".join(table(("command", "what it does", "for example"), rows)) + "\n"


def contract_tables() -> dict[str, str]:
    """Name and text of the tables of forms of batch, of roles and of facts."""
    forms = [(code(f.name), escaped(f.about), _codes(f.facts), _codes([f.role]), _codes(f.accepts)) for f in FORMS]
    roles = [(code(r.name), escaped(r.about), _codes(r.needs), _codes(r.outputs)) for r in ROLES]
    facts = [(code(name), escaped(fact.wanted)) for name, fact in contracts.facts().items()]
    tables = {
        "forms": table(("form", "a batch", "required facts", "role of the network", "also accepts"), forms),
        "roles": table(("role", "call", "required arguments", "outputs when exported"), roles),
        "facts": table(("fact", "a valid value"), facts),
    }
    return {f"_contracts_{name}.md": "\n".join(lines) + "\n" for name, lines in tables.items()}


def _codes(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names if name)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _conditions(found: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    return (
        f"{results.machine(found)}; {versions}; {found['commit'] or ''} {found['date']}. Again: `{found['command']}`."
    )


# Markdown


def code(text: str) -> str:
    """A code span that survives in a table."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def escaped(text: str) -> str:
    """Plain text of a docstring as Markdown, its ``code`` kept."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", text)
    plain: Callable[[str], str] = lambda part: re.sub(r"([*<\[\]|])", r"\\\1", part)  # noqa: E731
    return "".join(part.replace("|", "\\|") if part.startswith("`") else plain(part) for part in parts)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(' '.join(cell.split()) for cell in row)} |" for row in lines]


def markdown(doc: str) -> str:
    """A docstring in Google's style as Markdown: sections under bold titles, shapes as they are written."""
    parts, at = [], 0
    for section in SECTION.finditer(doc):
        parts += [_paragraphs(doc[at : section.start()]), f"**{section[1]}**", "", _section(section[1], section[2]), ""]
        at = section.end()
    return "\n".join([*parts, _paragraphs(doc[at:])]).strip()


def _section(title: str, body: str) -> str:
    text = textwrap.dedent(body.expandtabs()).strip()
    if title == "Shape":
        return f"```text\n{text.replace('``', '')}\n```"
    items = re.split(r"\n(?=\S)", text)
    return "\n".join(f"- {_item(' '.join(item.split()))}" for item in items)


def _item(text: str) -> str:
    name, colon, rest = text.partition(": ")
    return f"`{name}`: {escaped(rest)}" if colon and re.fullmatch(r"[\w., *]+", name) else escaped(text)


def _paragraphs(text: str) -> str:
    """Paragraphs as they are; what is indented below one is shown as written."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        indented = block.strip() and all(line.startswith("    ") for line in block.splitlines() if line.strip())
        blocks.append(f"```text\n{textwrap.dedent(block)}\n```" if indented else escaped(block))
    return "\n\n".join(blocks) + "\n"
