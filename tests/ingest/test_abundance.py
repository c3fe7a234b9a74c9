import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cytolake.ingest.abundance import read_abundance
from cytolake.platform.errors import SourceError
from hypothesis import given, settings
from hypothesis import strategies as st

SAMPLES = np.array(["a", "b", "c", "d"], dtype=object)
TABLE = "\tc\ta\tx\nAkt_pS473\t-1.5\tNA\t3\nEGFR\t0\t2.25\t4\n"


def dense(found: Any, n_samples: int) -> Any:
    """What a batch stores, NaN elsewhere: one value at a time."""
    table = np.full((n_samples, found.n_features), np.nan, dtype=np.float32)
    for row in range(n_samples):
        for place in range(found.indptr[row], found.indptr[row + 1]):
            table[row, found.indices[place]] = found.values[place]
    return table


def test_proteins_down_are_matched_by_name_and_a_zero_is_a_value(tmp_path: Path):
    path = tmp_path / "p.tsv"
    path.write_text(TABLE)
    table = read_abundance(path, SAMPLES)
    batch = table.batch(np.array([2, 1, 0]))  # c, b, a
    assert batch.feature_ids == ["Akt_pS473", "EGFR"]
    wanted = [[-1.5, 0.0], [np.nan, np.nan], [np.nan, 2.25]]
    np.testing.assert_array_equal(dense(batch, 3), np.array(wanted, dtype=np.float32))
    assert batch.values.tolist() == [-1.5, 0.0, 2.25] and batch.values.dtype == np.float32
    assert table.note == (
        "protein_abundance: 2 proteins of p.tsv in 2 of 4 samples, 1 values not measured; "
        "1 samples of the table are not in the source"
    )


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.lists(
            st.one_of(
                st.sampled_from(["", "NA", "nan", "NaN", "n/a", "NULL"]),
                st.floats(-1e6, 1e6, width=32),
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    delimiter=st.sampled_from([",", "\t", ";"]),
    corner=st.booleans(),
    zipped=st.booleans(),
    samples_down=st.booleans(),
)
def test_every_way_of_writing_a_table_gives_what_was_written(
    values: Any,
    delimiter: str,
    corner: bool,
    zipped: bool,
    samples_down: bool,
    tmp_path_factory: pytest.TempPathFactory,
):
    down = [f"{'S' if samples_down else 'P'}{i}" for i in range(len(values))]
    across = [f"{'P' if samples_down else 'S'}{i}" for i in range(3)]
    lines = [delimiter.join((['""'] if corner else []) + [f'"{name}"' for name in across])]
    for name, row in zip(down, values, strict=True):
        lines.append(delimiter.join([f'"{name}"', *map(str, row)]))
    path = tmp_path_factory.mktemp("table") / "p.txt"
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if zipped else text)
    samples = np.array((down if samples_down else across)[::-1], dtype=object)
    table = read_abundance(path, samples)
    wanted = pd.DataFrame(
        [[np.nan if isinstance(v, str) else v for v in row] for row in values],
        index=pd.Index(down),
        columns=pd.Index(across),
    )
    wanted = wanted if samples_down else wanted.T
    found = dense(table.batch(np.arange(len(samples))), len(samples))
    assert list(table.proteins) == list(wanted.columns)
    np.testing.assert_array_equal(found, wanted.loc[samples].to_numpy(np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ta\tb\nP\t1\thigh\n", r"line 2, column 3 holds 'high', expected a number, or NA"),
        ("\ta\tb\nP\t1\t1_000\n", "holds '1_000'"),
        ("\ta\tb\nP\t1\t-inf\n", "expected a finite number"),
        ("\ta\tb\nP\t1\t1e39\n", "expected a finite number that float32 holds"),
        ("\ta\tb\nP\t1\n", r"line 2 has 2 words|first line"),
        ("\ta\tb\nP\t1\t2\nQ\t1\n", "line 3 has 2 words, expected a name and 2 values"),
        ("\ta\ta\nP\t1\t2\n", "one sample stands in columns 2 and 3: give each"),
        ("\ta\tb\nP\t1\t2\nP\t1\t2\n", r"one protein stands in lines 2 and 3 \(P\)"),
        ("\tP\nx\t1\ny\t2\n", "no sample in common with the source"),
        ("\ta\t\nP\t1\t2\n", "a column has no name"),
        ("\ta\tb\n\t1\t2\n", "row 1 has no name"),
        ("\ta\tb\n", "no table"),
        ("prose\n", "no table"),
    ],
)
def test_a_bad_table_is_refused_with_the_place(tmp_path: Path, text: str, message: str):
    path = tmp_path / "p.tsv"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_abundance(path, SAMPLES)


def test_a_sample_that_stands_twice_in_the_source_is_refused(tmp_path: Path):
    path = tmp_path / "p.tsv"
    path.write_text(TABLE)
    with pytest.raises(SourceError, match="rows 0 and 2 of the source have one name"):
        read_abundance(path, np.array(["a", "b", "a"], dtype=object))


def test_a_cut_gzip_is_refused(tmp_path: Path):
    path = tmp_path / "p.tsv.gz"
    rows = "".join(f"P{i}\t{i}.{i % 7}\t{i * i}\n" for i in range(5000))
    path.write_bytes(gzip.compress(("\ta\tb\n" + rows).encode())[:-200])
    with pytest.raises(SourceError, match="cannot be read to its end"):
        read_abundance(path, SAMPLES)
