"""The pages say what the code does: where they repeat a table of it, they repeat all of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from airflow_provider_milvus_backup.core.capabilities import SUPPORTED, TABLE, Capability, first_release, parse_version
from airflow_provider_milvus_backup.core.settings import GIB, Settings
from tests.contract.profiles import PROFILES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_milvus_backup"
SERVERS = (ROOT / "docs" / "servers.md").read_text()
README = (ROOT / "README.md").read_text()


def row(capability: Capability) -> str:
    """Return how docs/servers.md shows a capability; copy it there when it has changed."""
    since = TABLE[capability]
    gone = ".".join(map(str, since.until)) if since.until else ""
    probe = f"`{since.probe}`" if re.fullmatch(r"[\w/]+", since.probe) else since.probe or "the release"
    return f"| {capability.value} | {first_release(capability)} | {gone} | {probe} |".replace("|  |", "| |")


@pytest.mark.parametrize("capability", Capability, ids=lambda capability: capability.name)
def test_every_capability_is_in_the_page_with_its_first_release(capability: Capability) -> None:
    assert row(capability) in SERVERS.splitlines()


def test_the_page_shows_no_capability_that_the_table_has_not() -> None:
    lines = SERVERS.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| capability")) + 2
    shown = lines[start : lines.index("", start)]
    assert shown == [row(capability) for capability in TABLE]


def test_the_page_names_the_oldest_release_and_the_versions_that_are_tested() -> None:
    oldest = ".".join(map(str, SUPPORTED))
    assert f"Supported are Milvus {oldest} to 3.0." in SERVERS
    assert f"Older than {oldest} is refused." in SERVERS
    *most, last = PROFILES
    assert f"{', '.join(most)} and {last}" in SERVERS.replace("\n", " ")


VERSIONS = [
    (said, taken)
    for line in SERVERS.partition("| what Milvus says |")[2].partition("\n\n")[0].splitlines()[2:]
    for said, taken in [[cell.strip() for cell in line.strip("|").split("|")]]
]


@pytest.mark.parametrize(("said", "taken"), VERSIONS)
def test_versions_are_read_as_the_page_says(said: str, taken: str) -> None:
    releases = [parse_version(text.replace("…", "Vendor 1.0")) for text in re.findall(r"`([^`]+)`", said)]
    assert releases
    for release, text in zip(releases, taken.split(", ") * len(releases), strict=False):
        if text == "the newest of all":
            assert release > (90, 0, 0)
        elif text.startswith("the newest of line "):
            major, minor = map(int, text.removeprefix("the newest of line ").split("."))
            assert release[:2] == (major, minor)
            assert release[2] > 1000
        else:
            assert release == tuple(map(int, text.split(".")))


def test_the_page_names_the_bytes_of_a_job() -> None:
    (default,) = [field.default for field in Settings.__dataclass_fields__.values() if field.name == "max_job_bytes"]
    assert f"A job also ends at {default // GIB} GiB" in SERVERS


SHOWN = [
    (set(re.findall(r"`(\w+)`", names)), {word.strip() for word in verbs.split(",")})
    for table in README.split("| argument | of |")[1:]
    for line in table.partition("\n\n")[0].splitlines()[2:]
    for _, names, verbs, *_ in [line.split("|")]
]


@pytest.mark.parametrize(
    "module",
    [*(f"operators/{verb}" for verb in ("backup", "restore", "delete", "retention", "verify", "drill", "check")), "sensors/freshness"],
)
def test_the_readme_has_every_argument_of_the_operators(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    (init,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    of = {module.partition("/")[2], "all", *(["sensors"] if module.startswith("sensors/") else [])}
    shown = set[str]().union(*(names for names, verbs in SHOWN if verbs & of))
    assert init.args.kwonlyargs
    assert [one.arg for one in init.args.kwonlyargs if one.arg not in shown] == []


def test_the_readme_has_every_field_of_the_connection_that_is_about_milvus() -> None:
    from airflow_provider_milvus_backup.get_provider_info import EXTRA_FIELDS

    assert [name for name, *_ in EXTRA_FIELDS if f"`{name}`" not in README] == []


def test_contributors_are_told_where_every_module_is() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    modules = sorted(path.name for path in (PACKAGE / "core").glob("*.py") if path.name != "__init__.py")
    assert modules
    assert [name for name in modules if not re.search(rf"(?<!\S){re.escape(name)}(?!\S)", page)] == []
