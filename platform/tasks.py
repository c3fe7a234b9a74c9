"""Small tasks carried out by Ray's workers through Ray Data, answers as they come. Knows no job.

Tasks and answers are rows of text: paths and statistics go through Ray's blocks, never matrices.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from ray.data import ReadTask
    from ray.data.block import Block

Row = dict[str, str]

_WARMED_UP = 16
"""At most so many workers are made ready before there is work for them."""


def warm_up(get_ready: Callable[[str], None], given: str) -> None:
    """Let workers load what their first task will need, while this process goes on.

    Args:
        get_ready: loads it; a function of a module that the workers can import.
        given: what it is called with.
    """
    import ray

    def warm() -> None:
        import_module("ray.data")
        get_ready(given)

    warming = ray.remote(num_cpus=1)(warm)
    for _ in range(min(int(ray.cluster_resources().get("CPU", 1)), _WARMED_UP)):
        warming.remote()


def in_parallel(carry_out: Callable[[Row], Row], rows: Sequence[Row]) -> Iterator[Row]:
    """Carry tasks out, each as a Ray task of its own, on a Ray that is open.

    Args:
        carry_out: does one task; a function of a module that the workers can import.
        rows: the tasks.

    Yields:
        The answers, in any order.
    """
    if not rows:
        return
    import ray.data

    _be_quick_and_quiet()
    data = ray.data.read_datasource(_datasource(carry_out, rows), override_num_blocks=len(rows))
    yield from data.iter_rows()


def read_task(
    read: "Callable[[], Iterable[Block]]",
    *,
    n_rows: int,
    n_bytes: int,
    row_limit: int | None = None,
) -> "ReadTask":
    """What Ray Data is told of blocks that are read when their turn comes.

    Args:
        read: gives the blocks.
        n_rows: of all of them.
        n_bytes: in memory, about.
        row_limit: as Ray Data gave it to `get_read_tasks`.
    """
    from ray.data import ReadTask
    from ray.data.block import BlockMetadata

    told = BlockMetadata(num_rows=n_rows, size_bytes=n_bytes, input_files=None, exec_stats=None)
    return ReadTask(read, told, per_task_row_limit=row_limit)


def _be_quick_and_quiet() -> None:
    """Let Ray Data give small tasks out at once, and say nothing."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after the import, which resets it
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Else the second task waits for the first one's end, to see how much room an answer takes.
    context.op_resource_reservation_enabled = False


def _datasource(carry_out: Callable[[Row], Row], rows: Sequence[Row]) -> Any:
    """Tasks as a Datasource: reading a block of it carries a task out and gives its answer.

    The class is made here, where Ray is imported: a call that has nothing to do has no need of it.
    """
    from ray.data import Datasource, ReadTask

    def task_of(row: Row) -> ReadTask:
        def read() -> list[pa.Table]:
            return [pa.table({name: [value] for name, value in carry_out(row).items()})]

        return read_task(read, n_rows=1, n_bytes=_size(row))

    class Tasks(Datasource):
        def estimate_inmemory_data_size(self) -> int:
            return sum(map(_size, rows))

        def get_read_tasks(
            self,
            parallelism: int,
            per_task_row_limit: int | None = None,
            data_context: Any = None,
        ) -> list[ReadTask]:
            return [task_of(row) for row in rows]

    return Tasks()


def _size(row: Row) -> int:
    return sum(map(len, row.values()))
