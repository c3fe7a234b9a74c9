"""The settings of quality control: rules, filters, doublets. Parsed once, then frozen.

Knows no cell: `quality.py`, `filters.py` and `doublets.py` do what is set here. A default never
changes and a new setting's default switches it off, so that a source that is in a corpus keeps
its recipe's hash (`sources_toml.recipe_hash`).
"""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..platform.configuration import Configuration

OFF = "off"
"""What switches a rule off in a TOML, which has no word for nothing."""


class QualityRules(Configuration):
    """The rules' settings; the defaults are Geneformer's.

    A statistic (`method`) is taken of the whole source; a stated threshold stands instead of it.

    Attributes:
        total_counts_sd: how many SD from the mean a cell's total may lie; "off" (None) switches
            the rule off.
        mitochondrial_sd: the same for the mitochondrial fraction.
        min_genes: fewest detected coding or miRNA genes; 0 switches it off.
        mutational_burden: whether cells marked malignant or immortalised are dropped.
        method: `sd` (mean +- n SD) or `mad` (median +- n * 1.4826 * MAD), with the n of its name.
        total_counts_mad: n for `mad`; 3 is scater's (McCarthy et al. 2017,
            doi:10.1093/bioinformatics/btw777, `isOutlier`).
        mitochondrial_mad: the same for the mitochondrial fraction.
        total_counts_scale: `log1p` takes the statistic of ln(1 + total), as the field does with
            `mad`, for totals have a long tail; the frozen bounds are counts either way.
        min_counts: least total of a cell (the name is that of scanpy's `filter_cells`).
        max_counts: greatest total of a cell.
        min_genes_detected: fewest detected genes of any kind (`min_genes` in `filter_cells`).
        max_genes_detected: most detected genes of any kind.
        max_mito_fraction: greatest mitochondrial fraction, 0 to 1.
    """

    total_counts_sd: float | None = Field(default=3.0, gt=0, allow_inf_nan=False)
    mitochondrial_sd: float | None = Field(default=3.0, gt=0, allow_inf_nan=False)
    min_genes: int = 7
    mutational_burden: bool = True
    method: Literal["sd", "mad"] = "sd"
    total_counts_mad: float | None = Field(default=3.0, gt=0, allow_inf_nan=False)
    mitochondrial_mad: float | None = Field(default=3.0, gt=0, allow_inf_nan=False)
    total_counts_scale: Literal["counts", "log1p"] = "counts"
    min_counts: int | None = Field(default=None, ge=0)
    max_counts: int | None = Field(default=None, ge=0)
    min_genes_detected: int | None = Field(default=None, ge=0)
    max_genes_detected: int | None = Field(default=None, ge=0)
    max_mito_fraction: float | None = Field(default=None, ge=0, le=1)

    @field_validator(
        "total_counts_sd", "mitochondrial_sd", "total_counts_mad", "mitochondrial_mad",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _switched_off(cls, given: Any) -> Any:
        if isinstance(given, bool):  # else false would be 0 SD, and nearly every cell would go
            raise ValueError(f'expected a number, or "{OFF}" to switch the rule off')
        return None if given == OFF else given

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        other = "mad" if self.method == "sd" else "sd"
        for rule, stated in (
            ("total_counts", ("min_counts", "max_counts")),
            ("mitochondrial", ("max_mito_fraction",)),
        ):
            self._refuse_changed(f"{rule}_{other}", f'has no effect with method = "{self.method}"')
            for name in stated:
                if getattr(self, name) is not None:
                    self._refuse_changed(
                        f"{rule}_{self.method}", f"has no effect: {name} stands instead of it"
                    )
        if self.total_counts_scale != "counts" and self.total_counts_n is None:
            raise ValueError("total_counts_scale has no effect: the rule takes no statistic")
        for least, most in (
            ("min_counts", "max_counts"),
            ("min_genes_detected", "max_genes_detected"),
        ):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} = {low} is above {most} = {high}: no cell would be kept")
        return self

    def _refuse_changed(self, name: str, why: str) -> None:
        if getattr(self, name) != type(self).model_fields[name].default:
            raise ValueError(f"{name} = {getattr(self, name)!r} {why}; leave one out")

    @property
    def total_counts_n(self) -> float | None:
        """How far a total may lie from the middle; None where no statistic is taken."""
        if self.min_counts is not None or self.max_counts is not None:
            return None
        return self.total_counts_sd if self.method == "sd" else self.total_counts_mad

    @property
    def mitochondrial_n(self) -> float | None:
        """How far a mitochondrial fraction may lie from the middle; None: no statistic."""
        if self.max_mito_fraction is not None:
            return None
        return self.mitochondrial_sd if self.method == "sd" else self.mitochondrial_mad


