from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from esms_source.config import SettingArguments, Settings, resolve_settings
from esms_source.config.ref_id_table import RefIdTable
from esms_source.exceptions import ConfigError

BAD = [
    ("requests_per_second", 0),
    ("requests_per_second", -1),
    ("requests_per_second", float("nan")),
    ("requests_per_second", float("inf")),
    ("batch_size", 0),
    ("batch_size", 201),
    ("max_in_flight", 0),
    ("max_in_flight", -3),
    ("connect_timeout", 0),
    ("connect_timeout", -1),
    ("connect_timeout", float("inf")),
    ("read_timeout", 0),
    ("read_timeout", float("nan")),
    ("max_attempts", 0),
    ("repoll_after", -1),
    ("repoll_after", float("inf")),
    ("repoll_backoff", 0.5),
    ("repoll_backoff", float("inf")),
    ("repoll_max", -1),
    ("repoll_max", float("nan")),
    ("give_up_after", -1),
    ("give_up_after", float("inf")),
    ("slice_ref_ids", 0),
    ("slice_ref_ids", -5),
    ("compare_all_after", -1),
    ("compare_all_after", float("nan")),
    ("planning_memory", 0),
    ("planning_memory", 63),
    ("planning_memory", "much"),
    ("planning_memory", "192 GB"),
    ("planning_memory", "-192 MB"),
    ("planning_memory", ""),
    ("base_url", ""),
    ("base_url", "status-sms.esms.vn"),
    ("base_url", "ftp://status-sms.esms.vn"),
    ("base_url", "http://status-sms.esms.vn"),
    ("base_url", "http://127.0.0.1.evil.example"),
    ("base_url", "http://localhost@evil.example"),
    ("base_url", "https://me:pass@status-sms.esms.vn"),
    ("base_url", "https://status-sms.esms.vn?a=b"),
    ("base_url", "https://status-sms.esms.vn#a"),
    ("base_url", "https://status-sms.esms.vn:port"),
    ("base_url", "https://[::1"),
    ("rate_limit_store", "redis://host"),
    ("rate_limit_store", ""),
    ("rate_limit_store", "sqlite:///"),
    ("phone_number", "mask"),
    ("phone_number", "PLAIN"),
    ("timezone", "Asia/Saigon City"),
    ("timezone", ""),
    ("timezone", "../../etc/passwd"),
]

BAD_OF_THE_TABLE = [
    ("lag", -1),
    ("lag", float("nan")),
    ("lag", float("inf")),
    ("sent_at_timezone", "Mars/Olympus"),
    ("sent_at_timezone", ""),
]

WRONG_TYPES = [
    ("batch_size", "many"),
    ("read_timeout", "soon"),
    ("keep_callback_query", "perhaps"),
    ("max_in_flight", "1.5"),
]


