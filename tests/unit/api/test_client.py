from __future__ import annotations

import gzip
import json
import threading
import time
import traceback
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pyarrow as pa
import pytest

from esms_source.api.endpoints import CALLBACK_PATH, CallbackClient
from esms_source.api.held import MAX_ANSWER_BYTES
from esms_source.api.remedies import CREDENTIALS_REMEDIES, OA_REMEDIES
from esms_source.api.request import Request
from esms_source.exceptions import (
    ApiError,
    CredentialsError,
    MalformedAnswerError,
    OaRefusedError,
    RateLimitedError,
    RetryableApiError,
    TransportError,
)


def send(client, *ref_ids, on_sent=bool):
    """Ask for RefIds of one OA, once."""
    request = Request("oa", pa.table({"ref_id": list(ref_ids)}))
    client.ask(request, on_sent)
    return request


OK = {"Code": 100, "Message": "Success", "Data_callback": []}


@pytest.fixture
def client(make_settings):
    """Make clients of a URL, closed afterwards."""
    made = []

    def make(url, **settings):
        client = CallbackClient(make_settings(base_url=url, **settings))
        made.append(client)
        return client

    yield make
    for one in made:
        one.close()


@pytest.fixture
def ask(client, scripted):
    """Ask the scripted server once, for a reply."""

    def one(body=None, *, status=200, headers=None, **settings):
        if body is not None:
            scripted.say(body, status=status, headers=headers)
        return send(client(scripted.url, **settings), "a", "b")

    return one


def test_a_request_is_what_the_api_documents(ask, scripted, api_key, secret_key):
    """One POST with the four documented fields: section 1.1 of the API notes."""
    ask(OK)
    ((path, headers, body),) = scripted.requests
    assert path == CALLBACK_PATH == "/ZaloCallback/GetCallback"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "ApiKey": api_key,
        "SecretKey": secret_key,
        "ListRefid": ["a", "b"],
        "OAId": "oa",
    }


def test_key_and_secret_stand_in_the_body_only(ask, scripted, api_key, secret_key):
    """Section 6.6: not in the URL, not in a header."""
    ask(OK)
    ((path, headers, _),) = scripted.requests
    for secret in (api_key, secret_key):
        assert secret not in path + str(headers)


def test_a_path_in_the_base_url_is_kept(client, scripted):
    """A gateway may stand in between."""
    scripted.say(OK)
    send(client(scripted.url + "/gateway/"), "a")
    assert scripted.requests[0][0] == "/gateway" + CALLBACK_PATH


def test_an_answer_holds_what_came(ask):
    """Rows, status, code and message, and how long it took."""
    rows = [{"SMSID": "a"}, None, 7]
    answer = ask({"Code": 100, "Message": "Success", "Data_callback": rows})
    assert answer.columns["place"].to_pylist() == [0]
    assert [rejected.row for rejected in answer.rejected] == ["null", "7"]
    assert answer.rows == 3
    assert (answer.http_status, answer.code, answer.message) == (200, 100, "Success")
    assert answer.decoding >= 0


def test_prices_arrive_as_exact_decimals(ask):
    """No number goes through a binary fraction."""
    row = b'{"SMSID": "a", "TotalPrice": 330.10, "X": 0.12345678901234567891}'
    columns = ask(b'{"Code": 100, "Data_callback": [' + row + b"]}").columns
    assert columns["total_price"].to_pylist() == [Decimal("330.1")]
    assert json.loads(columns["extra"][0].as_py())["X"] == "0.12345678901234567891"


@pytest.mark.parametrize("field", ["Code", "CodeResult", "CodeResponse"])
@pytest.mark.parametrize("value", [100, "100", " 100 ", 100.0], ids=ascii)
def test_the_code_is_read_from_each_field_as_number_or_text(field, value, ask):
    """Section 6.5."""
    assert ask({field: value, "Data_callback": None}).rows == 0


def test_code_comes_before_code_result_before_code_response(ask, scripted):
    """Code, else CodeResult, else CodeResponse."""
    assert ask({"Code": 100, "CodeResult": 101, "CodeResponse": 101}).code == 100
    scripted.replies.clear()
    assert ask({"Code": None, "CodeResult": "100", "CodeResponse": 101}).code == 100
    scripted.replies.clear()
    assert ask({"Code": "", "CodeResult": "100"}).code == 100


