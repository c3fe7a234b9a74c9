from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cytolake.ingest.rules import QualityRules
from cytolake.ingest.sources_toml import (
    MutationalBurden,
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
        ('[[source]]\npath = "a"\n[source.quality]\nmin_count = 3', "did you mean 'min_counts'"),
        ('[[source]]\npath = "a"\n[source.filters]\nkep = {}', "did you mean 'keep'"),
        ('[[source]]\npath = "a"\n[source.doublets]\nbach = "x"', "did you mean 'batch'"),
        ('[[source]]\npath = "a"\nfilters = { keep = { qc = [] } }', "qc has no value"),
        ('[[source]]\npath = "a"\nfilters = { min = { n = nan } }', "expected a finite number"),
        (
            '[[source]]\npath = "a"\nfilters = { min = { n = 2 }, max = { n = 1 } }',
            "min.n = 2 is above max.n = 1",
        ),
        ('[[source]]\npath = "a"\nquality = { total_counts_sd = false }', '"off" to switch'),
        ('[[source]]\npath = "a"\nquality = { total_counts_sd = 0 }', "greater than 0"),
        ('[[source]]\npath = "a"\nquality = { max_mito_fraction = 5 }', "less than or equal to 1"),
        (
            '[[source]]\npath = "a"\nquality = { method = "mad", total_counts_sd = 2 }',
            "total_counts_sd = 2.0 has no effect with method",
        ),
        (
            '[[source]]\npath = "a"\nquality = { min_counts = 9, total_counts_sd = 2 }',
            "min_counts stands instead of it",
        ),
        (
            '[[source]]\npath = "a"\nquality = { min_counts = 9, max_counts = 8 }',
            "no cell would be kept",
        ),
        ('[[source]]\npath = "a"\nkind = "bulks"', "kind"),
        (
            '[[source]]\npath = "a"\nkind = "bulk"\n[source.doublets]\nseed = 1',
            "a bulk sample is none: leave",
        ),
        ('[[source]]\npath = "a"\nexpected_counts = "round"', 'set kind = "bulk"'),
        (
            '[[source]]\npath = "a"\nkind = "bulk"\nexpected_counts = "round"\n'
            'recover = "log1p_cp10k"',
            "give `recover` or `expected_counts`, not both",
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


FROZEN: dict[str, SourceEntry] = {
    "f01a5aad481e897991ed843a1515564580a679cbf4e124e4f56ffcea1e8276ac": SourceEntry(path="a"),
    "c5bbd2283687c54141d819a5e20cd590a9bbc5ba374f7dfbb2938527fa670dea": SourceEntry(
        path="a",
        name="x",
        reader="csv",
        layer="raw/X",
        recover="log1p_cp10k",
        columns={"cell_type": "cluster"},
        constants={"tissue": "heart"},
        mutational_burden=MutationalBurden(reason="lines", column="line", values=("HeLa",)),
        quality=QualityRules(total_counts_sd=2.5, min_genes=3, mitochondrial_sd=None),
        duplicate_barcodes="keep",
        panel="use",
        genes="symbol",
    ),
}
"""Hashes that the first cytolake gave: they stand in receipts of corpora."""


@pytest.mark.parametrize("digest", FROZEN, ids=["plain", "every old setting"])
def test_a_source_of_an_older_corpus_keeps_its_hash(digest: str):
    given = {"gene_reference": "r" * 64, "metadata_sha256": None}
    assert recipe_hash(FROZEN[digest], **given) == digest
    again = SourceEntry.model_validate_json(FROZEN[digest].model_dump_json())
    assert recipe_hash(again, **given) == digest


@pytest.mark.parametrize(
    "settings",
    [
        {"quality": {"method": "mad"}},
        {"quality": {"min_counts": 0}},
        {"quality": {"max_mito_fraction": 0.1}},
        {"filters": {"keep": {"qc": ["yes"]}}},
        {"filters": {"drop": {"qc": ["yes"]}}},
        {"doublets": {}},
        {"doublets": {"seed": 1}},
    ],
    ids=str,
)
def test_every_new_setting_that_is_used_is_in_the_hash(settings: Any):
    given = {"gene_reference": "r" * 64, "metadata_sha256": None}
    hashes = {recipe_hash(SourceEntry(path="a", **settings), **given), *FROZEN}
    assert len(hashes) == 3
    assert recipe_hash(SourceEntry(path="a", doublets={"seed": 2}), **given) not in hashes


def test_values_of_a_filter_are_words_as_a_column_of_text_holds_them(tmp_path: Path):
    text = '[[source]]\npath = "a"\n[source.filters]\nkeep = { a = [true, 3, 2.0, "x"], b = "y" }'
    filters = load_sources(write(tmp_path, text)).source[0].filters
    assert filters.keep == {"a": ("true", "3", "2", "x"), "b": ("y",)}
    off = '[[source]]\npath = "a"\nquality = { total_counts_sd = "off" }'
    assert load_sources(write(tmp_path, off)).source[0].quality.total_counts_n is None


@pytest.mark.parametrize("name", ["sources.toml", "sources-poorest.toml"])
def test_the_shipped_descriptions_are_understood(name: str):
    with_path = Path(str(files("cytolake") / "ingest" / "demo" / name))
    assert len(load_sources(with_path).source) >= 3


OFF = {"total_counts_sd": None, "mitochondrial_sd": None, "mutational_burden": False}
ON = {"total_counts_sd": 3.0, "mitochondrial_sd": 3.0, "mutational_burden": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, OFF),
        ({"quality": {"min_genes": 3}}, OFF),
        ({"quality": {"total_counts_sd": 3}}, OFF | {"total_counts_sd": 3.0}),
        ({"quality": {"min_counts": 5}}, OFF | {"total_counts_sd": 3.0}),
        ({"quality": {"max_mito_fraction": 0.5}}, OFF | {"mitochondrial_sd": 3.0}),
        ({"quality": {"method": "mad"}}, ON | {"mutational_burden": False}),
        ({"quality": {"mutational_burden": True}}, OFF | {"mutational_burden": True}),
        ({"mutational_burden": {"reason": "cell lines"}}, OFF | {"mutational_burden": True}),
        ({"quality": QualityRules(total_counts_sd=3.0)}, OFF | {"total_counts_sd": 3.0}),
    ],
)
def test_rules_that_only_cells_bear_out_are_off_for_bulk_unless_they_are_set(
    given: Any, expected: Any
):
    entry = SourceEntry.model_validate({"path": "a", "kind": "bulk", **given})
    assert {name: getattr(entry.quality, name) for name in OFF} == expected
    assert SourceEntry.model_validate_json(entry.model_dump_json()) == entry
    cells = SourceEntry.model_validate({"path": "a", **given})
    assert cells.quality.mutational_burden and cells.quality.total_counts_sd == 3.0


def test_bulk_and_proteins_are_part_of_the_recipe_only_where_they_are_set():
    def hashed(measured: str | None = None, **values: Any):
        entry = SourceEntry(path="a", **values)
        return recipe_hash(
            entry, gene_reference="r", metadata_sha256=None, proteins_sha256=measured
        )

    bare = recipe_hash(SourceEntry(path="a"), gene_reference="r", metadata_sha256=None)
    assert hashed() == hashed(kind="cells") == bare
    bulk = hashed(kind="bulk")
    different = {bare, bulk, hashed(kind="bulk", expected_counts="round"), hashed("x"), hashed("y")}
    assert len(different) == 5
    assert hashed("x", proteins="p.csv") == hashed("x", proteins="q.csv")
