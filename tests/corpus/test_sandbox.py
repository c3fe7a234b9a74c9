"""What a user's query may do to a corpus and its machine: nothing. Knows no view's content.

The attempts are listed in `attempts.toml`.
"""

import hashlib
import os
import signal
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from cytolake.cli import main
from cytolake.corpus.query import sandbox
from cytolake.corpus.store import Corpus
from cytolake.platform.errors import QueryError

FUNCTION = r"^the function \w+\(\) is not allowed"

ATTEMPTS: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parent / "attempts.toml").read_text(encoding="utf-8")
)

TOO_MUCH = {
    "SELECT * FROM " + "(FROM " * 3000 + "range(1)" + ")" * 3000: "nested too deeply",
    "SELECT " + "(" * 5000 + "1" + ")" * 5000: "depth",
    "SELECT " + "[" * 300 + "1" + "]" * 300: "does not fit a table",
    "SELECT repeat('x', 100000000000)": "maximum supported string size",
    "SELECT '\ud800'": "not Unicode",
}

LISTED = [
    pytest.param(query, expected, id=f"{group}: {query[:50] or 'nothing'}")
    for group, attempts in ATTEMPTS.items()
    for query, expected in attempts.items()
]


def fingerprint(folder: Path) -> str:
    """A hash over every file and folder below: path, mode, bytes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() else b"a folder"
        digest.update(f"{path}\0{path.lstat().st_mode}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def attacked(
    build_fake_corpus: Callable[[Path], Corpus], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    """A corpus beside a secret, in a folder one stands in; afterwards every byte is as before."""
    home = tmp_path_factory.mktemp("attacked")
    corpus = build_fake_corpus(home / "corpus")
    (home / "secret.csv").write_text("a\n1\n")
    for path in home.rglob("*.parquet"):
        path.chmod(0o644)  # so that only the sandbox stands before them
    before = fingerprint(home)
    views = {view: corpus.sql(f"SELECT * FROM {view} ORDER BY ALL") for view in sandbox.VIEWS}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield corpus
    assert fingerprint(home) == before
    for view, rows in views.items():
        assert corpus.sql(f"SELECT * FROM {view} ORDER BY ALL").equals(rows), view


def aimed(query: str, corpus: Corpus) -> str:
    """The attempt with the paths of this corpus and of the secret."""
    segment = sorted(corpus.folder.glob("segments/*/obs.parquet"))[0]
    secret = corpus.folder.parent / "secret.csv"
    return query.replace("{segment}", str(segment)).replace("{secret}", str(secret))


@pytest.mark.parametrize(("query", "expected"), LISTED)
def test_an_attempt_is_refused_with_what_is_not_allowed(
    attacked: Corpus, query: str, expected: str
) -> None:
    with pytest.raises(QueryError, match=expected) as refusal:
        attacked.sql(aimed(query, attacked))
    assert 0 < len(str(refusal.value).splitlines()) <= 3


@pytest.mark.parametrize(("query", "expected"), LISTED)
def test_an_attempt_is_refused_as_a_condition(attacked: Corpus, query: str, expected: str) -> None:
    query = aimed(query, attacked) or "-- nothing"
    for where in (query, f"cell_id IN ({query})", f"true) UNION ({query}", f"EXISTS ({query}\n)"):
        with pytest.raises(QueryError):
            attacked.select(where=where)


@pytest.mark.parametrize(
    "where",
    [
        "true) OR (true",
        "false) OR (true) --",
        "true /*",
        "true; SELECT 1",
        "true ORDER BY cell_id",
        "true LIMIT 1",
        "true GROUP BY cell_id",
        "n_counts > random()",
        "cell_id IN (SELECT cell_id FROM cells LIMIT 1)",
        "cell_id IN (SELECT cell_id FROM cells USING SAMPLE 1)",
        "cell_id IN (SELECT DISTINCT ON (tissue) cell_id FROM cells)",
        "cell_id IN (SELECT cell_id FROM cells QUALIFY row_number() OVER () = 1)",
        "cell_id IN (SELECT arg_max(cell_id, tissue) FROM cells)",
        "cell_id IN (SELECT a.cell_id FROM cells a POSITIONAL JOIN genes b)",
        "now() > '2026-01-01'::TIMESTAMP",
        "current_date > '2026-01-01'::DATE",
        "localtimestamp > '2026-01-01'::TIMESTAMP",
        "current_localtimestamp() > '2026-01-01'::TIMESTAMP",
        "ago(INTERVAL 1 DAY) > '2026-01-01'::TIMESTAMP",
        "age('2026-01-01'::TIMESTAMP) > INTERVAL 1 DAY",
    ],
)
def test_a_condition_that_is_more_than_one_or_is_not_steady_is_refused(
    attacked: Corpus, where: str
) -> None:
    with pytest.raises(QueryError):
        attacked.select(where=where)


def test_the_command_line_refuses_in_a_few_lines_and_writes_no_output(
    attacked: Corpus, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for group in ("writing", "writing inside a WITH", "file functions", "paths as tables"):
        for query in list(ATTEMPTS[group])[:4]:
            words = [aimed(query, attacked), "--corpus", attacked.uri, "--output", "answer.csv"]
            monkeypatch.setattr("sys.argv", ["cytolake", "sql", *words])
            with pytest.raises(SystemExit) as stop:
                main()
            said = capfd.readouterr()
            assert stop.value.code == 1 and said.out == "", query
            assert said.err.startswith("error: ") and "Traceback" not in said.err
    assert not Path("answer.csv").exists()


@pytest.mark.parametrize("query", TOO_MUCH, ids=["tables", "depth", "lists", "text", "letters"])
def test_what_is_too_much_for_the_engine_is_refused_too(attacked: Corpus, query: str) -> None:
    with pytest.raises(QueryError, match=TOO_MUCH[query]):
        attacked.sql(query)


def test_the_list_of_attempts_is_long() -> None:
    assert sum(map(len, ATTEMPTS.values())) >= 150


def test_even_past_the_parser_the_engine_reads_no_other_file(attacked: Corpus) -> None:
    for query in (
        "SELECT * FROM read_csv('{secret}')",
        "COPY (SELECT 1) TO 'y.csv'",
        "SET enable_external_access = true",
        "SET temp_directory = '.'",
        "ATTACH 'other.db'",
    ):
        with pytest.raises(QueryError):
            attacked._engine.inner(aimed(query, attacked), {"cells"})


def test_a_python_variable_is_no_table(attacked: Corpus) -> None:
    stolen = pa.table({"x": [1]})
    with pytest.raises(QueryError, match="no view 'stolen'"):
        attacked.sql("SELECT * FROM stolen")
    assert stolen.num_rows == 1


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 3.0])
def test_a_query_without_end_stops_at_ctrl_c_and_the_next_one_runs(
    attacked: Corpus, delay: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where it meets the making of views; and DuckDB's own bar is not in our output."""
    # A job in the background is born with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    corpus = Corpus.open(attacked.folder)
    endless = "SELECT sum(a.range * b.range) + (SELECT count(*) FROM cells) FROM "
    endless += "range(10000000) a, range(10000000) b"
    press = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            press.start()
            corpus.sql(endless)
    finally:
        signal.signal(signal.SIGINT, before)
    press.join()
    assert corpus.sql("SELECT count(*) FROM cells").num_rows == 1
    assert capfd.readouterr().out == ""


