"""The page stands alone, escapes what it is given, and is the same twice."""

import re
from pathlib import Path

import pyarrow as pa
from cytolake.evaluate.report import (
    MAX_ROWS,
    Plot,
    Prose,
    ScoreList,
    Section,
    Table,
    render_report,
    write_report,
)
from cytolake.evaluate.scores import Score
from matplotlib.figure import Figure

HOSTILE = "<script>alert('x')</script> & \"y\""


def a_figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [1, 0])
    return figure


def a_score(model: str, value: float, low: float, high: float) -> Score:
    return Score(
        name=HOSTILE,
        model=model,
        value=value,
        low=low,
        high=high,
        unit="donors",
        n=5,
        method=HOSTILE,
    )


def a_page(rows: int = 3) -> str:
    table = pa.table({HOSTILE: [HOSTILE] * rows, "n": range(rows), "z": [1e-9] * rows})
    scores = (a_score("ours", 0.5, 0.4, 0.6), a_score("theirs", 0.7, float("nan"), float("nan")))
    parts = (
        Prose(text=HOSTILE, tone="caution"),
        Table(rows=table, caption=HOSTILE),
        Plot(figure=a_figure(), caption=HOSTILE),
        Plot(figure=a_figure(), raster=True),
        ScoreList(scores=scores, caption=HOSTILE),
    )
    return render_report(
        title=HOSTILE, lead=HOSTILE, footer=HOSTILE, sections=[Section(title=HOSTILE, parts=parts)]
    )


def test_everything_that_is_given_is_escaped():
    page = a_page()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10


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


def test_small_numbers_are_not_rounded_to_nothing():
    assert "1.00e-09" in a_page()


def test_scores_read_with_interval_and_without():
    page = a_page()
    assert "0.500 [0.400, 0.600], 5 donors" in page
    assert "0.700 (no interval: 5 donors)" in page
    assert page.count('class="interval"') == 1


def test_the_page_is_written_whole(tmp_path: Path):
    path = write_report(tmp_path / "report.html", title="A page", sections=[])
    assert path.read_text().endswith("</html>\n")
