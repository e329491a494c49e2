"""What eSMS says was sent, page by page: GetSmsSentData_V2."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from esms_source.api.endpoints import SENT_PATH, ListClient
from esms_source.exceptions import StoppedError
from esms_source.polling.names import PER_SECOND
from esms_source.polling.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from esms_source.config import Settings
    from esms_source.runtime import Stop

SMS_TYPES: Final = (25, 24, 2)
"""ZNS of both types, and SMS, which may follow a ZNS that failed."""

PAGE_ROWS: Final = 500
"""Rows of a page, at most. Source: the GetSmsSentData_V2 page of eSMS's API docs."""

MOST_PAGES: Final = 20_000
"""Pages of a day and type, so that a server that repeats itself ends, too."""

VIETNAM: Final = ZoneInfo("Asia/Ho_Chi_Minh")
"""The zone of From and To: no page names it, and eSMS's times bear +0700."""


def ask_sent(
    settings: Settings, url: str, day: date, stop: Stop
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all messages that were created on a day, a page at a time.

    Args:
        settings: As whom to ask.
        url: Where eSMS's other endpoints are.
        day: Which day, in Vietnam.
        stop: Ends the asking.

    Raises:
        ApiError: No usable answer came.
        EsmsError: The run was told to stop.
    """
    begin = datetime.combine(day, time(), VIETNAM)
    end = begin + timedelta(days=1) - timedelta(seconds=1)
    limiter = RateLimiter(PER_SECOND, stop)
    with closing(ListClient(settings, url, SENT_PATH)) as client:
        for sms_type in SMS_TYPES:
            for page in range(1, MOST_PAGES):
                slot = limiter.acquire()
                if slot is None:
                    raise stop.reason or StoppedError("stopped")
                fields = {
                    "SmsType": str(sms_type),
                    "From": f"{begin:%Y-%m-%d %H:%M:%S}",
                    "To": f"{end:%Y-%m-%d %H:%M:%S}",
                    "Page": page,
                    "PageSize": PAGE_ROWS,
                }
                rows = client.rows("SentData", fields, partial(limiter.sent, slot))
                if rows:
                    yield [{"SmsType": sms_type} | row for row in rows]
                if len(rows) < PAGE_ROWS:
                    break