def test_a_query_may_take_half_of_the_memory_and_spills_beside_no_corpus(attacked: Corpus) -> None:
    settings = attacked._engine.inner(
        "SELECT current_setting('temp_directory') AS spill, current_setting('memory_limit') AS own",
        (),
    ).to_pylist()[0]
    whole = duckdb.connect().execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    assert "cytolake-sql-" in settings["spill"] and str(attacked.folder) not in settings["spill"]
    assert settings["own"] != whole and settings["own"].endswith("iB")


# Volatile, and yet of no harm: their value is their own affair (a selection refuses them).
HARMLESS = {"error", "gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"}


def test_every_function_of_duckdb_that_reaches_beyond_the_query_is_forbidden() -> None:
    """A newer DuckDB's new ones fail here, and are then judged by a person."""
    rows = duckdb.connect().execute(
        "SELECT DISTINCT lower(function_name), parameters FROM duckdb_functions() WHERE "
        "function_type IN ('scalar', 'aggregate', 'macro') AND (stability = 'VOLATILE' "
        "OR has_side_effects OR regexp_matches(macro_definition, '\\bFROM duckdb_|pragma_'))"
    )
    reaching = {str(name) for name, _ in rows.fetchall()} - HARMLESS
    assert len(reaching) > 10
    # format_type looks a type's name up, and macros named current_... call a listed function.
    for name in sorted(reaching - {"format_type"}):
        with pytest.raises(QueryError, match=FUNCTION):
            sandbox.check_query(f'SELECT "{name}"(1)')


