"""Where settings may stand, and where other programs' names are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from esms_source import esms_source
from esms_source.config import resolve_settings
from esms_source.config.providers import settings_of
from esms_source.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOREIGN: dict[str, object] = {
    "api_key": "foreign",
    "secret_key": "foreign",
    "oa_id": "foreign",
    "base_url": "https://foreign.example",
    "batch_size": 7,
    "timezone": "UTC",
    "table": "foreign",
    "lag": 7,
    "carry": ["foreign"],
    "credentials": "foreign.duckdb",
    "ref_ids": "foreign",
}
"""Names that other programs use, too."""

OURS = "SOURCES__ESMS__"


def everything() -> dict[str, object]:
    """Return all settings, those of the table too."""
    settings = resolve_settings()
    return dict(settings) | {"ref_ids": dict(settings.ref_ids)}


@pytest.fixture
def write_toml(tmp_path: Path) -> Callable[[str, str], None]:
    """Write a file in ``.dlt`` and let dlt read it."""

    def write(name: str, text: str) -> None:
        (tmp_path / ".dlt").mkdir(exist_ok=True)
        (tmp_path / ".dlt" / name).write_text(text)
        Container()[PluggableRunContext].reload_providers()

    return write


@pytest.mark.parametrize(
    "prefix",
    ["", "SOURCES__", "ESMS__", "REF_IDS__", "SOURCES__REF_IDS__", "OTHER__" + OURS],
)
def test_other_programs_variables_are_no_settings(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dlt's fallbacks are shut: a foreign BASE_URL would get the key."""
    before = everything()
    for name, value in FOREIGN.items():
        monkeypatch.setenv(f"{prefix}{name.upper()}", str(value))
    with settings_of("esms"):
        assert everything() == before


@pytest.mark.parametrize("section", ["", "[sources]\n", "[esms]\n", "[ref_ids]\n"])
@pytest.mark.parametrize("file", ["config.toml", "secrets.toml"])
def test_other_sections_of_a_toml_are_no_settings(
    section: str, file: str, write_toml: Callable[[str, str], None]
) -> None:
    """The same for what stands at the top of a file."""
    before = everything()
    lines = [f"{name} = {value!r}" for name, value in FOREIGN.items()]
    write_toml(file, section + "\n".join(lines))
    with settings_of("esms"):
        assert everything() == before


def test_a_setting_beats_what_other_programs_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both may stand in one environment."""
    monkeypatch.setenv("BATCH_SIZE", "7")
    monkeypatch.setenv(f"{OURS}BATCH_SIZE", "50")
    assert resolve_settings().batch_size == 50


@pytest.mark.parametrize("top", ["environment", "toml"])
def test_arguments_of_the_source_are_not_configured(
    top: str,
    monkeypatch: pytest.MonkeyPatch,
    write_toml: Callable[[str, str], None],
    api_key: str,
    secret_key: str,
) -> None:
    """Each of these would be refused if anybody read it."""
    names = ("repoll", "since", "until", "max_ref_ids", "oa_ids", "ref_ids")
    if top == "toml":
        write_toml("config.toml", "\n".join(f'{name} = "x"' for name in names))
    for name in names if top == "environment" else ():
        monkeypatch.setenv(name.upper(), "x")
    source = esms_source(api_key=api_key, secret_key=secret_key)
    assert "callbacks" in source.resources


def test_sections_of_a_pipeline_come_first(
    monkeypatch: pytest.MonkeyPatch, write_toml: Callable[[str, str], None]
) -> None:
    """Several accounts fit into one set-up, and another pipeline sees none of it."""
    monkeypatch.setenv(f"{OURS}API_KEY", "shared")
    monkeypatch.setenv(f"ESMS__{OURS}API_KEY", "own")
    write_toml(
        "config.toml",
        '[esms.sources.esms]\noa_id = "own"\n[esms.sources.esms.ref_ids]\nlag = 5\n'
        '[sources.esms.ref_ids]\nlag = 6\ntable = "shared"\n',
    )
    with settings_of("esms"):
        settings = resolve_settings()
    assert (settings.api_key, settings.oa_id) == ("own", "own")
    assert (settings.ref_ids.lag, settings.ref_ids.table) == (5, "shared")
    with settings_of("other"):
        settings = resolve_settings()
    assert (settings.api_key, settings.oa_id) == ("shared", None)
    assert settings.ref_ids.lag == 6


def test_a_source_takes_the_sections_of_its_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In plain dlt the active pipeline names them."""
    for name in ("API_KEY", "SECRET_KEY"):
        monkeypatch.setenv(f"MINE__{OURS}{name}", "own")
    with pytest.raises(ConfigError):
        esms_source()
    dlt.pipeline("mine", destination="duckdb", dataset_name="zalo")
    esms_source()


def test_a_secret_in_the_wrong_file_is_said(
    write_toml: Callable[[str, str], None],
) -> None:
    """It isn't read from ``config.toml``, and the remedy is named."""
    write_toml("config.toml", '[sources.esms]\napi_key = "k3y"\n')
    with pytest.raises(ConfigError) as caught:
        resolve_settings()
    assert str(caught.value).startswith("api_key: a secret, and it stands in config")
    assert "secrets.toml" in str(caught.value)
    assert "k3y" not in str(caught.value)