@pytest.mark.parametrize("rows", [None, []], ids=ascii)
def test_no_rows_are_no_rows(rows, ask, scripted):
    """Null, absent and empty mean the same."""
    assert ask({"Code": 100, "Data_callback": rows}).rows == 0
    scripted.replies.clear()
    assert ask({"Code": 100}).rows == 0


@pytest.mark.parametrize("rows", [{}, "x", 3, True], ids=ascii)
def test_rows_that_are_no_list_are_malformed(rows, ask):
    """Nothing is guessed."""
    with pytest.raises(MalformedAnswerError):
        ask({"Code": 100, "Data_callback": rows})


def test_a_byte_order_mark_is_no_fault(ask):
    """.NET servers write one."""
    assert ask(b"\xef\xbb\xbf" + json.dumps(OK).encode()).code == 100


def test_a_gzipped_answer_is_read(ask):
    """Compression is undone."""
    body = gzip.compress(json.dumps(OK).encode())
    assert ask(body, headers={"Content-Encoding": "gzip"}).code == 100


@pytest.mark.parametrize("code", sorted(CREDENTIALS_REMEDIES))
@pytest.mark.parametrize("field", ["Code", "CodeResult", "CodeResponse"])
def test_a_refused_key_is_told_with_its_remedy(code, field, ask):
    """Code 101, 102, 140, 143: section 6.5."""
    with pytest.raises(CredentialsError) as caught:
        ask({field: str(code), "ErrorMessage": "Authorize Failed"})
    assert caught.value.code == code
    assert CREDENTIALS_REMEDIES[code] in str(caught.value)


@pytest.mark.parametrize("code", sorted(OA_REMEDIES))
def test_a_refused_oa_is_told_with_its_remedy(code, ask):
    """Code 204, 789, 791, 799: section 6.5."""
    with pytest.raises(OaRefusedError) as caught:
        ask({"Code": code})
    assert caught.value.code == code
    assert OA_REMEDIES[code] in str(caught.value)


def test_the_codes_that_stop_are_those_of_the_contract():
    """Section 6.5, to the letter."""
    assert set(CREDENTIALS_REMEDIES) == {101, 102, 140, 143}
    assert set(OA_REMEDIES) == {204, 789, 791, 799}


