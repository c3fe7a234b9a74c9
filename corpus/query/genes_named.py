"""Which genes a query can need counts of, told from its parse tree. Knows SQL; knows no corpus.

Only what is plain is understood: `expression` in the FROM of a SELECT whose WHERE demands, beside
whatever else, a symbol or an id in so many words, and macros given names in so many words. Rows of
other genes cannot be in such a query's answer. Of any other query all genes are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .macros import MACROS

_GENE_ARGUMENTS = {"normalised": ("gene",), "mean_by": ("gene",), "coexpression": ("one", "other")}


@dataclass(frozen=True, kw_only=True, slots=True)
class GenesNamed:
    """Names of genes.

    Attributes:
        symbols: those that are symbols.
        gene_ids: those that are ids.
        either: those that may be one or the other.
    """

    symbols: frozenset[str] = frozenset()
    gene_ids: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()

    def __or__(self, other: "GenesNamed") -> "GenesNamed":
        """The names of both."""
        return GenesNamed(
            symbols=self.symbols | other.symbols,
            gene_ids=self.gene_ids | other.gene_ids,
            either=self.either | other.either,
        )


def genes_named(tree: dict[str, Any]) -> GenesNamed | None:
    """The genes whose counts decide a query's answer; None for all, or where in doubt.

    Args:
        tree: of a query that `corpus.query.sandbox` has let pass.
    """
    named = GenesNamed()
    bound: set[int] = set()
    tables: list[dict[str, Any]] = []
    for item in objects(tree):
        kind = item.get("type")
        if kind == "SELECT_NODE" and not item.get("sample"):
            for table in _joined(item.get("from_table")):
                if _is_expression(table) and (found := _demanded(item, table)) is not None:
                    named |= found
                    bound.add(id(table))
        elif kind == "BASE_TABLE" and _is_expression(item):
            tables.append(item)
        elif kind == "TABLE_FUNCTION":
            function = item["function"]
            if str(function.get("function_name", "")).lower() in MACROS:
                found = _asked(function)
                if found is None:
                    return None
                named |= found
        elif kind == "SHOW_REF":
            return None
    return named if all(id(table) in bound for table in tables) else None


def objects(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parse tree, however deep."""
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _is_expression(table: dict[str, Any]) -> bool:
    return str(table.get("table_name", "")).lower() == "expression"


def _joined(node: Any) -> list[dict[str, Any]]:
    """The tables of a FROM that inner joins alone hold together."""
    if not isinstance(node, dict) or node.get("sample"):
        return []
    if node.get("type") == "BASE_TABLE":
        return [] if node.get("column_name_alias") or node.get("at_clause") else [node]
    if (
        node.get("type") == "JOIN"
        and node.get("join_type") == "INNER"
        and node.get("ref_type") in ("REGULAR", "CROSS")
    ):
        return _joined(node.get("left")) + _joined(node.get("right"))
    return []


def _demanded(select: dict[str, Any], table: dict[str, Any]) -> GenesNamed | None:
    """The genes that a SELECT's WHERE restricts its `expression` to; None where it does not.

    A bare `symbol` or `gene_id` is that of `expression`: were there another, it would have to be
    equal (USING), or the query would not run.
    """
    name = str(table.get("alias") or "expression").lower()
    for condition in _conjuncts(select.get("where_clause")):
        kind = condition.get("type")
        if kind == "COMPARE_EQUAL":
            left, right = condition.get("left"), condition.get("right")
            sides = [(left, [right]), (right, [left])]
        elif kind == "COMPARE_IN" and condition.get("children"):
            left, *listed = condition["children"]
            sides = [(left, listed)]
        else:
            continue
        for column, values in sides:
            texts = [_text(value) for value in values]
            if None in texts or not isinstance(column, dict):
                continue
            given = frozenset(text for text in texts if text is not None)
            path = [str(part).lower() for part in column.get("column_names", ())]
            if path in (["symbol"], [name, "symbol"]):
                return GenesNamed(symbols=given)
            if path in (["gene_id"], [name, "gene_id"]):
                return GenesNamed(gene_ids=given)
    return None


def _conjuncts(condition: Any) -> Iterator[dict[str, Any]]:
    if isinstance(condition, dict):
        if condition.get("type") == "CONJUNCTION_AND":
            for child in condition.get("children", ()):
                yield from _conjuncts(child)
        else:
            yield condition


def _asked(function: dict[str, Any]) -> GenesNamed | None:
    """The genes that a macro is asked for; None where that is not written out."""
    macro = str(function["function_name"]).lower()
    given = function.get("arguments", ())
    plain = [argument["expression"] for argument in given if not argument.get("name")]
    by_name = {
        str(argument["name"]).lower(): argument["expression"]
        for argument in given
        if argument.get("name")
    }
    if macro in _GENE_ARGUMENTS:
        wanted = _GENE_ARGUMENTS[macro]
        values = [
            by_name.get(name, plain[place] if place < len(plain) else None)
            for place, name in enumerate(wanted)
        ]
    else:
        listed = by_name.get("genes") or {}
        if listed.get("function_name") != "list_value":
            return None
        values = [argument["expression"] for argument in listed["arguments"]]
    texts = [_text(value) for value in values]
    if None in texts:
        return None
    return GenesNamed(either=frozenset(text for text in texts if text is not None))


def _text(node: Any) -> str | None:
    """The text that a constant is."""
    if isinstance(node, dict) and node.get("class") == "CONSTANT":
        literal = node.get("literal") or {}
        if literal.get("kind") == "STRING":
            return str(literal["text"])
    return None
