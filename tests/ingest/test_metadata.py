from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cytolake.ingest.metadata import (
    annotations,
    as_text,
    burdened,
    check_columns,
    join_columns,
    read_cell_table,
)
from cytolake.ingest.sources_toml import MutationalBurden, SourceEntry
from cytolake.platform.errors import SourceError

BARCODES = np.array(["a", "b", "c"], dtype=object)


@pytest.mark.parametrize("corner", ["barcode,", ""], ids=["corner", "R's missing corner"])
def test_a_table_is_brought_to_the_order_of_the_source(tmp_path: Path, corner: str):
    path = tmp_path / "cells.csv"
    path.write_text(f"{corner}kind,age\nc,T,3\na,B,1\nz,K,9\n")
    table = read_cell_table(path, BARCODES)
    assert table.columns.column("kind").to_pylist() == ["B", None, "T"]
    assert table.n_missing == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("barcode,kind\nx,T\ny,B\n", "none of its first column \\(it begins with one like 'A'\\)"),
        ("barcode,kind\na,T\na,B\n", "one barcode stands in lines 2 and 3"),
    ],
)
def test_a_table_of_other_cells_is_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_cell_table(path, BARCODES)


def test_constants_are_stronger_than_mappings_and_those_than_equal_names():
    own = pa.table({"cluster": ["x", "y"], "cell_type": ["p", "q"], "sex": ["f", "m"]})
    entry = SourceEntry(path="f", columns={"cell_type": "cluster"}, constants={"sex": "unknown"})
    found = annotations(entry, own, 2)
    assert found["cell_type"].to_pylist() == ["x", "y"]
    assert found["sex"].to_pylist() == ["unknown", "unknown"]
    assert found["organism"].to_pylist() == ["Homo sapiens"] * 2
    assert "tissue" not in found


def test_a_number_as_a_name_has_no_decimals():
    assert as_text(pa.chunked_array([[1015.0, None]])).to_pylist() == ["1015", None]
    assert as_text(pa.chunked_array([[0.5, 2.0]])).to_pylist() == ["0.5", "2"]


def test_a_column_in_both_tables_is_refused():
    with pytest.raises(SourceError, match="'kind' is in obs and in the metadata"):
        join_columns(pa.table({"kind": [1]}), pa.table({"kind": [2]}))
    none = pa.table({"disease": pa.array([], pa.string())})
    assert join_columns(pa.table({}), none).column_names == ["disease"]  # asked of no cell


def test_a_mapping_from_a_missing_column_is_refused_with_the_nearest():
    entry = SourceEntry(path="f", columns={"cell_type": "clutser"})
    with pytest.raises(SourceError, match="did you mean 'cluster'"):
        check_columns(entry, ["cluster", "sex"], "f.h5ad")


def test_burden_is_declared_by_source_by_column_or_in_cellxgenes_words():
    own = pa.table({"line": ["HeLa", "no", None], "tissue_type": ["tissue", "cell line", None]})
    by_column = MutationalBurden(reason="lines", column="line", values=("HeLa",))
    everything = MutationalBurden(reason="lines")
    lifted = {"cell_type": pa.array(["T", "B", "malignant cell"])}
    plain = SourceEntry(path="f")
    assert burdened(plain, own, lifted, 3).tolist() == [False, True, True]
    entry = plain.model_copy(update={"mutational_burden": by_column})
    assert burdened(entry, own, {}, 3).tolist() == [True, True, False]
    entry = plain.model_copy(update={"mutational_burden": everything})
    assert burdened(entry, own, {}, 3).tolist() == [True, True, True]


def test_a_cell_line_is_known_by_its_cellosaurus_entry_and_cultures_and_diseases_are_not():
    own = pa.table(
        {
            "tissue_type": ["tissue", "cell culture", "primary cell culture", "organoid", None],
            "tissue_ontology_term_id": ["CVCL_0030", "CVCL:A123", "CL:0000057", None, "XCVCL_1"],
            "disease": ["lung adenocarcinoma"] * 5,
        }
    )
    found = burdened(SourceEntry(path="f"), own, {}, 5).tolist()
    assert found == [True, True, False, False, False]


def test_the_values_of_a_declaration_are_taken_by_the_letter():
    own = pa.table({"line": ["A*", "AB", None]})
    lines = MutationalBurden(reason="lines", column="line", values=("A*",))
    entry = SourceEntry(path="f", mutational_burden=lines)
    assert burdened(entry, own, {}, 3).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "settings",
    [
        {"filters": {"keep": {"clutser": ["x"]}}},
        {"filters": {"drop": {"clutser": ["x"]}}},
        {"filters": {"max": {"clutser": 1}}},
        {"doublets": {"batch": "clutser"}},
    ],
    ids=["keep", "drop", "max", "batch"],
)
def test_a_rule_that_names_a_missing_column_is_refused_with_the_nearest(settings: Any):
    entry = SourceEntry(path="f", **settings)
    with pytest.raises(SourceError, match=r"no column 'clutser'.* did you mean 'cluster'"):
        check_columns(entry, ["cluster", "sex"], "f.h5ad")
