"""What a query may say: one SELECT over our views. Knows the language; knows no corpus.

A query is parsed by DuckDB and its parse tree is walked. What the tree may hold is a closed list:
kinds of nodes (DuckDB takes COPY, INSERT, UPDATE and DELETE inside a WITH, and calls the whole a
SELECT), table functions, tables (views of ours, or named in a WITH). Scalar functions are open
but for those that tell or change something beyond the query. After that the engine runs it with
external access off and its configuration locked (`corpus.sql`).
"""

import json
import re
import threading
from collections.abc import Collection
from functools import cache
from typing import Any

import duckdb

from ...platform.errors import QueryError, did_you_mean
from .genes_named import objects
from .macros import MACROS

VIEWS = (
    "cells",
    "genes",
    "sources",
    "source_obs",
    "dropped",
    "expression",
    "measured",
    "segments",
    "features",
    "protein",
    "atac",
    "protein_abundance",
)
"""The views of a snapshot."""

_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}

_EXPRESSIONS = set(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT DEFAULT FUNCTION LAMBDA "
    "LAMBDA_REF OPERATOR POSITIONAL_REFERENCE STAR SUBQUERY TYPE WINDOW".split()
)
_NODES = set(
    "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE "  # queries
    "BASE_TABLE SUBQUERY JOIN TABLE_FUNCTION EXPRESSION_LIST EMPTY EMPTY_FROM PIVOT SHOW_REF "
    "ORDER_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER DISTINCT_MODIFIER "
    "ORDER_DEFAULT ASCENDING DESCENDING".split()
)

# Functions that tell or change something of the machine, the session or the clock's pace; the
# last plans any query whatever, and so tells of files and settings.
_FORBIDDEN = {
    "getenv",
    "current_setting",
    "getvariable",
    "current_query",
    "current_query_id",
    "current_connection_id",
    "current_transaction_id",
    "txid_current",
    "setseed",
    "nextval",
    "currval",
    "setval",
    "sleep_ms",
    "write_log",
    "parse_duckdb_log_message",
    "stats",
    "vector_type",
    "in_search_path",
    "get_block_size",
    "version",
    "json_serialize_plan",
}
# Families of the same: PostgreSQL's catalog (`pg_get_viewdef` would tell the files behind a view,
# `pg_sleep` sleeps), and parts of the optimiser, which trust whoever calls them.
_FORBIDDEN_FAMILY = re.compile(
    r"pg_(?!typeof$|size_pretty$)|inet_|has_\w+_privilege$|__internal_|duckdb_|pragma_"
)

# Functions whose result depends on the order in which rows happen to come, or on how they fell
# to threads.
_ORDER_DEPENDENT = set(
    "any_value arbitrary first last list array_agg string_agg group_concat listagg arg_min argmin "
    "arg_min_null arg_min_nulls_last min_by arg_max argmax arg_max_null arg_max_nulls_last max_by "
    "mode lttb approx_quantile approx_top_k reservoir_quantile json_group_array json_group_object "
    "variant_group_array variant_group_object row_number ntile lag lead first_value last_value "
    "nth_value fill".split()
)
# What the clock says; some are words without parentheses, and parsed as columns.
_CLOCK = set(
    "now ago today current_date current_time current_timestamp current_localtime localtime "
    "current_localtimestamp localtimestamp get_current_time get_current_timestamp "
    "transaction_timestamp".split()
)

_parser: list[duckdb.DuckDBPyConnection] = []
_parsing = threading.Lock()


def check_query(query: str) -> set[str]:
    """Refuse a query that is not one SELECT over our views and macros.

    Returns:
        The views and macros that it names.

    Raises:
        QueryError: what is not allowed, by name.
    """
    return check_tree(parse(query))


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
    tree = parse(f"SELECT cell_id FROM cells WHERE {clause}")
    node = tree["statements"][0]["node"]
    plain = ("modifiers", "group_expressions", "group_sets", "having", "sample", "qualify")
    if node["type"] != "SELECT_NODE" or any(node.get(name) for name in plain):
        raise QueryError(f"{where.strip()!r}: expected a bare condition, without anything after it")
    parse(f"SELECT cell_id FROM cells WHERE {where}\n")  # alone: it cannot close our parenthesis
    check_tree(tree)
    unsteady = _unsteady_functions()
    for item in objects(tree):
        if found := _unsteadiness(item, unsteady):
            raise QueryError(f"a selection {found}: it must choose the same cells always")
    return clause


