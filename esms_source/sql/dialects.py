"""What MySQL and SQLite have no words for, said in the words that they have."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable

    Rules = dict[type[exp.Expr], Callable[[exp.Expr], exp.Expr | None]]

DIALECTS: Final = ("mysql", "sqlite")

ZONES_FROM: Final = datetime(2010, 1, 1, tzinfo=timezone.utc)
ZONES_UNTIL: Final = datetime(2045, 1, 1, tzinfo=timezone.utc)
"""Between them each change of a zone's offset is known; eSMS began after the first."""

SQLITE_TIME: Final = "%Y-%m-%d %H:%M:%f000"
"""How SQLAlchemy writes a time into SQLite, in UTC; SQLite knows milliseconds."""

UNIX_EPOCH: Final = "2440587.5"
"""1970-01-01 as a Julian day."""

SECONDS: Final = {"MILLISECOND": 0.001, "SECOND": 1, "MINUTE": 60, "HOUR": 3_600}
"""Seconds of the units in which our SQL writes intervals."""


def adapted(tree: exp.Expr, dialect: str) -> exp.Expr:
    """Replace what a dialect lacks in a statement; children come before parents."""
    rules = {"mysql": MYSQL, "sqlite": SQLITE}[dialect]
    for node in reversed(list(tree.dfs())):
        rule = rules.get(type(node))
        changed = rule(node) if rule else None
        if changed is not None:
            node.replace(changed)
    return tree


@cache
def offsets(zone: str) -> list[tuple[datetime, int]]:
    """Return a zone's offsets in minutes, each with the moment at which it ends."""
    place, day = ZoneInfo(zone), timedelta(days=1)

    def minutes(at: datetime) -> int:
        offset = at.astimezone(place).utcoffset() or timedelta()
        return round(offset.total_seconds() / 60)

    found = []
    at = ZONES_FROM
    while at < ZONES_UNTIL:
        before, after = at, at + day
        if minutes(before) != minutes(after):
            while after - before > timedelta(minutes=1):
                middle = before + (after - before) / 2
                same = minutes(middle) == minutes(at)
                before, after = (middle, after) if same else (before, middle)
            end = after.replace(second=0, microsecond=0)
            found.append((end, minutes(at)))
        at += day
    return [*found, (ZONES_UNTIL, minutes(ZONES_UNTIL))]


def _call(name: str, *arguments: exp.Expr | str) -> exp.Expr:
    """Return a call of a function that sqlglot needn't know; texts are literals."""
    nodes = [
        exp.Literal.string(item) if isinstance(item, str) else item
        for item in arguments
    ]
    return exp.Anonymous(this=name, expressions=nodes)


def _minutes(moment: exp.Expr, zone: str) -> exp.Expr:
    """Return a zone's offset at a moment, as SQL: neither database knows zones."""
    *changes, (_, last) = offsets(zone)
    if not changes:
        return exp.Literal.number(last)
    case = exp.Case()
    for end, minutes in changes:
        text = exp.Literal.string(f"{end:%Y-%m-%d %H:%M:%S}")
        earlier = exp.LT(this=moment.copy(), expression=text)
        case = case.when(earlier, exp.Literal.number(minutes))
    return case.else_(exp.Literal.number(last))


def _utc(cast: exp.Expr) -> str | None:
    """Return the text of a literal of a moment, without its offset of UTC."""
    literal = cast.this
    if not cast.args["to"].is_type("timestamptz") or not literal.is_string:
        return None
    moment = datetime.fromisoformat(literal.name).astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def _seconds(interval: exp.Expr) -> float:
    """Return how long a literal of an interval is."""
    unit = interval.args["unit"].name.upper().removesuffix("S")
    return float(interval.this.name) * SECONDS[unit]


def _filter(node: exp.Expr) -> exp.Expr:
    aggregate: exp.Expr = node.this.copy()
    condition = node.expression.this
    value = aggregate.this
    if isinstance(value, exp.Star):
        value = exp.Literal.number(1)
    aggregate.set("this", exp.Case().when(condition.copy(), value.copy()))
    return aggregate


def _plain_cte(node: exp.Expr) -> None:
    node.set("materialized", None)


def _percentiles(select: exp.Expr) -> None:
    """Write each percentile_cont of a SELECT as a sum of ranked values.

    It lies between two neighbours: each weighs as much as the other is far away.
    """
    found = list(select.find_all(exp.WithinGroup))
    if not found:
        return
    source = select.args["from_"].this
    groups = select.args["group"].expressions
    (value,) = {ordered.this for item in found for ordered in item.expression}
    partition = [*groups, exp.Is(this=value, expression=exp.Null())]
    inner = exp.select("*").from_(source.copy())
    rank = exp.Window(
        this=exp.RowNumber(),
        partition_by=[item.copy() for item in partition],
        order=exp.Order(expressions=[exp.Ordered(this=value.copy())]),
    )
    size = exp.Window(
        this=exp.Count(this=value.copy()),
        partition_by=[item.copy() for item in groups],
    )
    inner = inner.select(exp.alias_(rank, "place"), exp.alias_(size, "size"))
    source.replace(inner.subquery("placed"))
    for item in found:
        share = item.this.this.sql()
        distance = f"abs(place - 1 - {share} * (size - 1))"
        weight = f"CASE WHEN {distance} < 1 THEN 1 - {distance} ELSE 0 END"
        item.replace(exp.maybe_parse(f"sum({value.sql()} * ({weight}))"))