def refusal(**settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_settings(**settings)
    return str(caught.value)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_in_one_line_that_names_the_setting(name, value):
    """Section 3: in one line that names the setting and the remedy."""
    text = refusal(**{name: value})
    assert text.startswith(f"{name}: ")
    assert f"SOURCES__ESMS__{name.upper()}" in text
    assert "\n" not in text


@pytest.mark.parametrize(("name", "value"), BAD_OF_THE_TABLE)
def test_a_bad_value_of_the_table_is_refused_the_same_way(name, value):
    """The settings of the warehouse table are checked as early."""
    text = refusal(ref_ids={name: value})
    assert text.startswith(f"ref_ids.{name}: ")
    assert f"SOURCES__ESMS__REF_IDS__{name.upper()}" in text
    assert "\n" not in text


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_value_of_the_wrong_type_names_the_setting(name, value, monkeypatch):
    """What dlt can't read from the environment is told as any bad value is."""
    monkeypatch.setenv(f"SOURCES__ESMS__{name.upper()}", value)
    text = refusal()
    assert text.startswith(f"{name}: ")
    assert "\n" not in text


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_an_argument_of_the_wrong_type_names_the_setting(name, value):
    """Arguments are read as the environment is."""
    assert refusal(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("size", [256, "256", "256 MB", "256MB", " 256 mb "], ids=repr)
def test_planning_memory_is_a_number_of_mb(size, monkeypatch):
    """As a number or with its unit, given or set."""
    assert resolve_settings(planning_memory=size).planning_memory_mb == 256
    monkeypatch.setenv("SOURCES__ESMS__PLANNING_MEMORY", str(size))
    assert resolve_settings().planning_memory_mb == 256
    monkeypatch.delenv("SOURCES__ESMS__PLANNING_MEMORY")
    assert resolve_settings().planning_memory_mb == 192


@pytest.mark.parametrize(
    "name",
    [1, "", " ", "is_new", "esms_oa_id", "_dlt_load_id", "chosen"],
)
def test_a_column_that_cant_be_carried_is_refused(name):
    """No name of the ledger's, of planning's or of dlt's; and nothing but a name."""
    assert refusal(ref_ids={"carry": [name]}).startswith("ref_ids.carry: ")


def test_table_and_query_together_are_refused():
    """One of them names the RefIds."""
    text = refusal(ref_ids={"table": "sent", "query": "SELECT 1"})
    assert text.startswith("ref_ids.table: ")
    assert "query" in text


def test_hashing_phones_needs_a_key():
    """Without a key of its own a hash of a phone can be reversed."""
    assert refusal(phone_number="hash").startswith("phone_hash_key: ")
    resolve_settings(phone_number="hash", phone_hash_key="pepper")


def test_a_blank_hash_key_is_none():
    """Blanks would be a key that everybody knows."""
    text = refusal(phone_number="hash", phone_hash_key="  ")
    assert text.startswith("phone_hash_key: ")


def test_an_unknown_setting_is_refused():
    """A typing error is told, not ignored."""
    assert refusal(read_time_out=3).startswith("read_time_out: ")


def test_an_unknown_setting_of_the_table_is_refused():
    """The same for the warehouse table."""
    assert "ref_id_colum" in refusal(ref_ids={"ref_id_colum": "x"})


@pytest.mark.parametrize("missing", ["api_key", "secret_key"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_key_and_secret_are_required_where_the_api_is_asked(missing, value):
    """Planning does without them, asking does not."""
    settings = resolve_settings(
        **({"api_key": "a", "secret_key": "b"} | {missing: value})
    )
    with pytest.raises(ConfigError) as caught:
        settings.require_credentials()
    assert str(caught.value).startswith(f"{missing}: not set")


def test_a_folder_that_is_no_project_is_named(tmp_path, monkeypatch):
    """Who stands in the wrong folder is told which one it is."""
    monkeypatch.setenv("DLT_PROJECT_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"no \.dlt in the folder {tmp_path};"):
        resolve_settings().require_credentials()
    (tmp_path / ".dlt").mkdir()
    with pytest.raises(ConfigError, match="not set; put it into"):
        resolve_settings().require_credentials()


def test_blanks_around_key_and_secret_are_stripped():
    """Secrets that come out of files often end in a line break."""
    settings = resolve_settings(api_key=" a\n", secret_key="b\n")
    assert settings.require_credentials() == ("a", "b")


def test_the_defaults_are_those_of_the_contract():
    """Section 3, to the letter."""
    settings = resolve_settings()
    table = settings.ref_ids
    promised = {
        "base_url": "https://status-sms.esms.vn",
        "requests_per_second": 20,
        "rate_limit_store": "memory",
        "batch_size": 200,
        "max_in_flight": 64,
        "connect_timeout": 5,
        "read_timeout": 30,
        "max_attempts": 5,
        "repoll_after": 300,
        "repoll_backoff": 2.0,
        "repoll_max": 21_600,
        "give_up_after": 259_200,
        "slice_ref_ids": 240_000,
        "phone_number": "plain",
        "timezone": "Asia/Ho_Chi_Minh",
        "keep_callback_query": False,
        "oa_id": None,
    }
    assert {name: settings[name] for name in promised} == promised
    assert (table.destination, table.ref_id_column) == ("duckdb", "ref_id")
    assert (table.sent_at_timezone, table.carry, table.lag) == ("UTC", [], 86_400)
    assert table.oa_id_column is None
    assert table.sent_at_column is None


def test_the_environment_names_settings_as_dlt_does(monkeypatch):
    """The names in section 3 work."""
    monkeypatch.setenv("SOURCES__ESMS__API_KEY", "from-env")
    monkeypatch.setenv("SOURCES__ESMS__BATCH_SIZE", "50")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CARRY", '["campaign"]')
    settings = resolve_settings()
    assert settings.api_key == "from-env"
    assert settings.batch_size == 50
    assert settings.ref_ids.table == "sent"
    assert settings.ref_ids.carry == ["campaign"]


def test_toml_files_hold_settings(tmp_path: Path):
    """``.dlt/config.toml`` and ``.dlt/secrets.toml`` are read."""
    folder = tmp_path / ".dlt"
    folder.mkdir()
    (folder / "config.toml").write_text(
        "[sources.esms]\nrequests_per_second = 5\n"
        '[sources.esms.ref_ids]\ntable = "sent"\ncarry = ["a", "b"]\n'
    )
    (folder / "secrets.toml").write_text('[sources.esms]\napi_key = "from-toml"\n')
    Container()[PluggableRunContext].reload_providers()
    settings = resolve_settings()
    assert settings.requests_per_second == 5
    assert settings.ref_ids.carry == ["a", "b"]
    assert settings.api_key == "from-toml"


def test_an_argument_beats_the_environment(monkeypatch):
    """Every setting is also a keyword argument."""
    monkeypatch.setenv("SOURCES__ESMS__BATCH_SIZE", "50")
    assert resolve_settings(batch_size=7).batch_size == 7


def test_arguments_of_the_table_leave_its_other_settings_alone(monkeypatch):
    """A mapping overrides the settings that it names."""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__TABLE", "sent")
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__LAG", "60")
    table = resolve_settings(ref_ids={"lag": 5}).ref_ids
    assert (table.table, table.lag) == ("sent", 5)


@pytest.mark.parametrize("value", [None, dlt.config.value, dlt.secrets.value])
def test_a_placeholder_stands_for_as_configured(value, monkeypatch):
    """Dlt users write ``api_key=dlt.secrets.value``."""
    monkeypatch.setenv("SOURCES__ESMS__API_KEY", "from-env")
    assert resolve_settings(api_key=value).api_key == "from-env"


@pytest.mark.parametrize(
    "url",
    [
        "https://status-sms.esms.vn",
        "https://proxy.example/esms",
        "http://127.0.0.1:8080",
        "http://localhost:1",
        "http://[::1]:9",
        "http://127.8.9.10:80",
    ],
)
def test_https_and_loopback_are_taken(url):
    """Plain http is refused unless the host is loopback."""
    assert resolve_settings(base_url=url).base_url == url


@pytest.mark.parametrize(
    ("given", "kept"), [(" 123 ", "123"), ("  ", None), ("1", "1")]
)
def test_blanks_around_the_default_oa_are_stripped(given, kept):
    """A blank one is none."""
    assert resolve_settings(oa_id=given).oa_id == kept


def test_an_oa_may_be_written_as_a_number():
    """TOML writers leave the quotes out."""
    assert resolve_settings(oa_id=1090257973118325189).oa_id == "1090257973118325189"


def test_an_oa_of_the_environment_stays_text(monkeypatch):
    """The environment has no types: digits stay as they stand."""
    monkeypatch.setenv("SOURCES__ESMS__OA_ID", "0123456789012345678")
    assert resolve_settings().oa_id == "0123456789012345678"


@pytest.mark.parametrize("name", ["batch_size", "phone_number", "timezone"])
def test_no_refusal_shows_a_secret(name, api_key, secret_key):
    """Errors are printed and logged."""
    bad = {"batch_size": 0, "phone_number": "x", "timezone": "x"}[name]
    text = refusal(api_key=api_key, secret_key=secret_key, **{name: bad})
    assert api_key not in text
    assert secret_key not in text


def test_settings_print_without_secrets(api_key, secret_key):
    """A settings object in a trace gives nothing away."""
    settings = resolve_settings(
        api_key=api_key, secret_key=secret_key, phone_hash_key="pepper"
    )
    for text in (repr(settings), str(settings)):
        assert api_key not in text
        assert secret_key not in text
        assert "pepper" not in text


def test_editors_know_every_setting():
    """The keyword arguments are the settings, but for the table of RefIds."""
    settings = set(Settings.get_resolvable_fields()) - {"ref_ids"}
    assert set(SettingArguments.__annotations__) == settings


def test_the_file_of_all_settings_names_each_with_its_default():
    """A setting that is none by default, or secret, stands in a comment."""
    text = Path(__file__).parents[3].joinpath(".dlt/config.toml").read_text()
    _, ours, table = re.split(r"^\[sources\.esms.*\]$", text, flags=re.MULTILINE)
    table = table.partition("\n[")[0]
    assert named_in(table) == defaults_of(RefIdTable) - {("query", "None")}
    secret = {("api_key", "None"), ("secret_key", "None"), ("phone_hash_key", "None")}
    assert named_in(ours) == defaults_of(Settings) - secret - {("ref_ids", "table")}


def named_in(section: str) -> set[tuple[str, str]]:
    """Return the settings of a section, with their values as Python writes them."""
    setting = r"^(# )?(\w+) = (\".*?\"|\S+)(?:$| +#)"
    lines = re.findall(setting, section, re.MULTILINE)
    return {
        (name, "None" if comment else str(json.loads(value)))
        for comment, name, value in lines
    }


def defaults_of(kind: type[Any]) -> set[tuple[str, str]]:
    """Return the settings that a configuration has, with their defaults."""
    values = {name: getattr(kind(), name) for name in kind.get_resolvable_fields()}
    return {
        (name, "table" if name == "ref_ids" else str(value))
        for name, value in values.items()
    }
