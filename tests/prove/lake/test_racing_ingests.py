"""Two commands that ingest into one lake at once: both sources land, once, and it verifies."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from anndata import read_h5ad
from cytolake.corpus.store import Corpus

pytestmark = [pytest.mark.prove, pytest.mark.timeout(900)]

READ = """
import sys
from cytolake.corpus.store import Corpus

seen = set()
for _ in range(200):
    corpus = Corpus.open(sys.argv[1])
    query = "SELECT count(*) AS n, count(DISTINCT cell_id) AS ids FROM cells"
    (row,) = corpus.sql(query).to_pylist()
    assert row["n"] == row["ids"], row
    seen.add(row["n"])
print(sorted(seen))
"""


# The file is of an old anndata, whose reading warns in words of several libraries.
@pytest.mark.filterwarnings("ignore")
def test_two_ingests_and_a_reader_do_not_disturb_each_other(
    pbmc_sources: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    Corpus.create(str(lake))
    other = tmp_path / "other.toml"
    part = read_h5ad(tomllib.loads(pbmc_sources.read_text())["source"][0]["path"]).raw.to_adata()
    part[:300].write_h5ad(tmp_path / "part.h5ad")
    lines = ["unit_cells = 50", "[[source]]", 'name = "part"', 'path = "part.h5ad"']
    other.write_text("\n".join([*lines, 'recover = "log1p_cp10k"', 'panel = "use"']))
    words = [sys.executable, "-m", "cytolake", "ingest"]
    racers = [
        subprocess.Popen(
            [*words, str(plan), "--corpus", str(lake)],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for plan in (pbmc_sources, other)
    ]
    reader = subprocess.run(
        [sys.executable, "-c", READ, str(lake)], capture_output=True, text=True, check=False
    )
    said = [racer.communicate()[1] for racer in racers]
    assert reader.returncode == 0, reader.stderr
    corpus = Corpus.open(str(lake))
    counts = corpus.sql("SELECT source_id, count(*) AS n FROM cells GROUP BY 1").to_pylist()
    found = {row["source_id"]: row["n"] for row in counts}
    assert found.keys() == {"pbmc", "part"} and min(found.values()) > 250, (found, said)
    assert corpus.verify(deep=True) == []
