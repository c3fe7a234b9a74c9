"""A plan as a sources.toml to edit: what was given, what was found, and what is only likely.

Knows plans; knows no file. What was given and what was proven is set; what is likely stands in
comments, for nothing is guessed silently.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from ..corpus.log.receipts import BULK
from ..platform.configuration import Configuration
from .places import is_elsewhere
from .plans import PlanReport, SourcePlan
from .rules import OFF
from .sources.protocol import INDEX

_SWITCHED_BY_NONE = ("total_counts_sd", "mitochondrial_sd", "total_counts_mad", "mitochondrial_mad")
_OFF_FOR_SAMPLES = ("total_counts_sd", "mitochondrial_sd", "mutational_burden")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A key that TOML takes without quotes."""


def plan_toml(report: PlanReport) -> str:
    """A sources.toml that gives the planned cells; a refused source stands in it as a comment."""
    head = [
        "# Written by a plan: edit it, then ingest it.",
        f"unit_cells = {report.unit_cells}",
    ]
    return "\n".join(["\n".join(head), *(_source(source) for source in report.sources)]) + "\n"


def _source(plan: SourcePlan) -> str:
    lines = ["", "[[source]]"]
    values = _set_values(plan)
    lines += [f"{name} = {toml_value(value)}" for name, value in values.items()]
    if plan.error is not None:
        told = [f"# refused: {_one_line(line)}" for line in plan.error.splitlines()]
        return "\n".join(["", *told, *(f"# {line}" for line in lines[1:])])
    lines.append(f"# {plan.proof}")
    share = plan.n_mapped / max(1, plan.n_gene_names)
    lines.append(f"# {share:.1%} of {plan.n_gene_names:,} names of genes have an Ensembl id")
    lines.append(f"# columns of cells: {_one_line(', '.join(plan.own_columns)) or 'none'}")
    if plan.likely:
        lines.append(
            f"# likely by their names, look and uncomment: columns = {_table(plan.likely)}"
        )
    for name, bound in plan.thresholds.bounds.items():
        lines.append(f"# frozen threshold {name}: {bound:.6g}")
    for rule, why in plan.thresholds.skipped.items():
        lines.append(f"# rule {rule} skipped: {_one_line(why)}")
    lines.append(f"# {plan.n_cells:,} cells, {plan.n_kept:,} kept")
    for reason, n_cells in plan.dropped.items():
        lines.append(f"# {n_cells:,} dropped: {_one_line(reason)}")
    return "\n".join(lines)


def _set_values(plan: SourcePlan) -> dict[str, Any]:
    """What the source's table says: the given settings, and what was found where none was given."""
    entry = plan.entry
    given = _changed(entry)
    values: dict[str, Any] = {"name": entry.name or plan.source_id}
    if entry.resource is not None:
        values["resource"] = entry.resource
    elif is_elsewhere(entry):  # a Census stands among what was given
        values |= {} if entry.path is None else {"path": entry.path}
    else:  # absolute, for the file may be written anywhere
        values["path"] = str(plan.path.absolute()) if plan.path is not None else entry.path
    if plan.metadata is not None and entry.metadata is not None:
        given["metadata"] = str(plan.metadata.absolute())
    if entry.kind == BULK:  # what is left unsaid would be off
        rules = {name: getattr(entry.quality, name) for name in _OFF_FOR_SAMPLES}
        said = {name: OFF if value is None else value for name, value in rules.items()}
        given["quality"] = {**said, **given.get("quality", {})}
    if plan.orthologs is not None:
        given["orthologs"] = str(plan.orthologs.absolute())
    if plan.error is None:
        values["reader"] = plan.format
        values["layer"] = plan.layer
        if plan.genes_column != INDEX:
            values["genes"] = plan.genes_column
    return values | {k: v for k, v in given.items() if k not in ("name", "path", "resource")}


def _changed(settings: Configuration) -> dict[str, Any]:
    """Settings that are not at their defaults; a rule that is switched off says so."""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if value == field.get_default(call_default_factory=True):
            continue
        if isinstance(value, Configuration):
            found[name] = _changed(value)
        else:
            found[name] = OFF if value is None and name in _SWITCHED_BY_NONE else value
    return found


def toml_value(value: Any) -> str:
    """A value as TOML: words, numbers, lists, and tables within the line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return _table(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return repr(value) if isinstance(value, int | float) else _quoted(str(value))


def _table(values: Mapping[str, Any]) -> str:
    inner = (f"{_key(name)} = {toml_value(value)}" for name, value in values.items())
    return f"{{ {', '.join(inner)} }}" if values else "{}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for one control character that JSON leaves as it is
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    """Text for a comment: what would end the line or is forbidden there becomes a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
