"""How the simulator behaves: everything that can be set, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from esms_source.simulator.faults import FAULTS, parse_faults

Script: TypeAlias = Sequence[object] | Callable[[str, int], Sequence[object]]
"""Rows to answer with as they stand, or a function of (ref_id, times_asked)."""

Found: TypeAlias = Mapping[str, object] | bytes | None
Result: TypeAlias = Found | Callable[[str, str], Found]
"""What QueryZnsStatus has of a RefId, or a function of (ref_id, sms_type)."""

RequestHook: TypeAlias = Callable[[int, str, Sequence[str]], str | None]
"""A function of (number from 1, oa_id, ref_ids) that may name a fault."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Settings of a simulator.

    Attributes:
        seed: Decides the fate of every RefId and which requests get a fault.
        plain: Answer fast and without oddities: each RefId has one final row.
        latency: Seconds from a request's arrival to its answer.
        rate: Most arrivals in any one-second window; None or 0 lifts the limit.
        refuse_with: Name of the fault that answers what is above the rate.
        faults: Spec of faults, see ``FAULTS`` and ``SPECIAL_FAULTS``.
        slow_seconds: Seconds that the fault ``slow`` takes.
        api_key: The only key accepted; None accepts any that is not blank.
        secret_key: The same for the secret.
        refused_oas: OAs answered with Code 204.
        scripted: RefId to rows, in place of its fate; ``times_asked`` starts at 1.
        on_request: Called for each request that is not refused, from the server's
            own thread; the fault it names strikes, before any of the spec.
        record_ref_ids: Keep how often each RefId was asked and answered.
        query_rate: Most arrivals of QueryZnsStatus in any second; None lifts the limit.
        rest_faults: Spec of faults of the other endpoints.
        queried: RefId to the result that QueryZnsStatus has of it, None for none, or
            bytes as they stand; or a function of (ref_id, sms_type) that says so.
        oa_names: Names of OAs, beside those made up for all that were asked for.
        sent: Rows of GetSmsSentData_V2, as ``rest.sent_row`` makes them.

    Raises:
        ValueError: A setting makes no sense.
    """

    seed: int = 0
    plain: bool = False
    latency: float = 0.0
    rate: float | None = 20
    refuse_with: str = "429"
    faults: str = ""
    slow_seconds: float = 60.0
    api_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    refused_oas: frozenset[str] = frozenset()
    scripted: Mapping[str, Script] = field(default_factory=dict, repr=False)
    on_request: RequestHook | None = field(default=None, repr=False)
    record_ref_ids: bool = False
    query_rate: float | None = 100
    rest_faults: str = ""
    queried: Mapping[str, Result] = field(default_factory=dict, repr=False)
    oa_names: Mapping[str, str] = field(default_factory=dict)
    sent: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in ("latency", "rate", "query_rate", "slow_seconds"):
            if not 0 <= (getattr(self, name) or 0) < float("inf"):
                msg = f"{name}: {getattr(self, name)} is not a number, 0 or more"
                raise ValueError(msg)
        if self.refuse_with not in FAULTS:
            msg = f"refuse_with: {self.refuse_with!r} is none of {', '.join(FAULTS)}"
            raise ValueError(msg)
        parse_faults(self.faults)
        parse_faults(self.rest_faults)
