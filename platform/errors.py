"""Every error of ours, drawn as a tree. Knows no cell and no gene beyond their names.

The tree:

CytolakeError                  anything cytolake says no to; `str()` is the whole message
├── SettingsError              cytolake.toml or a CYTOLAKE_* variable
├── RecipeError                a recipe or sources.toml: unknown key, wrong type, bad value
├── StorageError               the disk says no: full, read-only, failing, not ours to write
│   └── UnknownOutcomeError    whether a commit took place cannot be told now
├── ResourceError              a named resource is missing, unreachable or has another checksum
├── SourceError                a source file: what, where, what was expected, what to do
│   ├── NotRawCountsError      the matrices hold no raw counts
│   └── NoGenesError           no gene of the source is recognised
├── CorpusError                the corpus
│   ├── NotACorpusError        the URI holds no corpus
│   ├── NewerFormatError       written by a newer cytolake
│   ├── OlderFormatError       written by an older cytolake: it can be lifted
│   ├── WithdrawnError         a snapshot holds cells whose use is no longer allowed
│   ├── DamageError            bytes on disk are not what was committed
│   ├── ConflictError          another writer was first, and redoing cannot help
│   ├── QueryError             a query that is refused or does not run
│   └── NoCellsError           nothing is left to work on
├── VocabularyError            genes, tokens and medians that do not fit each other
├── CheckpointError            a checkpoint is incomplete, damaged or of another kind
├── TrainingError              a training that cannot go on
├── TrackingError              the tracking store cannot be reached, or refuses
└── EvaluationError            a question that this model or these cells cannot answer
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CytolakeError(Exception):
    """Anything cytolake says no to. The message tells name, value, expectation and way out."""


class SettingsError(CytolakeError):
    """A setting in cytolake.toml or the environment cannot be used."""


class RecipeError(CytolakeError):
    """A recipe or a sources.toml has an unknown key, a wrong type or an impossible value."""


class ResourceError(CytolakeError):
    """A named resource is missing, out of reach or has another checksum than expected."""


class StorageError(CytolakeError):
    """The disk says no: it is full, read-only, failing, or the folder is not ours to write."""


class UnknownOutcomeError(StorageError):
    """Whether a commit took place cannot be told now: what it names must stay."""


class SourceError(CytolakeError):
    """A source cannot be read as cells."""


class NotRawCountsError(SourceError):
    """None of a source's matrices holds raw counts."""


class NoGenesError(SourceError):
    """No gene name of a source is recognised."""


class CorpusError(CytolakeError):
    """A corpus cannot do what was asked."""


class NotACorpusError(CorpusError):
    """The URI holds no corpus."""


class NewerFormatError(CorpusError):
    """The corpus, segment or checkpoint was written by a newer cytolake."""


class OlderFormatError(CorpusError):
    """The corpus was written by an older cytolake, and must be lifted to be read."""


class WithdrawnError(CorpusError):
    """A snapshot holds cells that were withdrawn after it was made."""


class DamageError(CorpusError):
    """Bytes on disk are not the bytes that were committed."""


class ConflictError(CorpusError):
    """Another writer committed first and redoing does not help."""


class QueryError(CorpusError):
    """A query is refused by the sandbox, or does not run."""


class NoCellsError(CorpusError):
    """A selection leaves no cell to work on."""


class VocabularyError(CytolakeError):
    """Genes, tokens and medians do not fit each other."""


class CheckpointError(CytolakeError):
    """A checkpoint is incomplete, damaged or of another kind."""


class TrainingError(CytolakeError):
    """A training cannot go on."""


class TrackingError(CytolakeError):
    """The tracking store cannot be reached, or refuses what it is told."""


class EvaluationError(CytolakeError):
    """A question that this model or these cells cannot answer."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say the nearest known name, ready to end a message.

    Args:
        name: what was given.
        known: what would have been understood.

    Returns:
        `"; did you mean 'x'?"`, or an empty string where nothing is near.
    """
    options = list(known)
    lowered = {option.lower(): option for option in options}
    near = get_close_matches(name, options, n=1, cutoff=0.6) or [
        lowered[match] for match in get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    ]
    return f"; did you mean {near[0]!r}?" if near else ""