def _sqlite_sum(node: exp.Expr) -> exp.Expr | None:
    """Round a sum of prices, which SQLite adds as binary fractions."""
    column = node.find(exp.Column)
    is_price = column is not None and column.name == "total_price"
    if not is_price or isinstance(node.parent, (exp.Filter, exp.Window)):
        return None
    return exp.Round(this=node.copy(), decimals=exp.Literal.number(4))


def _mysql_cast(cast: exp.Expr) -> exp.Expr | None:
    text = _utc(cast)
    return None if text is None else _call("TIMESTAMP", text)


def _mysql_zone(node: exp.Expr) -> exp.Expr:
    minutes = _minutes(node.this, node.args["zone"].name)
    return _call("TIMESTAMPADD", exp.var("MINUTE"), minutes, node.this.copy())


def _mysql_epoch(node: exp.Expr) -> exp.Expr:
    since = _call("TIMESTAMP", "1970-01-01"), node.expression.copy()
    microseconds = _call("TIMESTAMPDIFF", exp.var("MICROSECOND"), *since)
    return exp.paren(exp.Div(this=microseconds, expression=exp.Literal.number("1e6")))


def _mysql_add(node: exp.Expr) -> exp.Expr | None:
    if not isinstance(node.expression, exp.Interval):
        return None
    length = exp.Literal.number(round(_seconds(node.expression) * 1_000_000))
    return _call("TIMESTAMPADD", exp.var("MICROSECOND"), length, node.this.copy())


def _sqlite_cast(cast: exp.Expr) -> exp.Expr | None:
    text = _utc(cast)
    if text is not None:
        return exp.Literal.string(text)
    kind = cast.args["to"]
    if kind.is_type("date"):
        return _call("date", cast.this.copy())
    if kind.sql() == "DECIMAL(38, 0)":
        return exp.cast(cast.this.copy(), "bigint")
    return None


def _sqlite_zone(node: exp.Expr) -> exp.Expr:
    minutes = exp.paren(_minutes(node.this, node.args["zone"].name))
    shift = exp.DPipe(this=minutes, expression=exp.Literal.string(" minutes"))
    return _call("datetime", node.this.copy(), shift)


def _sqlite_epoch(node: exp.Expr) -> exp.Expr:
    day = _call("julianday", node.expression.copy())
    since = exp.Sub(this=day, expression=exp.Literal.number(UNIX_EPOCH))
    day_length = exp.Literal.number("86400.0")
    return exp.paren(exp.Mul(this=exp.paren(since), expression=day_length))


def _sqlite_add(node: exp.Expr) -> exp.Expr | None:
    if not isinstance(node.expression, exp.Interval):
        return None
    shift = f"{_seconds(node.expression):+f} seconds"
    return _call("strftime", SQLITE_TIME, node.this.copy(), shift)


def _sqlite_ceil(node: exp.Expr) -> exp.Expr:
    # Not each SQLite is built with ceil.
    whole = exp.cast(node.this.copy(), "bigint")
    more = exp.paren(exp.GT(this=node.this.copy(), expression=whole.copy()))
    return exp.cast(exp.Add(this=whole, expression=more), "double")


def _sqlite_right(node: exp.Expr) -> exp.Expr:
    count = exp.Neg(this=node.expression.copy())
    return _call("substr", node.this.copy(), count)


MYSQL: Final[Rules] = {
    exp.Add: _mysql_add,
    exp.AtTimeZone: _mysql_zone,
    exp.Cast: _mysql_cast,
    exp.CTE: _plain_cte,
    exp.CurrentTimestamp: lambda _: _call("UTC_TIMESTAMP", exp.Literal.number(6)),
    exp.Extract: _mysql_epoch,
    exp.Filter: _filter,
    exp.Select: _percentiles,
}
SQLITE: Final[Rules] = {
    exp.Add: _sqlite_add,
    exp.AtTimeZone: _sqlite_zone,
    exp.Cast: _sqlite_cast,
    exp.Ceil: _sqlite_ceil,
    exp.CurrentTimestamp: lambda _: _call("strftime", SQLITE_TIME, "now"),
    exp.Extract: _sqlite_epoch,
    exp.Filter: lambda node: _sqlite_sum(node) if node.find(exp.Sum) else None,
    exp.Right: _sqlite_right,
    exp.Sum: _sqlite_sum,
    exp.Select: _percentiles,
}