@pytest.mark.parametrize(
    "query",
    [
        "FROM cells SELECT count(*)",
        "SELECT * FROM expression",
        "SELECT CELL_ID FROM CELLS",
        "TABLE cells",
        "VALUES (1)",
        "SHOW TABLES",
        "DESCRIBE expression",
        "SHOW cells",
        "SUMMARIZE cells",
        "SELECT * FROM range(3)",
        "SELECT unnest([1, 2])",
        "WITH t AS (SELECT 1 AS x) SELECT x FROM t",
        "WITH t AS MATERIALIZED (SELECT 1 AS x) SELECT (SELECT max(x) FROM t)",
        "WITH tables AS (FROM cells) SELECT * FROM tables",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "SELECT * FROM (SELECT cell_id FROM cells) AS inner_cells JOIN expression USING (cell_id)",
        "SELECT receipt->>'$.uri' FROM sources",
        "SELECT tissue, sum(n_counts) OVER (PARTITION BY tissue ORDER BY row) FROM cells",
        "SELECT DISTINCT ON (tissue) barcode FROM cells ORDER BY tissue, barcode DESC LIMIT 2",
        "SELECT tissue, count(*) FROM cells GROUP BY ROLLUP (tissue) HAVING count(*) > 1",
        "SELECT list_transform([1, 2], lambda x: x + 1), [y * 2 FOR y IN [1, 2] IF y > 1]",
        "SELECT regexp_extract(barcode, '^A+') FROM cells WHERE barcode ~ 'A.*'",
        "SELECT CAST(1 AS DECIMAL(10, 2)), {'a': 1}::STRUCT(a INT), 'a'::ENUM ('a', 'b')",
        "SELECT c.barcode, g.symbol FROM cells c, LATERAL (SELECT symbol FROM genes LIMIT 1) g",
        "FROM cells SEMI JOIN expression USING (cell_id)",
        "SELECT COLUMNS('n_.*') FROM cells USING SAMPLE 2",
        "FROM cells PIVOT (count(*) FOR tissue IN ('blood', 'lung'))",
        "SELECT now(), random(), median(n_counts), histogram(n_counts) FROM cells",
        "/* why */ SELECT 'COPY cells TO ''x.csv''; DROP VIEW cells' -- read_csv('x')",
    ],
)
def test_ordinary_queries_run(attacked: Corpus, query: str) -> None:
    assert attacked.sql(query).num_rows > 0


@pytest.mark.parametrize(
    "where",
    [
        "tissue = 'blood' -- a comment",
        "is_primary AND n_counts BETWEEN 5 AND 100 OR barcode IN ('AAA')",
        "cell_id IN (SELECT cell_id FROM expression WHERE symbol = 'CD3D')",
        "n_counts > (SELECT avg(n_counts) FROM cells)",
    ],
)
def test_ordinary_conditions_choose(attacked: Corpus, where: str) -> None:
    assert attacked.select(where=where).n_cells > 0
