"""Small tasks carried out by Ray's workers through Ray Data, answers as they come. Knows no job.

Tasks and answers are rows of text: paths and statistics go through Ray's blocks, never matrices.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import pyarrow as pa

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
    from ray.data.block import BlockMetadata

    def task_of(row: Row) -> ReadTask:
        def read() -> list[pa.Table]:
            return [pa.table({name: [value] for name, value in carry_out(row).items()})]

        return ReadTask(
            read,
            BlockMetadata(num_rows=1, size_bytes=_size(row), input_files=None, exec_stats=None),
        )

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
