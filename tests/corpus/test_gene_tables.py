import gzip
import json
from pathlib import Path

import pytest
from cytolake.corpus.gene_tables import joined_table, read_genes
from cytolake.corpus.genes import GeneReference
from cytolake.platform.errors import ResourceError, StorageError

GENES = (
    "ensembl_id\tsymbol\tbiotype\taliases\tentrez_id\n"
    "ENSG00000000001\tFIRRM\tprotein_coding\tMEICA1|KEPT\t55732\n"
    "ENSG00000000002\tSARS1\tprotein_coding\tSARS\t\n"
    "ENSG00000000003\tSARS2\tprotein_coding\tSARS\t54938\n"
    "ENSG00000000004.5\t\tlncRNA\t\t\n"
)
NCBI = (
    "entrez_id\tsymbol\tgene_name\tgene_type\tensembl_ids\tchromosome\tuniprot_ids\taliases\n"
    "55732\tC1orf112\tx\tprotein-coding\tENSG00000000001|ENSG00000999999\t1\t\tMEICA1|NEW\n"
    "7\tKEPT\tx\tprotein-coding\tENSG00000000001\t1\t\t\n"
    "9\tSARS1\tx\tother\tENSG00000000004\t1\t\t\n"
)


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path, Path]:
    genes, ncbi, renamed = (tmp_path / name for name in ("g.tsv", "n.tsv.gz", "r.json"))
    genes.write_text(GENES)
    ncbi.write_bytes(gzip.compress(NCBI.encode()))
    renamed.write_text(json.dumps({"SARS": "SARS1", "GONE": "NOWHERE"}))
    return genes, ncbi, renamed


def test_both_shapes_of_gene_tables_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "genes.csv"
    plain.write_text('ENSG00000000001,"ACTB",2,100,protein_coding\n')
    headed = tmp_path / "genes.tsv"
    headed.write_text(
        "ensembl_id\tsymbol\tbiotype\taliases\nENSG00000000001\tACTB\tprotein_coding\tBA|BB\n"
    )
    assert GeneReference.load(plain).symbols == ("ACTB",)
    assert GeneReference.load(headed).aliases == (("BA", "BB"),)


def test_a_gene_without_a_symbol_is_called_by_its_id(tables: tuple[Path, Path, Path]) -> None:
    last = read_genes(tables[0])[-1]
    assert (last.gene_id, last.symbol) == ("ENSG00000000004", "ENSG00000000004")


def test_ncbis_older_symbols_become_previous_ones_unless_approved_today(
    tables: tuple[Path, Path, Path],
) -> None:
    rows = {row.symbol: row for row in read_genes(*tables[:2])}
    assert rows["FIRRM"].previous == ("C1orf112", "KEPT")
    assert rows["FIRRM"].aliases == ("MEICA1", "NEW")
    assert rows["FIRRM"].entrez_id == "55732"
    assert rows["ENSG00000000004"].previous == ()
    assert rows["ENSG00000000004"].entrez_id == "9"


def test_a_symbol_that_was_changed_beats_an_alias_of_two_genes(
    tables: tuple[Path, Path, Path],
) -> None:
    genes, _, renamed = tables
    assert GeneReference.load(genes).map_names(["SARS"]).kinds.tolist() == ["ambiguous"]
    mapping = GeneReference.load(genes, renamed).map_names(["SARS", "GONE"])
    assert mapping.kinds.tolist() == ["previous", "unmapped"]
    assert mapping.gene_ids[0] == "ENSG00000000002"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("barcode,n\nAAA,1\n", "cells.csv", r"cells\.csv: no gene table"),
        ("ensembl_id\tsymbol\tbiotype\nTP53\tTP53\tx\n", "genes.tsv", "'TP53' is no Ensembl"),
        ("", "empty.tsv", "no gene table"),
    ],
)
def test_a_file_that_is_no_gene_table_is_refused_by_name(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    wrong = tmp_path / name
    wrong.write_text(text)
    with pytest.raises(ResourceError, match=message):
        GeneReference.load(wrong)


@pytest.mark.parametrize(("name", "text"), [("n.tsv", "a\tb\n"), ("r.json", "[1, 2]")])
def test_a_table_of_other_names_is_refused_where_it_is_none(
    tables: tuple[Path, Path, Path], tmp_path: Path, name: str, text: str
) -> None:
    wrong = tmp_path / f"wrong-{name}"
    wrong.write_text(text)
    with pytest.raises(ResourceError, match=rf"wrong-{name}: (no table of names|expected a json)"):
        GeneReference.load(tables[0], wrong)


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "genes.tsv.gz"
    cut.write_bytes(gzip.compress(GENES.encode() * 50)[:60])
    with pytest.raises(ResourceError, match="cannot be read as a gene table"):
        GeneReference.load(cut)


def test_a_joined_table_says_what_its_parts_say_and_is_written_once(
    tables: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    genes, *others = tables
    folder = tmp_path / "home/joined"
    place = joined_table(genes, others, folder)
    assert read_genes(place) == read_genes(*tables)
    assert GeneReference.load(place).digest == GeneReference.load(*tables).digest
    written = place.stat().st_mtime_ns
    assert joined_table(genes, others, folder) == place
    assert place.stat().st_mtime_ns == written
    genes.write_text(GENES.replace("MEICA1", "OTHER"))
    assert joined_table(genes, others, folder) != place
    assert len(list(folder.iterdir())) == 2


def test_without_other_tables_nothing_is_written(
    tables: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    assert joined_table(tables[0], (), tmp_path / "joined") == tables[0]
    assert not (tmp_path / "joined").exists()


def test_a_folder_that_cannot_be_made_is_told(
    tables: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made, to keep gene names"):
        joined_table(tables[0], tables[1:], tmp_path / "file" / "joined")