def _unsteadiness(item: dict[str, Any], unsteady: Collection[str]) -> str | None:
    """What about this node might choose other cells another time; None if nothing."""
    kind = item.get("type")
    if kind in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
        return "takes no LIMIT"
    if item.get("sample"):
        return "takes no SAMPLE"
    if item.get("distinct_on_targets"):
        return "takes no DISTINCT ON"
    if kind == "JOIN" and item.get("ref_type") not in ("REGULAR", "NATURAL", "CROSS"):
        return f"takes no {item['ref_type']} JOIN"
    if item.get("class") in ("FUNCTION", "WINDOW"):
        name = str(item.get("function_name", "")).lower()
        # age() of one moment is counted from today.
        if name in unsteady or (name == "age" and len(item.get("arguments", ())) == 1):
            return f"cannot use {name}()"
    if item.get("class") == "COLUMN_REF":
        names = item.get("column_names", ())
        if len(names) == 1 and str(names[0]).lower() in _CLOCK:
            return f"cannot use {names[0]}"
    return None


def parse(query: str) -> dict[str, Any]:
    """A query's parse tree, as DuckDB tells it.

    Raises:
        QueryError: it is not one SELECT.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in query):
        raise QueryError("the query is not Unicode text: it holds half of a surrogate pair")
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
    try:
        tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except RecursionError as error:
        raise QueryError("the query is nested too deeply: name its parts in a WITH") from error
    if tree.get("error"):
        raise QueryError(f"this query cannot be checked: {tree.get('error_message', query)}")
    return tree


def check_tree(tree: dict[str, Any]) -> set[str]:
    """Refuse a parse tree that holds more than our views and macros; see `check_query`."""
    ours: set[str] = set()
    named = {
        str(entry["key"]).lower()
        for item in objects(tree)
        for entry in (item.get("cte_map") or {}).get("map", ())
    }
    named |= {
        str(item["cte_name"]).lower()
        for item in objects(tree)
        if item.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE") and item.get("cte_name")
    }
    for name in named:
        # A catalog's name, named in one corner, would open DuckDB's own table in another.
        if (
            name.startswith("_lake_")  # the macros' own
            or not re.fullmatch(r"\w+", name)
            or name in VIEWS
            or name in _catalog_tables()
        ):
            raise QueryError(f"WITH {name!r}: choose a plain name that is not a view's")
    for item in objects(tree):
        _check_kind(item)
        kind = item.get("type")
        if kind == "BASE_TABLE":
            _check_table(item, named)
            if str(item["table_name"]).lower() in VIEWS:
                ours.add(str(item["table_name"]).lower())
        elif kind == "TABLE_FUNCTION":
            name = str(item["function"].get("function_name", "")).lower()
            if name in MACROS:
                ours.add(name)
            elif name not in _TABLE_FUNCTIONS:
                raise QueryError(
                    f"the table function {name}() is not allowed{did_you_mean(name, MACROS)} (a "
                    f"query reads the views {', '.join(VIEWS)}; its macros are "
                    f"{', '.join(MACROS)})"
                )
        elif kind == "SHOW_REF" and not item.get("query"):
            ours |= _shown(item)
        elif item.get("class") in ("FUNCTION", "WINDOW"):
            name = str(item.get("function_name", "")).lower()
            if name in _FORBIDDEN or _FORBIDDEN_FAMILY.match(name):
                raise QueryError(f"the function {name}() is not allowed in a query")
    return ours


def _check_kind(item: dict[str, Any]) -> None:
    """Refuse a kind of node that is not listed: a new DuckDB may bring new ones."""
    kind, family = item.get("type"), item.get("class")
    if family == "PARAMETER":
        raise QueryError("a query takes no parameters ($1, ?): write the value into it")
    if family is not None:
        if family not in _EXPRESSIONS:
            raise QueryError(f"an expression of the kind {family} is not allowed in a query")
    elif isinstance(kind, str) and kind not in _NODES and not kind.endswith("_TYPE_INFO"):
        word = kind.removesuffix("_NODE").removesuffix("_QUERY")
        raise QueryError(
            f"only SELECT is allowed, found {word} inside it: a corpus is read here, not changed"
        )


def _shown(item: dict[str, Any]) -> set[str]:
    """The views that SHOW needs: all for SHOW TABLES, else the one that it names."""
    name = str(item.get("table_name", "")).strip('"').lower()
    if not item.get("schema_name") and not item.get("catalog_name"):
        if name == "tables" and item.get("show_type") == "SHOW_SPECIAL":
            return set(VIEWS)
        if name in VIEWS:
            return {name}
    raise QueryError(
        "SHOW TABLES lists the views and DESCRIBE a view's columns; nothing else can be shown"
    )


@cache
def _catalog_tables() -> set[str]:
    """The tables of DuckDB's own that a name without a schema would find."""
    with _parsing:
        rows = _parser[0].execute(
            "SELECT lower(view_name) FROM duckdb_views() "
            "WHERE internal AND schema_name <> 'information_schema'"
        )
        return {str(name) for (name,) in rows.fetchall()}


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


def _unsteady_functions() -> set[str]:
    """Functions whose value changes from call to call, or with the order of rows."""
    with _parsing:
        rows = _parser[0].execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() "
            "WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
        )
        volatile = {str(name) for (name,) in rows.fetchall()}
    return volatile | _FORBIDDEN | _ORDER_DEPENDENT | _CLOCK


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
