import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cytolake.corpus.genes import GeneReference
from cytolake.ingest.harmonise import n_recognised
from cytolake.ingest.sources.spool import spool
from cytolake.ingest.sources.tables import open_table, with_parts
from cytolake.platform.errors import NoGenesError, SourceError

COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 7, 0], [5, 0, 70000]])  # cells x genes
CELLS, GENES = ["c1", "c2", "c3", "c4"], ["G1", "G2", "G3"]


def text_of(table: Any, rows: Any, columns: Any, delimiter: str, corner: bool, quoted: bool):
    def name(word: Any):
        return f'"{word}"' if quoted else word

    head = [name(word) for word in columns]
    lines = [delimiter.join(([name("")] if corner else []) + head)]
    for row, values in zip(rows, table.tolist(), strict=True):
        lines.append(delimiter.join([name(row), *map(str, values)]))
    return "\n".join(lines) + "\n"


@pytest.fixture
def recognise(reference: GeneReference):
    return lambda names: n_recognised(names, reference)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"], ids=["comma", "tab", "semicolon"])
@pytest.mark.parametrize("corner", [True, False], ids=["corner", "no corner"])
@pytest.mark.parametrize("genes_down", [True, False], ids=["genes down", "cells down"])
def test_every_way_round_gives_the_same_counts(
    tmp_path: Path, recognise: Any, delimiter: str, corner: bool, genes_down: bool
):
    path = tmp_path / "t.txt.gz"
    table, rows, columns = (COUNTS.T, GENES, CELLS) if genes_down else (COUNTS, CELLS, GENES)
    text = text_of(table, rows, columns, delimiter, corner, quoted=corner)
    path.write_bytes(gzip.compress(text.encode()))
    source = open_table(path, None, recognise)
    assert source.orientation == ("genes_x_cells" if genes_down else "cells_x_genes")
    assert source.barcodes().tolist() == CELLS
    assert source.genes("table")["index"].tolist() == GENES
    spooled = spool(source, "table", tmp_path / "spool")
    blocks = list(spooled.blocks("table", 0, 4))
    assert (np.vstack([b.matrix.toarray() for b in blocks]) == COUNTS).all()


def test_the_user_may_say_which_way_round(tmp_path: Path, recognise: Any):
    path = tmp_path / "t.csv"
    path.write_text(text_of(COUNTS, CELLS, ["x", "y", "z"], ",", True, False))
    assert open_table(path, "cells_x_genes", recognise).barcodes().tolist() == CELLS


def test_a_table_of_other_things_is_refused_with_both_sides(tmp_path: Path, recognise: Any):
    path = tmp_path / "t.csv"
    path.write_text(text_of(COUNTS, CELLS, ["x", "y", "z"], ",", True, False))
    with pytest.raises(NoGenesError, match=r"first column .*A0.*first line .*A"):
        open_table(path, None, recognise)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c9,1,2", r"line 6 has 2 values, expected 3"),
        ("c9,1,2,3,4", "has 4 values, expected 3"),
        ("c9,1,two,3", "holds 'two', expected a number"),
        ("c9,1,,3", "expected a number"),
        ("c9,1,NA,3", "holds 'NA'"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(
    tmp_path: Path, recognise: Any, line: str, message: str
):
    path = tmp_path / "t.csv"
    path.write_text(text_of(COUNTS, CELLS, GENES, ",", True, False) + line + "\n")
    source = open_table(path, None, recognise)
    with pytest.raises(SourceError, match=message):
        list(source.triplets("table"))


def test_an_empty_cell_between_tabs_moves_no_value(tmp_path: Path, recognise: Any):
    path = tmp_path / "t.tsv"
    path.write_text("x\tG1\tG2\tG3\nc1\t1\t2\t3\nc2\t4\t\t5\t6\n")
    source = open_table(path, "cells_x_genes", recognise)
    with pytest.raises(SourceError, match=r"line 3 has 4 values, expected 3"):
        list(source.triplets("table"))


def test_a_cut_gzip_is_refused(tmp_path: Path, recognise: Any):
    path = tmp_path / "t.csv.gz"
    text = text_of(COUNTS.repeat(500, axis=0), [f"c{i}" for i in range(2000)], GENES, ",", True,
                   False)  # fmt: skip
    path.write_bytes(gzip.compress(text.encode())[:-200])
    with pytest.raises(SourceError, match="cannot be read to its end"):
        list(open_table(path, "cells_x_genes", recognise).triplets("table"))


@pytest.mark.parametrize("genes_down", [True, False], ids=["genes down", "cells down"])
def test_names_of_two_parts_are_offered_by_part_and_tell_the_way_round(
    tmp_path: Path, recognise: Any, genes_down: bool
):
    path = tmp_path / "t.tsv"
    joined = ["G1|101", "?|7", "G3|103"]
    table, rows, columns = (COUNTS.T, joined, CELLS) if genes_down else (COUNTS, CELLS, joined)
    path.write_text(text_of(table, rows, columns, "\t", True, False))
    source = open_table(path, None, recognise)
    assert source.barcodes().tolist() == CELLS
    genes = {name: names.tolist() for name, names in source.genes("table").items()}
    parts = {"part 1": ["G1", "?", "G3"], "part 2": ["101", "7", "103"]}
    assert genes == {"index": joined, **parts}


def test_names_few_of_which_have_parts_are_taken_as_they_stand():
    names = np.array(["G1", "HLA|A", "G3"], dtype=object)
    assert list(with_parts(names)) == ["index"]
    mixed = with_parts(np.array(["G1|1", "N_unmapped", "G3|3"], dtype=object))
    assert mixed["part 2"].tolist() == ["1", "N_unmapped", "3"]
    assert list(with_parts(np.array([], dtype=object))) == ["index"]


def test_prose_is_no_table(tmp_path: Path, recognise: Any):
    path = tmp_path / "t.txt"
    path.write_text("Lorem\nipsum\n")
    with pytest.raises(SourceError, match="no table"):
        open_table(path, None, recognise)
