"""Every real file at hand through one ingest; writes `docs/real-files.md`.

    CYTOLAKE_RESOURCES=folder python -m benchmarks.real_files

The folder is the one of the resources: what it holds beside cells (vocabularies, networks, tables
of genes) is given to the ingest, too, and only counted in the page.
"""

import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from cytolake.corpus.store import Corpus
from cytolake.ingest.job import ingest
from cytolake.ingest.sources_toml import plan_of
from cytolake.platform.errors import ResourceError
from cytolake.platform.settings import load_settings

PAGE = Path(__file__).parent.parent / "docs" / "real-files.md"
NO_CELLS = ("geneformer", "musegnn", "reference", "scgpt")
"""Folders of lists and networks."""

_COLUMNS = ("file", "reader", "layer", "cells read", "kept", "genes mapped", "outcome")


def row_of(source: dict[str, Any], folder: Path) -> dict[str, str]:
    """A line of the page."""
    path = Path(unquote(urlparse(source["uri"]).path))
    row = dict.fromkeys(_COLUMNS, "")
    row["file"] = path.relative_to(folder).as_posix()
    if source["status"] != "accepted":
        reason = str(source["reason"]).replace(f"{path}: ", "").replace(f"{folder}/", "")
        said = reason.split(". Give the file", 1)[0].replace("|", "/")
        return {**row, "outcome": f"refused: {said}"}
    receipt = json.loads(source["receipt"])
    genes = receipt["genes"]
    mapped = genes.get("n_mapped", 0) / max(1, genes.get("n_read", 0))
    how = " (panel)" if receipt["panel"] else ""
    return {
        **row,
        "reader": source["reader"],
        "layer": source["layer"],
        "cells read": f"{source['n_read']:,}",
        "kept": f"{source['n_kept']:,}",
        "genes mapped": f"{mapped:.0%} of {genes.get('n_read', 0):,}",
        "outcome": f"landed{how}",
    }


def page(rows: list[dict[str, str]], linked: dict[str, int], seconds: float, n_cells: int) -> str:
    """The page."""
    landed = [row for row in rows if row["outcome"].startswith("landed")]
    shown = [row for row in rows if row["file"].split("/")[0] not in NO_CELLS or row in landed]
    shown.sort(key=lambda row: (not row["outcome"].startswith("landed"), row["file"]))
    twice = "\n".join(f"- {name}: {n:,} cells" for name, n in sorted(linked.items()))
    return f"""# Every real file, and what became of it

One command over a folder of public data, {len(rows)} sources of every format: `cytolake ingest
FOLDER`, {seconds:.0f} s on two cores, {date.today()} (`python -m benchmarks.real_files` writes
this page). Origins, checksums and licences are those of the resource folder. {len(landed)} sources
landed with {n_cells:,} cells, and {len(rows) - len(landed)} were refused one by one, each with its
reason; none stopped another.

| {" | ".join(_COLUMNS)} |
|---|---|---|---:|---:|---:|---|
{chr(10).join(f"| {' | '.join(row[name] for name in _COLUMNS)} |" for row in shown)}

The other {len(rows) - len(shown)} are lists of genes, vocabularies, networks and results: refused,
for they name no genes on either side, hold words where counts should be, or number their genes one
by one.

Cells that an earlier source of the same command has under another list of genes are linked to it
and not primary:

{twice}
"""


def main() -> None:
    """Ingest all, write the page.

    Raises:
        ResourceError: no folder is named.
    """
    settings = load_settings()
    if not settings.resources:
        raise ResourceError("set CYTOLAKE_RESOURCES to the folder with the real files")
    folder = Path(settings.resources[0]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        began = time.monotonic()
        report = ingest(f"{temporary}/lake", plan_of([str(folder)]), settings)
        seconds = time.monotonic() - began
        corpus = Corpus.open(f"{temporary}/lake")
        found = corpus.sql("SELECT * FROM sources").to_pylist()
        problems = corpus.verify(deep=True)
        if problems:
            raise SystemExit("\n".join(problems))
        n_cells = corpus.sql("SELECT count(*) AS n FROM cells").to_pylist()[0]["n"]
    linked = {
        f"{source.source_id} with {other}": n
        for source in report.sources
        for other, n in source.linked.items()
    }
    rows = [row_of(source, folder) for source in found]
    PAGE.write_text(page(rows, linked, seconds, n_cells))
    print(f"{PAGE}: {len(rows)} sources")


if __name__ == "__main__":
    main()
