"""The house's own rules: floors, rooms without a face, the standard library's `platform`."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("platform", "corpus", "ingest", "train", "evaluate")
MAY_IMPORT = {
    "platform": {"platform"},
    "corpus": {"platform", "corpus"},
    "ingest": {"platform", "corpus", "ingest"},
    "train": {"platform", "corpus", "train"},
    "evaluate": {"platform", "corpus", "train", "evaluate"},
}
SHELVES = (
    "payload",
    "log",
    "query",
    "change",
    "upkeep",
    "report",
    "exports",
)  # of corpus, upper ones first
ROOT_FILES = {
    "__init__.py", "__main__.py", "cli.py", "corpus_cli.py", "training_cli.py", "options.py",
    "demo.py", "embedding.py", "exporting.py",
}  # fmt: skip
HEAVY = {"torch", "transformers", "deepspeed", "ray", "mlflow", "scanpy", "sklearn"}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports_of(path: Path) -> list[tuple[ast.stmt, str, bool]]:
    """Every import of a file: the statement, the absolute module name, whether at the top level."""
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    package = ["cytolake", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    found: list[tuple[ast.stmt, str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node, alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.append((node, ".".join([*base, node.module or ""]).strip("."), node in top))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_between_rooms_run_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for node, module, _ in imports_of(path):
        parts = module.split(".")
        if parts[0] == "cytolake":
            assert len(parts) > 1 and parts[1] in MAY_IMPORT[room], f"{path}:{node.lineno} {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_inside_a_room_imports_are_relative(path: Path) -> None:
    for node, module, _ in imports_of(path):
        if isinstance(node, ast.Import) or not getattr(node, "level", 0):
            assert not module.startswith("cytolake"), f"{path}:{node.lineno} {module}"


@pytest.mark.parametrize("room", ["platform", "corpus", "ingest"])
def test_lower_rooms_import_nothing_heavy_at_the_top(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        if path == ROOT / "corpus" / "job.py":  # its classes are Ray's: whoever wants it has Ray
            continue
        for node, module, at_top in imports_of(path):
            if at_top:
                assert module.split(".")[0] not in HEAVY, f"{path}:{node.lineno} {module}"


def test_only_the_session_starts_ray_and_only_jobs_speak_its_data_and_train() -> None:
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if "ray.init(" in path.read_text():
            assert name == "platform/session.py"
        for _, module, _ in imports_of(path):
            if module.startswith(("ray.data", "ray.train")):
                assert path.name == "job.py" or name == "platform/tasks.py", name


def test_only_the_training_loop_knows_deepspeed() -> None:
    knowing = {
        str(path.relative_to(ROOT))
        for path in FILES
        for _, module, _ in imports_of(path)
        if module.split(".")[0] == "deepspeed"
    }
    assert len(knowing) <= 1 and all(name.startswith("train/") for name in knowing)


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_shelf_of_the_corpus_knows_no_shelf_below_it(shelf: str) -> None:
    below = SHELVES[SHELVES.index(shelf) + 1 :]
    files = list((ROOT / "corpus" / shelf).glob("*.py"))
    assert files
    for path in files:
        for node, module, _ in imports_of(path):
            known = module.removeprefix("cytolake.corpus.").split(".")[0]
            assert known not in below, f"{path}:{node.lineno} {module}"


def test_models_encodings_and_objectives_never_import_ray() -> None:
    for shelf in ("models", "encodings", "objectives"):
        for path in (ROOT / "train" / shelf).glob("*.py"):
            assert not any(module.split(".")[0] == "ray" for _, module, _ in imports_of(path))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_face_of_code_but_a_readme(room: str) -> None:
    assert not list((ROOT / room).rglob("__init__.py"))
    assert (ROOT / room / "README.md").is_file()


def test_the_root_holds_only_what_joins_the_rooms() -> None:
    assert {path.name for path in ROOT.glob("*.py")} <= ROOT_FILES


def test_platform_from_the_root_is_the_standard_library() -> None:
    code = "import platform; print(platform.system())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()


def test_every_folder_with_code_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = set(settings["tool"]["setuptools"]["packages"])
    folders = {path.parent.relative_to(ROOT) for path in FILES}
    assert {"cytolake." + ".".join(folder.parts) for folder in folders} <= packaged


def test_no_file_is_longer_than_400_lines() -> None:
    places = [*FILES, *ROOT.glob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert {p.name: n for p in places if (n := len(p.read_text().splitlines())) > 400} == {}


def test_nothing_is_pickled() -> None:
    for path in [*FILES, *ROOT.glob("*.py")]:
        modules = {module.split(".")[0] for _, module, _ in imports_of(path)}
        assert not modules & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}, path
        assert "torch.load(" not in path.read_text(), path
