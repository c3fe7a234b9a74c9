"""What a query may say: one SELECT over our views. Knows the language; knows no corpus.

A query is parsed by DuckDB and its parse tree is walked: tables must be views of ours or named in
a WITH, table functions are on a short list, functions that read the machine are refused. After
that the engine runs it with external access off and its configuration locked (`corpus.sql`).
"""

import json
import re
import threading
from collections.abc import Collection, Iterator
from typing import Any

import duckdb

from ..platform.errors import QueryError, did_you_mean

VIEWS = (
    "cells",
    "genes",
    "sources",
    "source_obs",
    "dropped",
    "expression",
    "measured",
    "segments",
)
"""The views of a snapshot."""

_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}

# Functions that tell or change something of the machine, the session or the clock's pace.
_FORBIDDEN = {
    "getenv",
    "current_setting",
    "getvariable",
    "current_query",
    "setseed",
    "nextval",
    "currval",
    "setval",
    "sleep_ms",
    "write_log",
    "parse_duckdb_log_message",
    "stats",
    "in_search_path",
    "current_connection_id",
    "txid_current",
}

# Aggregates whose result depends on the order in which rows happen to come.
_ORDER_DEPENDENT = {"any_value", "arbitrary", "first", "last", "list", "array_agg", "string_agg"}

_parser: list[duckdb.DuckDBPyConnection] = []
_parsing = threading.Lock()


def check_query(query: str) -> set[str]:
    """Refuse a query that is not one SELECT over our views.

    Returns:
        The views that it names.

    Raises:
        QueryError: what is not allowed, by name.
    """
    return _check_tree(_parse(query))


def check_condition(where: str) -> str:
    """Refuse a WHERE clause that would not choose the same cells every time.

    Args:
        where: what may follow WHERE, over the view `cells`.

    Returns:
        The clause in parentheses, ready to be put after WHERE.

    Raises:
        QueryError: it is not a bare condition, or has LIMIT, a sample or anything random.
    """
    if re.match(r"\s*(where|select|with)\b", where, re.IGNORECASE):
        raise QueryError(
            f"{where.strip()!r}: expected a bare condition over cells, "
            "for example \"tissue = 'blood' AND n_counts > 500\""
        )
    clause = f"(\n{where}\n)"
    tree = _parse(f"SELECT cell_id FROM cells WHERE {clause}")
    node = tree["statements"][0]["node"]
    only = {"type", "select_list", "from_table", "where_clause", "named_param_map", "cte_map"}
    plain = {"modifiers", "group_expressions", "group_sets", "having", "sample", "qualify"}
    if node["type"] != "SELECT_NODE" or any(node.get(name) for name in plain - only):
        raise QueryError(f"{where.strip()!r}: expected a bare condition, without anything after it")
    _check_tree(tree)
    unsteady = _unsteady_functions()
    for item in _walk(tree):
        if item.get("type") == "LIMIT_MODIFIER" or item.get("type") == "LIMIT_PERCENT_MODIFIER":
            raise QueryError("a selection takes no LIMIT: it must choose the same cells always")
        if item.get("sample"):
            raise QueryError("a selection takes no SAMPLE: it must choose the same cells always")
        if item.get("class") in ("FUNCTION", "WINDOW"):
            name = str(item.get("function_name", "")).lower()
            if name in unsteady:
                raise QueryError(
                    f"a selection cannot use {name}(): it must choose the same cells always"
                )
    return clause


def _parse(query: str) -> dict[str, Any]:
    try:
        with _parsing:
            statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(explain_error(str(error))) from error
    if len(statements) != 1:
        raise QueryError(
            f"expected exactly one SELECT, found {len(statements) or 'no'} "
            f"statement{'' if len(statements) == 1 else 's'}"
        )
    kind = statements[0].type.name
    if kind == "MULTI":
        raise QueryError("PIVOT is not allowed: use count(*) FILTER (WHERE ...) a column")
    if kind != "SELECT":
        raise QueryError(
            f"only SELECT is allowed, found {kind}: a corpus is read here, not changed"
        )
    with _parsing:
        if not _parser:
            _parser.append(duckdb.connect(":memory:"))
        row = _parser[0].execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if tree.get("error"):
        raise QueryError(f"this query cannot be checked: {tree.get('error_message', query)}")
    return tree


def _check_tree(tree: dict[str, Any]) -> set[str]:
    ours: set[str] = set()
    named = {
        str(entry["key"]).lower()
        for item in _walk(tree)
        for entry in (item.get("cte_map") or {}).get("map", ())
    }
    named |= {
        str(item["cte_name"]).lower()
        for item in _walk(tree)
        if item.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE") and item.get("cte_name")
    }
    for name in named:
        if not re.fullmatch(r"\w+", name) or name in VIEWS:
            raise QueryError(f"WITH {name!r}: choose a plain name that is not a view's")
    for item in _walk(tree):
        kind = item.get("type")
        if kind == "BASE_TABLE":
            _check_table(item, named)
            if str(item["table_name"]).lower() in VIEWS:
                ours.add(str(item["table_name"]).lower())
        elif kind == "TABLE_FUNCTION":
            name = str(item["function"].get("function_name", "")).lower()
            if name not in _TABLE_FUNCTIONS:
                raise QueryError(
                    f"the table function {name}() is not allowed: a query reads the views "
                    f"{', '.join(VIEWS)}"
                )
        elif kind == "SHOW_REF" and not item.get("query"):
            ours.update(VIEWS)
        elif item.get("class") == "FUNCTION":
            name = str(item.get("function_name", "")).lower()
            if name in _FORBIDDEN:
                raise QueryError(f"the function {name}() is not allowed in a query")
    return ours


def _check_table(item: dict[str, Any], named: Collection[str]) -> None:
    name = str(item["table_name"])
    schema, catalog = str(item.get("schema_name", "")), str(item.get("catalog_name", ""))
    if schema or catalog:
        whole = ".".join(part for part in (catalog, schema, name) if part)
        raise QueryError(f"{whole!r} is not a view of the corpus; views are {', '.join(VIEWS)}")
    if name.lower() in named or name.lower() in VIEWS:
        return
    if re.search(r"[/\\.*]", name):
        raise QueryError(f"a path cannot be a table ({name!r}): ingest the file, or read a view")
    near = did_you_mean(name, [*VIEWS, *named])
    raise QueryError(f"there is no view {name!r}{near} (views are {', '.join(VIEWS)})")


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the parse tree."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _unsteady_functions() -> set[str]:
    """Functions whose value changes from call to call, or with the order of rows."""
    with _parsing:
        rows = _parser[0].execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
        )
        return {str(name) for (name,) in rows.fetchall()} | _FORBIDDEN | _ORDER_DEPENDENT


def explain_error(text: str, columns: Collection[str] = ()) -> str:
    """A message of DuckDB's, shortly: its first line and the place, with the nearest column."""
    first, *rest = [line for line in text.splitlines() if line.strip()]
    first = re.sub(r"^(Parser|Binder|Catalog|Conversion|Invalid Input) Error: ", "", first)
    missing = re.search(r'[Cc]olumn "([^"]+)" not found|a column named "([^"]+)"', first)
    if missing:
        name = missing.group(1) or missing.group(2)
        near = did_you_mean(name, columns)
        known = f"; columns are {', '.join(sorted(columns))}" if columns and not near else ""
        return f"there is no column {name!r}{near}{known}"
    place = [line for line in rest if line.startswith("LINE")]
    if place:
        at = rest.index(place[0])
        return "\n".join([first, *rest[at : at + 2]])
    return first
