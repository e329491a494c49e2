from __future__ import annotations

import inspect

import pytest

from esms_source import exceptions
from esms_source.exceptions import (
    ApiError,
    ConfigError,
    EsmsError,
    PipelineBusyError,
    RateLimitedError,
    RefIdTableError,
)

CLASSES = [
    thing
    for _, thing in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(thing, BaseException)
]


def drawn_parents() -> dict[str, str]:
    """Read child and parent out of the tree that the docstring draws."""
    doc = inspect.getdoc(exceptions) or ""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in doc.splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if not name.endswith("Error"):
            continue
        indent = len(line) - len(line.lstrip("│├└─ "))
        while path and path[-1][0] >= indent:
            path.pop()
        if path:
            parents[name] = path[-1][1]
        path.append((indent, name))
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    """A reader of the docstring sees every class where it belongs."""
    actual = {
        cls.__name__: base.__name__
        for cls in CLASSES
        for base in cls.__bases__
        if issubclass(base, EsmsError)
    }
    assert drawn_parents() == actual
    assert len(actual) == len(CLASSES) - 1


def test_every_error_is_an_esms_error():
    """One except clause catches all of them."""
    assert all(issubclass(cls, EsmsError) for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_says_what_the_command_line_ends_with(cls):
    """Exit codes are those of the contract, section 4."""
    assert cls.exit_code in (1, 2, 75)


def test_exit_codes_follow_the_contract():
    """Settings and tables are 2, a held pipeline is 75, the rest is 1."""
    assert ConfigError.exit_code == RefIdTableError.exit_code == 2
    assert PipelineBusyError.exit_code == 75
    assert ApiError.exit_code == 1


def test_a_config_error_is_a_value_error_too():
    """Whoever expects Python's own error of a bad value gets it."""
    assert issubclass(ConfigError, ValueError)


def test_api_errors_carry_what_the_answer_said():
    """Code, status and wait are attributes, so that nobody reads the text."""
    error = RateLimitedError("slow down", retry_after=7.0, code=160, http_status=200)
    assert (error.code, error.http_status, error.retry_after) == (160, 200, 7.0)
    assert str(error) == "slow down"
