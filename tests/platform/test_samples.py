"""Samples: MLflow's own names, for the page that shows them; nothing where it is turned off."""

import threading
from collections.abc import Mapping

import pytest
from cytolake.platform.samples import Sampler

NAMES = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/disk_usage_percentage",
    "system/network_receive_megabytes",
}


@pytest.mark.slow
@pytest.mark.parametrize("node", ["", "n1"])
def test_a_machine_is_measured_under_mlflows_names(
    monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    samples, twice = list[Mapping[str, float]](), threading.Event()

    def listen(sample: Mapping[str, float]) -> None:
        samples.append(sample)
        if len(samples) == 2:
            twice.set()
            raise OSError("a full disk ends neither the training nor the samples")

    sampler = Sampler(listen, node)
    sampler.start()
    assert twice.wait(60)
    sampler.close()
    first, second = samples[:2]
    place = f"system/{node}/" if node else "system/"
    assert {name.replace("system/", place) for name in NAMES} <= set(first)
    assert first[f"{place}system_memory_usage_megabytes"] > 0
    assert first["time"] < second["time"]


def test_it_is_turned_off_as_mlflows_own_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    before = threading.active_count()
    Sampler(lambda sample: None).start()
    assert threading.active_count() == before
