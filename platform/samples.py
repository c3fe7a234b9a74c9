"""What a machine is doing: processor, memory, disk, network, GPUs. Knows no run and no store.

MLflow's own monitors measure, and its names and switches are kept, so that its page of system
metrics shows them: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns this off,
MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets the seconds between samples.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .session import be_quiet

_INTERVAL_S = 10.0  # MLflow's own
_OFF = ("false", "0")


class Sampler:
    """Tells a listener what this machine is doing, every few seconds, from a thread."""

    def __init__(self, listen: Callable[[Mapping[str, float]], object], node: str = "") -> None:
        """Nothing is measured yet.

        Args:
            listen: told each sample, by names such as `system/cpu_utilization_percentage`.
            node: comes into the names where there are several nodes.
        """
        self._listen = listen
        self._prefix = f"system/{node}/" if node else "system/"
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless the environment says no."""
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in _OFF:
            return
        self._thread = threading.Thread(target=self._run, name="cytolake-samples", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let the thread go; a sample under way is not waited for."""
        self._over.set()

    def _run(self) -> None:
        interval = float(
            os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or str(_INTERVAL_S)
        )
        if self._over.wait(interval):  # a short run imports nothing for this
            return
        monitors = _monitors()
        for monitor in monitors:  # the first look is what later ones are counted from
            monitor.collect_metrics()
            monitor.clear_metrics()
        while not self._over.wait(interval):
            sample: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                sample |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            named = {f"{self._prefix}{name}": float(value) for name, value in sample.items()}
            try:
                self._listen({**named, "time": time.time()})
            except Exception:  # a sample that cannot be kept is no reason to stop a training
                continue


def _monitors() -> list[Any]:
    be_quiet()
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except Exception:  # no NVIDIA GPU, or nvidia-ml-py is not installed: MLflow raises either way
        return monitors
    return monitors
