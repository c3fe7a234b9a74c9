"""The page stands alone, escapes what it is given, and is the same twice."""

import re
from pathlib import Path

import pyarrow as pa
from cytolake.platform.page import (
    MAX_ROWS,
    Beside,
    Folded,
    Part,
    Plot,
    Prose,
    Section,
    Table,
    render_report,
    write_report,
)
from matplotlib.figure import Figure

HOSTILE = "<script>alert('x')</script> & \"y\""


def a_figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [1, 0])
    return figure


def a_page(rows: int = 3, *, broad: bool = False) -> str:
    table = pa.table({HOSTILE: [HOSTILE] * rows, "n": range(rows), "z": [1e-9] * rows})
    parts: tuple[Part, ...] = (
        Prose(text=HOSTILE, tone="caution"),
        Beside(parts=(Table(rows=table, caption=HOSTILE), Prose(text=HOSTILE))),
        Folded(title=HOSTILE, parts=(Prose(text=HOSTILE),)),
        Plot(figure=a_figure(), caption=HOSTILE, alt=HOSTILE),
        Plot(figure=a_figure(), raster=True),
    )
    sections = [Section(title=HOSTILE, parts=parts), Section(title="other", parts=())]
    return render_report(
        title=HOSTILE, lead=HOSTILE, footer=HOSTILE, sections=sections, broad=broad
    )


def test_everything_that_is_given_is_escaped():
    page = a_page()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 15


def test_the_page_refers_to_nothing_outside_itself():
    references = re.findall(r"(?:src|href)=\"([^\"]*)\"", a_page())
    assert references
    assert all(link.startswith(("#part-", "data:image/")) for link in references)
    assert "@import" not in a_page()
    assert "url(" not in a_page()


def test_the_same_sections_give_the_same_bytes():
    assert a_page() == a_page()


def test_a_long_table_is_cut_and_the_page_says_so():
    page = a_page(rows=MAX_ROWS + 5)
    assert f"the first {MAX_ROWS} of {MAX_ROWS + 5} rows" in page
    assert page.count("<tr><td>") == MAX_ROWS


def test_a_table_may_ask_for_all_its_rows():
    rows = pa.table({"n": range(MAX_ROWS + 5)})
    markup = Table(rows=rows, most_rows=MAX_ROWS + 5).to_html()
    assert markup.count("<tr><td") == MAX_ROWS + 5
    assert "the first" not in markup


def test_small_numbers_are_not_rounded_to_nothing():
    assert "1.00e-09" in a_page()


def test_a_table_leads_to_a_section_by_its_anchor_and_only_from_the_first_column():
    rows = pa.table({"source": ["a", HOSTILE], "other": ["a", "b"]})
    table = Table(rows=rows, links={"a": "source-1", HOSTILE: "source-2"})
    section = Section(title="a", parts=(table,), anchor="source-1")
    page = render_report(title="t", sections=[section])
    assert '<section id="source-1">' in page
    assert page.count('<a href="#source-1">a</a>') == 2  # contents and table
    assert page.count('<a href="#source-2">&lt;script&gt;') == 1


def test_a_drawn_plot_no_longer_needs_its_figure():
    figure = a_figure()
    picture = Plot(figure=figure, alt="a falling line", caption="c").drawn()
    before = picture.to_html()
    figure.clear()
    assert picture.to_html() == before
    assert 'alt="a falling line"' in before
    assert "<figcaption>c</figcaption>" in before


def test_a_fold_is_closed_unless_asked_otherwise():
    parts = (Prose(text="inside"),)
    assert (
        "<details><summary>more</summary><p>inside" in Folded(title="more", parts=parts).to_html()
    )
    assert "<details open>" in Folded(title="more", parts=parts, is_open=True).to_html()


def test_a_broad_page_holds_the_same_as_a_narrow_one():
    narrow, broad = a_page(), a_page(broad=True)
    assert narrow.replace('<body class="narrow">', '<body class="broad">') == broad


def test_the_page_is_written_whole(tmp_path: Path):
    path = write_report(tmp_path / "report.html", title="A page", sections=[])
    assert path.read_text().endswith("</html>\n")
