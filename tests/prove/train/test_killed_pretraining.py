"""kill -9 in the middle of a pretraining on two workers: the same command goes on, bit for bit.

Once the driver alone is killed, once everything at once: driver, Ray's servers and workers, as
when a machine loses its power.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1200)]

Command = Callable[..., tuple[int, str]]
SETTINGS = ["training.steps=12", "checkpoints.every_steps=3", "training.log_seconds=0"]


def steps_of(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*/checkpoint.json"))


def pretrain(command: Command, lake: Path, home: Path, **kill: object) -> tuple[int, str]:
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    more = {"CYTOLAKE_HOME": str(home)}
    return command("pretrain", "geneformer-tiny", "--corpus", lake, *words, more=more, **kill)


def test_what_is_killed_is_gone_on_from_the_last_checkpoint(
    command: Command, pbmc_sources: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    lake = tmp_path / "lake"
    status, said = command("ingest", pbmc_sources, "--corpus", lake)
    assert status == 0, said

    whole = tmp_path / "whole"
    status, said = pretrain(command, lake, whole)
    assert status == 0, said

    for killed in ("driver", "everything"):
        cut = tmp_path / killed
        run = cut / "runs" / "geneformer-tiny"
        status, _ = pretrain(
            command,
            lake,
            cut,
            when=lambda run=run: len(steps_of(run)) >= 1,
            all_of_it=killed == "everything",
        )
        assert status == -9
        kept = [path.parent.name for path in steps_of(run)]
        assert kept and not (kept[-1].endswith("12"))

        status, said = pretrain(command, lake, cut)
        assert status == 0, said
        records = [json.loads(path.read_text()) for path in run.glob("record-*.json")]
        assert any(record.get("resumed_at_step", 0) > 0 for record in records)

        last = [steps_of(home / "runs" / "geneformer-tiny")[-1].parent for home in (whole, cut)]
        assert [re.sub(r"\D", "", path.name).lstrip("0") for path in last] == ["12", "12"]
        for file in ("model.safetensors", "training.safetensors"):
            expected, found = load_file(last[0] / file), load_file(last[1] / file)
            assert expected.keys() == found.keys()
            for name, values in expected.items():
                assert values.tobytes() == found[name].tobytes(), f"{killed}: {file}: {name}"

        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, 13))
        client = MlflowClient(tracking_uri=f"sqlite:///{cut}/mlflow.db")
        begun = json.loads((run / "run.json").read_text())
        history = client.get_metric_history(begun["run_id"], "loss")
        assert sorted(point.step for point in history) == list(range(1, 13))
        assert client.get_run(begun["run_id"]).info.status == "FINISHED"