@pytest.mark.parametrize("code", [99, "99", 777, 0, -1, 105], ids=ascii)
def test_code_99_and_unknown_codes_are_asked_again(code, ask):
    """Section 6.4."""
    with pytest.raises(RetryableApiError) as caught:
        ask({"Code": code, "Message": "Unknown"})
    assert not isinstance(caught.value, RateLimitedError)
    assert caught.value.code == int(code)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_code_160_is_a_refusal_of_the_rate(status, ask):
    """Like HTTP 429: section 6.3."""
    with pytest.raises(RateLimitedError):
        ask({"Code": "160", "Message": "TPS limit exceeded"}, status=status)


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503])
@pytest.mark.parametrize(
    ("code", "error"), [(101, CredentialsError), (204, OaRefusedError)]
)
def test_the_code_counts_whatever_the_http_status(status, code, error, ask):
    """A gateway may give a refused key a status of its own."""
    with pytest.raises(error):
        ask({"Code": code}, status=status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"  \n", 200),
        (b"<html>Maintenance</html>", 200),
        (b'{"Code": 100, "Data_callb', 200),
        (b"null", 200),
        (b"[]", 200),
        (b"100", 200),
        (b'"Code"', 200),
        (b"\xff\xfe\xfa", 200),
        (b"[" * 100_000, 200),
        ({}, 200),
        ({"error": "Invalid request"}, 200),
        ({"Code": None}, 200),
        ({"Code": True}, 200),
        ({"Code": "x"}, 200),
        ({"Code": ""}, 200),
        ({"Code": []}, 200),
        ({"Code": 1.5}, 200),
        (b'{"Code": ' + b"9" * 5_000 + b"}", 200),
        (b"<html>502</html>", 502),
        (b"", 500),
        (OK, 500),
        (OK, 503),
        (OK, 204 + 2),
        (b"", 404),
        (b"<html>", 403),
        ({"error": "Invalid request"}, 400),
        ({"Code": 10**30}, 200),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_no_usable_answer_is_asked_again(body, status, ask):
    """Not JSON, cut off, without a code or with a bad status: section 6.4."""
    with pytest.raises(RetryableApiError) as caught:
        ask(body, status=status)
    assert not isinstance(caught.value, RateLimitedError)
    assert caught.value.http_status == status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status, ask, scripted):
    """The body holds the key: section 6.6."""
    with pytest.raises(RetryableApiError):
        ask(b"", status=status, headers={"Location": scripted.url + "/elsewhere"})
    assert [path for path, _, _ in scripted.requests] == [CALLBACK_PATH]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("0", 0),
        ("1", 1),
        ("7", 7),
        ("2.5", 2.5),
        ("-3", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_retry_after_is_read_in_seconds(header, seconds, ask):
    """What says nothing counts as 0; the limiter waits a second all the same."""
    headers = {} if header is None else {"Retry-After": header}
    with pytest.raises(RateLimitedError) as caught:
        ask(b"Too Many Requests", status=429, headers=headers)
    assert caught.value.retry_after == seconds
    assert caught.value.http_status == 429


def test_retry_after_counts_with_code_160_too(ask):
    """Both refusals of the rate say how long to wait: section 6.3."""
    with pytest.raises(RateLimitedError) as caught:
        ask({"Code": 160}, headers={"Retry-After": "7"})
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("header", ["nan", "inf", "1e400", "٣"])
def test_an_absurd_retry_after_is_no_endless_wait(header, ask):
    """It stays a number that can be waited for."""
    body = header.encode("utf-8").decode("latin-1")
    with pytest.raises(RateLimitedError) as caught:
        ask(b"", status=429, headers={"Retry-After": body})
    assert 0 <= caught.value.retry_after <= 1e9


@pytest.mark.parametrize("ahead", [30, -30])
def test_retry_after_may_be_a_date(ahead, ask):
    """A date in the past is no wait."""
    date = datetime.now(timezone.utc) + timedelta(seconds=ahead)
    with pytest.raises(RateLimitedError) as caught:
        ask(
            b"", status=429, headers={"Retry-After": format_datetime(date, usegmt=True)}
        )
    assert caught.value.retry_after == pytest.approx(max(ahead, 0), abs=3)


def huge() -> bytes:
    return b'{"Code": 100,' + b" " * MAX_ANSWER_BYTES + b'"Data_callback": []}'


def test_an_answer_above_16_mib_is_refused(ask):
    """Section 6.6."""
    assert MAX_ANSWER_BYTES == 16 * 1024 * 1024
    with pytest.raises(MalformedAnswerError, match="16 MiB"):
        ask(huge())


def test_a_small_answer_that_unpacks_above_16_mib_is_refused(ask):
    """What counts is the size after decompression."""
    body = gzip.compress(huge(), 1)
    with pytest.raises(MalformedAnswerError, match="16 MiB"):
        ask(body, headers={"Content-Encoding": "gzip"})


def test_broken_compression_is_asked_again(ask):
    """Bytes that can't be unpacked are no answer."""
    with pytest.raises(TransportError):
        ask(b"no gzip", headers={"Content-Encoding": "gzip"})


def test_an_answer_that_ends_early_is_asked_again(ask):
    """A connection closed before Content-Length is reached is no answer."""
    with pytest.raises(TransportError):
        ask(OK, headers={"Content-Length": "100000"})


def test_no_server_is_a_transport_error(client):
    """Nobody listens."""
    with pytest.raises(TransportError, match="connection failed"):
        send(client("http://127.0.0.1:1"), "a")


def test_a_slow_answer_is_a_time_out(client, simulate):
    """read_timeout holds."""
    simulator = simulate(latency=5)
    began = time.monotonic()
    with pytest.raises(TransportError, match="time-out"):
        send(client(simulator.url, read_timeout=0.2), "a")
    assert time.monotonic() - began < 2


def test_the_moment_of_sending_is_told(client, simulate):
    """on_sent comes once the request has left, before the answer."""
    simulator = simulate(latency=0.3)
    told = []
    send(client(simulator.url), "a", on_sent=lambda: told.append(time.monotonic()))
    (arrived,) = simulator.arrivals.times
    assert told
    assert abs(told[0] - arrived) < 0.2


def test_texts_no_database_can_store_are_escaped(ask):
    """Lone surrogates are no UTF-8, NUL is refused: both are written out."""
    body = (
        rb'{"Code": 100, "Data_callback": [{"SMSID": "a", "X\u0000": '
        rb'["a\ud800b", "\u0000", {"k\udfff": "\ud83d\ude00"}]}, "\ud800"]}'
    )
    answer = ask(body)
    (extra,) = answer.columns["extra"].to_pylist()
    (rejected,) = answer.rejected
    assert (extra + rejected.row).encode()
    assert "\\ud800" in json.loads(extra)["X\\u0000"][0]
    assert json.loads(extra)["X\\u0000"][2] == {"k\\udfff": "😀"}
    assert json.loads(rejected.row) == "\\ud800"


@pytest.mark.parametrize(
    "reply",
    [
        {"body": b"<html>", "status": 500},
        {"body": {"Code": 101}},
        {"body": {"Code": 777}},
        {"body": b"", "status": 429},
        {"body": b"{", "headers": {"Content-Length": "99"}},
        {"body": b"x", "headers": {"Content-Encoding": "gzip"}},
        {"body": b"", "status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
    ],
    ids=ascii,
)
def test_no_error_holds_a_secret(reply, ask, api_key, secret_key):
    """Neither its text nor its trace with causes: section 6.6."""
    with pytest.raises(ApiError) as caught:
        ask(**reply)
    error = caught.value
    text = repr(error) + repr(vars(error)) + "".join(traceback.format_exception(error))
    assert api_key not in text
    assert secret_key not in text


def test_a_server_that_echoes_the_key_leaks_nothing(ask, api_key, secret_key):
    """What the API says goes into tables and errors, so secrets are cut out of it."""
    with pytest.raises(ApiError) as caught:
        ask({"Code": 101, "Message": f"bad key {api_key} / {secret_key}"})
    assert api_key not in str(caught.value)
    assert secret_key not in str(caught.value)


def test_proxies_are_ignored_for_plain_http(ask, monkeypatch):
    """A proxy of plain http would read the key."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert ask(OK).code == 100


def test_a_netrc_file_is_ignored(ask, scripted, tmp_path, monkeypatch):
    """Nothing of the machine is added to a request."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    ask(OK)
    assert "Authorization" not in scripted.requests[0][1]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_are_always_verified(name, make_settings, monkeypatch):
    """No variable turns the check off."""
    monkeypatch.setenv(name, "")
    client = CallbackClient(make_settings())
    pool = client._transport._pool  # noqa: SLF001
    client.close()
    assert vars(pool)["cert_reqs"] == "CERT_REQUIRED"


def test_one_client_serves_many_threads(client, simulate):
    """A session is shared."""
    simulator = simulate()
    shared = client(simulator.url)
    codes = []

    def one(number):
        codes.append(send(shared, f"r{number}").code)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [100] * 16


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", RateLimitedError),
        ("429_date", RateLimitedError),
        ("500", TransportError),
        ("504", TransportError),
        ("html", MalformedAnswerError),
        ("empty", MalformedAnswerError),
        ("cut", MalformedAnswerError),
        ("short", TransportError),
        ("drop", TransportError),
        ("code99", RetryableApiError),
        ("code160", RateLimitedError),
        ("unknown", RetryableApiError),
        ("nocode", MalformedAnswerError),
        ("huge", MalformedAnswerError),
        ("huge_gzip", MalformedAnswerError),
        ("redirect", TransportError),
        ("redirect_307", TransportError),
        ("refuse_key", CredentialsError),
    ],
)
def test_every_fault_of_the_simulator_has_its_error(fault, error, client, simulate):
    """The hostile stand-in brings nothing but errors of ours."""
    simulator = simulate(faults=f"{fault}=1")
    with pytest.raises(error):
        send(client(simulator.url), "a")
    assert simulator.arrivals.stats()["redirects_followed"] == 0


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_connection_may_be_kept_or_not(connection, scripted, client):
    """Two requests in a row work either way."""
    scripted.say(OK, headers={"Connection": connection})
    one = client(scripted.url)
    assert [send(one, "a").code for _ in range(2)] == [100, 100]
