from __future__ import annotations

from types import SimpleNamespace

import pytest

from esms_source.exceptions import ConfigError
from esms_source.planning import object_store

SECRET = "hidden"  # noqa: S105  opens nothing


class BotoCoreError(Exception):
    """What botocore raises, of every kind."""


class Store:
    """Stands in for s3fs and botocore.

    Attributes:
        error: What listing, or looking for keys, raises.
        keys: The keys that are found.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.keys: object = SimpleNamespace(
            get_frozen_credentials=lambda: SimpleNamespace(
                access_key="AKIA", secret_key=SECRET, token=None
            )
        )
        self.BotoCoreError = BotoCoreError
        self.listed: list[str] = []

    def S3FileSystem(self, **_: object) -> Store:  # noqa: N802  as s3fs has it
        return self

    def get_session(self) -> Store:
        return self

    def get_credentials(self) -> object:
        if self.error:
            raise self.error
        return self.keys

    def create_client(self, _: str) -> object:
        meta = SimpleNamespace(endpoint_url="http://minio:9000", region_name="here")
        return SimpleNamespace(meta=meta)

    def ls(self, folder: str) -> list[str]:
        self.listed.append(folder)
        if self.error:
            raise self.error
        return []


@pytest.fixture
def fake(monkeypatch):
    """What stands in for s3fs and botocore."""
    made = Store()
    monkeypatch.setattr(object_store, "need", lambda *_: made)
    return made


def test_all_packages_get_the_same_settings(fake):
    """Plain http is allowed where the endpoint says so."""
    store = object_store.ObjectStore()
    delta, iceberg = store.delta_options(), store.iceberg_properties()
    assert delta["aws_access_key_id"] == iceberg["s3.access-key-id"] == "AKIA"
    assert delta["aws_secret_access_key"] == SECRET
    assert iceberg["s3.secret-access-key"] == SECRET
    assert delta["aws_endpoint_url"] == iceberg["s3.endpoint"] == "http://minio:9000"
    assert delta["aws_region"] == iceberg["s3.region"] == "here"
    assert delta["allow_http"] == "true"
    assert not [name for name in {**delta, **iceberg} if "token" in name]


@pytest.mark.parametrize("error", [None, BotoCoreError("The profile can't be found")])
def test_missing_keys_are_told(error, fake):
    """Before anything is read, with what to set."""
    fake.error, fake.keys = error, None
    with pytest.raises(ConfigError, match=r"no AWS credentials.*AWS_PROFILE"):
        object_store.ObjectStore()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "no bucket 'kho'"),
        (FileNotFoundError("kho/a"), "no folder 'kho/a' in S3"),
        (PermissionError("Access Denied"), "refuses to list 'kho/a': Access Denied"),
        (BotoCoreError("no route"), "S3 can't be reached: no route"),
        (OSError("broken"), "S3 can't be reached: broken"),
    ],
)
def test_why_a_place_cant_be_read_is_told(error, said, fake):
    """By listing the folder in front of the first wildcard."""
    store = object_store.ObjectStore()
    fake.error = error
    refusal = store.refusal("FROM 'a.csv', read_csv('s3://kho/a/b*/c.csv') -- s3")
    assert said in str(refusal)
    assert "; " in str(refusal)
    assert fake.listed == ["kho/a"]


def test_what_can_be_listed_is_no_refusal(fake):
    """Then DuckDB's own words are what is told."""
    store = object_store.ObjectStore()
    assert store.refusal("FROM 's3://kho', 's3a://kho/a?/b', 'c.csv'") is None
    assert fake.listed == ["kho", "kho"]
