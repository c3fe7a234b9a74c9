from datetime import date, timedelta

import pytest
from cytolake.corpus.spellings import (
    SPECIES_OF_ENSEMBL,
    ensembl_id,
    guess_species,
    has_mouse_style,
    names_of_date,
    renamed_family,
    species_named,
    species_of_id,
    split_genome,
    spreadsheet_date,
)
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 10**11 - 1), st.integers(0, 99))
def test_a_version_never_changes_the_gene(number: int, version: int) -> None:
    name = f"ENSG{number:011d}"
    assert ensembl_id(f"{name}.{version}") == name == ensembl_id(name)


@given(st.sampled_from(sorted(SPECIES_OF_ENSEMBL)), st.integers(0, 10**11 - 1))
def test_an_id_tells_its_species(prefix: str, number: int) -> None:
    assert species_of_id(f"{prefix}{number:011d}.1") == SPECIES_OF_ENSEMBL[prefix]


@pytest.mark.parametrize(
    ("name", "species"),
    [
        ("ENSG00000141510.3", "human"),
        ("ENSGR0000182378", "human"),
        ("ENSGALG00000000001", "chicken"),
        ("ENSABCG00000000001", "ENSABCG..."),
        ("FBgn0000042", "fruit fly"),
        ("TP53", None),
        ("mm10_Actb", "mouse"),
        ("hg19_ENSMUSG00000059552", "mouse"),
        ("hg19_TP53", "human"),
    ],
)
def test_a_name_tells_the_species_by_its_id_or_else_by_its_genome(
    name: str, species: str | None
) -> None:
    assert species_named(name) == species


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hg19_TP53", ("hg19_", "human", "TP53")),
        ("GRCh38______HLA-A", ("GRCh38______", "human", "HLA-A")),
        ("GRCh38-TP53", ("GRCh38-", "human", "TP53")),
        ("GRCh38-2020-A_TP53", ("GRCh38-2020-A_", "human", "TP53")),
        ("hs_TP53", ("hs_", "human", "TP53")),
        ("mm10_Actb", ("mm10_", "mouse", "Actb")),
        ("HS3ST1", None),
        ("MMP9", None),
        ("RATHB", None),
    ],
)
def test_a_genomes_prefix_is_told_from_the_name_behind_it(
    name: str, parts: tuple[str, str, str] | None
) -> None:
    assert split_genome(name) == parts


@pytest.mark.parametrize(
    ("name", "mouse"),
    [
        ("Actb", True), ("Tnfrsf1a", True), ("H2-Aa", True), ("mt-Co1", True), ("Gm1234", True),
        ("4933401J01Rik", True), ("ACTB", False), ("C1orf112", False), ("CXorf38", False),
        ("TP53", False), ("actb", False),
    ],
)  # fmt: skip
def test_mouse_symbols_have_their_style(name: str, mouse: bool) -> None:
    assert has_mouse_style(name) is mouse


def test_most_names_decide_the_species() -> None:
    found = guess_species(["Actb", "Gapdh", "Tp53", "ERCC-00002"])
    assert found is not None
    assert (found.name, found.share) == ("mouse", 0.75)
    ids = guess_species(["ENSMUSG00000059552", "ENSMUSG00000059553", "x"])
    assert ids is not None and ids.sign == "ids that begin with ENSMUSG"
    assert guess_species(["TP53", "ACTB", "Actb"]) is None
    assert guess_species(["hg19_TP53", "hg19_ACTB"]) is None


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("1-Mar", (3, 1)), ("01-MAR-2001", (3, 1)), ("Mar-01", (3, 1)), ("1/Mar", (3, 1)),
        ("2-Sep", (9, 2)), ("Sept-2", (9, 2)), ("2001-03-01 00:00:00", (3, 1)),
        ("2001-09-15", (9, 15)), ("43891", (3, 1)), ("43891.0", (3, 1)), ("SEPT2", None),
        ("MARCH1", None), ("MARC1", None), ("32-Mar", None), ("2001-13-01", None), ("99", None),
        ("CH507-9B2.2", None), ("RP11-34P13.3", None),
    ],
)  # fmt: skip
def test_a_date_that_a_spreadsheet_made_is_recognised(
    name: str, day: tuple[int, int] | None
) -> None:
    assert spreadsheet_date(name) == day


@given(st.dates(date(1990, 1, 1), date(2030, 12, 31)))
def test_every_way_to_write_a_day_is_read_as_that_day(day: date) -> None:
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    serial, counted = 0, date(1899, 12, 30)
    serial = (day - counted).days
    assert counted + timedelta(days=serial) == day
    word = months[day.month - 1]
    written = (f"{day.day}-{word}", f"{word}-{day.day:02d}", f"{day} 00:00:00", str(serial))
    assert {spreadsheet_date(text) for text in written} == {(day.month, day.day)}


def test_a_date_may_have_been_every_gene_of_its_family() -> None:
    assert names_of_date(3, 1) == ("MARCHF1", "MTARC1")
    assert names_of_date(9, 15) == ("SEPTIN15", "SELENOF")
    assert names_of_date(7, 1) == ()


@pytest.mark.parametrize(
    ("old", "today"),
    [("SEPT2", "SEPTIN2"), ("MARCH1", "MARCHF1"), ("MARC1", "MTARC1"), ("DEC1", "DELEC1")],
)
def test_families_that_were_renamed_for_spreadsheets_are_known(old: str, today: str) -> None:
    assert renamed_family(old) == today
    assert renamed_family(today) is None
