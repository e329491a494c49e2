"""Every error of this package, sorted by what to do next.

EsmsError
├── ConfigError             fix a setting
├── RefIdTableError         fix the warehouse table or its grants
├── DestinationError        fix the destination, or wait until it is free
├── PipelineBusyError       another run holds the pipeline
├── StoppedError            run again: a signal ended the run
└── ApiError                the API gave no usable answer
    ├── RetryableApiError   ask again
    │   ├── RateLimitedError
    │   ├── TransportError
    │   └── MalformedAnswerError
    └── FatalApiError       asking again won't help
        ├── CredentialsError
        ├── OaRefusedError
        └── OutageError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator


class EsmsError(Exception):
    """Base of all errors raised by this package; its text is one line.

    Args:
        fact: What is wrong.
        remedy: What to do about it.

    Attributes:
        exit_code: What the command line ends with.
        report: The run's ``Report``, where a run ended early.
    """

    exit_code: ClassVar[int] = 1
    report: Any = None

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(f"{fact}; {remedy}" if remedy else fact)
        self.fact = fact
        self.remedy = remedy


class ConfigError(EsmsError, ValueError):
    """A setting is missing or makes no sense."""

    exit_code = 2


class RefIdTableError(EsmsError):
    """The table of RefIds can't be read as it is configured."""

    exit_code = 2


class DestinationError(EsmsError):
    """The destination can't take the data as it is configured, or not now."""


class PipelineBusyError(EsmsError):
    """Another run of the same pipeline is under way on this host."""

    exit_code = 75


class StoppedError(EsmsError):
    """A signal ended the run; what was answered is loaded."""


class ApiError(EsmsError):
    """The API gave no usable answer.

    Attributes:
        code: The API's own code, where the answer had one.
        http_status: The HTTP status, where there was an answer.
    """

    def __init__(
        self, message: str, *, code: int | None = None, http_status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status


class RetryableApiError(ApiError):
    """The same request may be answered when it is sent again."""


class RateLimitedError(RetryableApiError):
    """The API refused a request because of its rate.

    Attributes:
        retry_after: Seconds to wait before the next request.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        code: int | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.retry_after = retry_after


class TransportError(RetryableApiError):
    """No complete answer came: time-out, broken connection or HTTP 5xx."""


class MalformedAnswerError(RetryableApiError):
    """An answer came that isn't the JSON that the API promises."""


class FatalApiError(ApiError):
    """Asking again won't help before somebody acts."""


class CredentialsError(FatalApiError):
    """The API refused the key, the account or this host."""


class OaRefusedError(FatalApiError):
    """The API refused the OA; other OAs may still be asked."""


class OutageError(FatalApiError):
    """Many requests in a row had no usable answer, or the API wants to be left alone.

    Attributes:
        retry_after: Seconds that it asks to wait, where it does.
    """

    retry_after: float = 0.0


E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Take off an error what led to it: frames hold answers, and the error is kept."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it came from, the innermost last."""
    link: BaseException | None = exc
    while link is not None:
        yield link
        link = link.__cause__ or (
            None if link.__suppress_context__ else link.__context__
        )