def rules_of_samples(given: QualityRules, *, burden_declared: bool = False) -> QualityRules:
    """The rules of bulk samples: those that only cells bear out are off, unless they are set.

    A sample's total tells how deep it was sequenced, its mitochondrial share is the tissue's, and
    a tumour is what one came for. `min_genes` stays.

    Args:
        given: the settings as they were written; what was not written is known by its absence.
        burden_declared: whether the source says which samples are malignant, which asks for it.
    """
    said = given.model_fields_set
    off: dict[str, Any] = {}
    statistic = {"method"}
    for rule, others in (
        ("total_counts", {"total_counts_scale", "min_counts", "max_counts"}),
        ("mitochondrial", {"max_mito_fraction"}),
    ):
        if not said & (statistic | others | {f"{rule}_sd", f"{rule}_mad"}):
            off[f"{rule}_sd"] = None
    if "mutational_burden" not in said and not burden_declared:
        off["mutational_burden"] = False
    return QualityRules.model_validate({**given.model_dump(exclude_unset=True), **off})


class CellFilters(Configuration):
    """Which cells are read at all, by the source's own columns, before any statistic is taken.

    All conditions must hold. A value that is missing holds no condition of `keep`, `min`, `max`.

    Attributes:
        keep: column -> values of which a cell must have one.
        drop: column -> values that no cell may have.
        min: column of numbers -> the least value.
        max: column of numbers -> the greatest value.
    """

    keep: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    drop: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    min: dict[str, float] = Field(default_factory=dict[str, float])
    max: dict[str, float] = Field(default_factory=dict[str, float])

    @field_validator("keep", "drop", mode="before")
    @classmethod
    def _as_words(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        words = {column: _words(values) for column, values in given.items()}
        for column, values in words.items():
            if not values:
                raise ValueError(f"{column} has no value: give at least one, or leave it out")
        return words

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        for name in ("min", "max"):
            for column, bound in getattr(self, name).items():
                if not math.isfinite(bound):
                    raise ValueError(f"{name}.{column} = {bound}: expected a finite number")
        for column in self.min.keys() & self.max.keys():
            if self.min[column] > self.max[column]:
                raise ValueError(
                    f"min.{column} = {self.min[column]:g} is above max.{column} = "
                    f"{self.max[column]:g}: no cell would be kept"
                )
        return self

    @property
    def columns(self) -> list[str]:
        """The columns of the source that are looked at."""
        return list(dict.fromkeys([*self.keep, *self.drop, *self.min, *self.max]))


class DoubletRules(Configuration):
    """Scrublet (Wolock et al. 2019, doi:10.1016/j.cels.2018.11.005), through scanpy.

    Its price: it holds a sample at once, 0.25 MB a cell, and scores some 300 cells a second (both
    measured on 2,700 PBMC). So it is off unless a source has a table `[source.doublets]`.

    Attributes:
        batch: the source's column that names each cell's sample (a lane, a library): doublets are
            of one sample. The whole source is one sample where None.
        expected_rate: the share of doublets expected.
        threshold: score above which a cell is a doublet; found between the two modes of the
            simulated doublets' scores where None, sample by sample.
        seed: of the simulated doublets.
        drop: whether doublets are dropped; their scores are kept either way.
        most_cells: a larger sample is not scored, and the receipt says so.
    """

    batch: str | None = None
    expected_rate: float = Field(default=0.05, gt=0, lt=1)
    threshold: float | None = Field(default=None, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    drop: bool = True
    most_cells: int = Field(default=15_000, ge=100)


def _words(values: Any) -> Any:
    """Values of a TOML as the words that a column of text would hold."""
    listed = values if isinstance(values, list | tuple) else [values]
    return tuple(_word(value) for value in listed)


def _word(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2.0**53:
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value
