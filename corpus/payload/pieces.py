"""Ranges of a chunked array, cut at its chunks. Knows no file and no cell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Ranges of an array cut at its chunks, ascending. All: shape (n_pieces,), int64.

    Attributes:
        chunk: the chunk that a piece lies in.
        first: its first element in that chunk.
        length: how many elements it has.
        place: where it is to go.
    """

    chunk: NDArray[np.int64]
    first: NDArray[np.int64]
    length: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        places: NDArray[np.int64],
        chunk_length: int,
    ) -> "Pieces":
        """Cut ranges, none of them empty, at the borders of chunks.

        Args:
            starts: first element of each range, ascending; ranges do not overlap.
            stops: one past the last.
            places: where each is to go.
            chunk_length: elements of a chunk.
        """
        first_chunk = starts // chunk_length
        n_chunks = (stops - 1) // chunk_length - first_chunk + 1
        of = np.repeat(np.arange(len(starts)), n_chunks)
        nth = np.arange(len(of)) - np.repeat(np.cumsum(n_chunks) - n_chunks, n_chunks)
        chunk = first_chunk[of] + nth
        begin = np.maximum(starts[of], chunk * chunk_length)
        end = np.minimum(stops[of], (chunk + 1) * chunk_length)
        return cls(
            chunk=chunk,
            first=begin - chunk * chunk_length,
            length=end - begin,
            place=places[of] + begin - starts[of],
        )

    def cut(self, n_chunks: int) -> "list[Pieces]":
        """The same pieces, at most so many chunks of them together."""
        borders = np.flatnonzero(np.diff(self.chunk, prepend=-1))[::n_chunks]
        stops = [*borders[1:].tolist(), len(self.chunk)]
        return [
            Pieces(
                chunk=self.chunk[start:stop],
                first=self.first[start:stop],
                length=self.length[start:stop],
                place=self.place[start:stop],
            )
            for start, stop in zip(borders.tolist(), stops, strict=True)
        ]
