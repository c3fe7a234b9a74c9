"""TOML at the door: parsed once into a frozen model, unknown keys refused with the nearest name.

Knows no recipe: rooms bring their own models. Never repairs what it reads.
"""

import tomllib
from collections.abc import Sequence
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import RecipeError, did_you_mean
from .uris import uris_recorded


class Configuration(BaseModel):
    """What a TOML file becomes: frozen, strict about keys. Subclass it, one field a setting.

    Attributes:
        either: settings of which one stands in for the other: laid over a file, it takes its place.
    """

    either: ClassVar[tuple[str, ...]] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


AConfiguration = TypeVar("AConfiguration", bound=Configuration)


def parse_toml(
    text: str,
    kind: type[AConfiguration],
    *,
    origin: str,
    overrides: Sequence[str] = (),
) -> AConfiguration:
    """Parse TOML text into `kind`.

    Args:
        text: the TOML.
        kind: the frozen model to make.
        origin: what to call the text in errors, usually the file's name.
        overrides: `a.b=value` settings laid over the text; values are TOML, or plain words.

    Raises:
        RecipeError: the text is no TOML, or a key or value is not understood.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{origin}: not valid TOML: {error}") from error
    for override in overrides:
        _lay_over(values, override, kind, origin)
    return parse_values(values, kind, origin=origin)


def parse_values(
    values: dict[str, Any], kind: type[AConfiguration], *, origin: str
) -> AConfiguration:
    """Parse already-read values into `kind`; errors name `origin` as in `parse_toml`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, kind) for problem in error.errors()]
        raise RecipeError("\n".join(f"{origin}: {line}" for line in lines)) from error


def flat(values: Any, prefix: str = "") -> dict[str, object]:
    """Nested tables as dotted names, for a tracker: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    if not isinstance(values, dict):
        return {prefix: values}
    found: dict[str, object] = {}
    for key, value in values.items():
        found.update(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _lay_over(values: dict[str, Any], override: str, kind: type[BaseModel], origin: str) -> None:
    key, equals, word = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r}: expected key=value, for example training.seed=7")
    try:
        value = tomllib.loads(f"value = {word.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = word.strip()
    *tables, leaf = key.strip().split(".")
    table = values
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{origin}: --set {override!r}: {name} is a value, not a table")
        table = inner
    either = getattr(_model_at(kind, tables), "either", ())
    if leaf in either:
        for other in either:
            table.pop(other, None)
    table[leaf] = value


def _explain(problem: Any, kind: type[BaseModel]) -> str:
    place = [str(part) for part in problem["loc"]]
    *tables, leaf = place or [""]
    where = f"[{'.'.join(tables)}] " if tables else ""
    if problem["type"] == "extra_forbidden":
        known = _fields_at(kind, tables)
        return f"{where}has no setting {leaf!r}{did_you_mean(leaf, known)}".strip()
    if problem["type"] == "missing":
        return f"{where}needs the setting {leaf!r}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}{leaf} = {uris_recorded(repr(problem['input']))}: {message}"


def _fields_at(kind: type[BaseModel], tables: Sequence[str]) -> list[str]:
    return list(getattr(_model_at(kind, tables), "model_fields", {}))


def _model_at(kind: type[BaseModel], tables: Sequence[str]) -> Any:
    """The configuration that a table becomes; None where there is none."""
    current: Any = kind
    for name in tables:
        if name.isdigit():  # an index into an array of tables: the model stays the same
            continue
        field = getattr(current, "model_fields", {}).get(name)
        if field is None:
            return None
        current = _model_within(field.annotation)
    return current


def _model_within(annotation: Any) -> Any:
    """The configuration inside `X | None`, `tuple[X, ...]`, `dict[str, X]` or X itself."""
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict):
        inner = [_model_within(part) for part in get_args(annotation)]
        models = [part for part in inner if hasattr(part, "model_fields")]
        return models[0] if models else None
    return annotation
