from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cytolake.ingest.sources_toml import (
    SourceEntry,
    default_name,
    load_sources,
    plan_of,
    recipe_hash,
    resolve,
)
from cytolake.platform.errors import RecipeError, SourceError
from cytolake.platform.settings import Settings


def write(tmp_path: Path, text: str):
    path = tmp_path / "sources.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[source]]\npath = "a"\nreder = "csv"', "no setting 'reder'; did you mean 'reader'"),
        ('[[source]]\npath = "a"\nreader = "csvv"', "reader"),
        ('[[source]]\nname = "x"', "needs a `path` or a `resource`"),
        ('[[source]]\npath = "a"\ncolumns = { celltype = "x" }', "did you mean 'cell_type'"),
        ('[[source]]\npath = "a"\nconstants = { organ = "x" }', "no column 'organ'"),
        ('[[source]]\npath = "a"\nrecover = "log"', "recover"),
        ('[[source]]\npath = "a"\n[source.quality]\nmin_gene = 3', "did you mean 'min_genes'"),
        (
            '[[source]]\npath = "a"\nmutational_burden = { reason = "x", column = "y" }',
            "`column` and `values` go together",
        ),
        ("source = []", "source"),
        ("[[source", "not valid TOML"),
    ],
)
def test_a_mistake_is_refused_with_its_place(tmp_path: Path, text: str, message: str):
    with pytest.raises(RecipeError, match=message):
        load_sources(write(tmp_path, text))


def test_paths_are_relative_to_the_toml(tmp_path: Path):
    (tmp_path / "a.csv").write_text("x")
    plan = load_sources(write(tmp_path, '[[source]]\npath = "a.csv"'))
    assert resolve(plan.source[0], plan, Settings()) == tmp_path / "a.csv"
    other = load_sources(write(tmp_path, '[[source]]\npath = "b.csv"'))
    with pytest.raises(SourceError, match="no such file or folder"):
        resolve(other.source[0], other, Settings())


def test_files_or_one_toml_may_stand_on_the_command_line(tmp_path: Path):
    toml = write(tmp_path, '[[source]]\npath = "a.csv"')
    assert plan_of([toml]).source[0].path == "a.csv"
    assert [e.path for e in plan_of(["/x/a.h5ad", "/x/b"]).source] == ["/x/a.h5ad", "/x/b"]
    with pytest.raises(RecipeError, match=r"or one sources\.toml"):
        plan_of([toml, "a.h5ad"])


@pytest.mark.parametrize(
    ("file", "name"),
    [("a.h5ad", "a"), ("b.count.csv.gz", "b.count"), ("c.tar.gz", "c"), ("folder", "folder")],
)
def test_a_source_is_called_as_its_file(file: str, name: str):
    assert default_name(Path("/x") / file) == name


def test_the_recipe_hash_follows_what_decides_the_cells():
    def hashed(**values: Any):
        entry = SourceEntry(path="a", **values)
        return recipe_hash(entry, gene_reference="r", metadata_sha256=None)

    assert hashed(name="x") == hashed(name="y")
    assert hashed() != hashed(layer="X")
    assert hashed() != hashed(columns={"cell_type": "x"})
    entry = SourceEntry(path="a")
    assert recipe_hash(entry, gene_reference="s", metadata_sha256=None) != hashed()


@pytest.mark.parametrize("name", ["sources.toml", "sources-poorest.toml"])
def test_the_shipped_descriptions_are_understood(name: str):
    with_path = Path(str(files("cytolake") / "ingest" / "demo" / name))
    assert len(load_sources(with_path).source) >= 3
