"""Where settings stand: under names of our own, and nowhere else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ValueNotSecretException
from dlt.common.configuration.resolve import inject_section
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlt.common.configuration.specs import BaseConfiguration

SECTIONS: Final = ("sources", "esms")


@contextmanager
def settings_of(pipeline_name: str) -> Iterator[None]:
    """Let a pipeline's own sections come first in a block, as dlt does in a run.

    ``ESMS__SOURCES__ESMS__API_KEY`` is the key of the pipeline ``esms``.
    """
    with inject_section(ConfigSectionContext(pipeline_name=pipeline_name)):
        yield


def find(name: str, hint: Any, *sections: str) -> Any:  # noqa: ANN401
    """Return what the environment or a ``.dlt/*.toml`` says of a setting, or None.

    dlt 1.31 itself goes on without sections: any program's ``BASE_URL`` would be ours.

    Args:
        name: The setting.
        hint: Its type.
        *sections: Where it stands below ``[sources.esms]``.

    Raises:
        ValueNotSecretException: A secret stands where none may stand.
    """
    pipeline_name = Container()[ConfigSectionContext].pipeline_name
    for first in (pipeline_name, None) if pipeline_name else (None,):
        for provider in dlt.config.config_providers:
            path = (*SECTIONS, *sections)
            value, key = provider.get_value(name, hint, first or "", *path)
            if value is None:
                continue
            if is_secret_hint(hint) and not provider.supports_secrets:
                raise ValueNotSecretException(provider.name, key)
            return value
    return None


def find_fields(kind: type[BaseConfiguration], *sections: str) -> dict[str, Any]:
    """Return all fields of a configuration for which something is said."""
    hints = kind.get_resolvable_fields()
    found = {name: find(name, hint, *sections) for name, hint in hints.items()}
    return {name: value for name, value in found.items() if value is not None}
