"""The forms in which a Redis is given: what a URL may be, and what it says that is wrong with one that may not."""

from typing import Any

import pytest

from kcg_cache.redis_url import SCHEMES, Place, options_of, parsed

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", Place("single", False, (("localhost", 6379),))),
        ("redis://h", Place("single", False, (("h", 6379),))),
        ("REDISS://h:1/2", Place("single", True, (("h", 1),), db=2)),
        ("redis://h/?db=3", Place("single", False, (("h", 6379),), db=3)),
        ("redis://u:p%40%2F%3A%3F%23%25@h", Place("single", False, (("h", 6379),), username="u", password="p@/:?#%")),
        ("redis://:p@[::1]:7/0", Place("single", False, (("::1", 7),), password="p")),
        ("redis://[fe80::1%25eth0]", Place("single", False, (("fe80::1%eth0", 6379),))),
        ("redis://h?username=u&password=p%20q", Place("single", False, (("h", 6379),), username="u", password="p q")),
        ("unix:///run/r.sock", Place("single", False, socket="/run/r.sock")),
        ("unix://u:p@/run/a%20@b?db=4", Place("single", False, socket="/run/a @b", db=4, username="u", password="p")),
        (
            "redis+sentinel://u:p@a:1,b,[::1]:3/the-master/5?sentinel_username=s&sentinel_password=q",
            Place(
                "sentinel",
                False,
                (("a", 1), ("b", 26379), ("::1", 3)),
                service="the-master",
                db=5,
                username="u",
                password="p",
                sentinel_username="s",
                sentinel_password="q",
            ),
        ),
        ("rediss+sentinel://a/m", Place("sentinel", True, (("a", 26379),), service="m")),
        ("redis+cluster://a:1,b:2", Place("cluster", False, (("a", 1), ("b", 2)))),
        ("rediss+cluster://:p@a/0", Place("cluster", True, (("a", 6379),), password="p")),
    ],
)
def test_every_form_is_read(url: str, place: Place) -> None:
    """With what is left out as redis-py has it, and escaped parts as they are meant."""
    assert parsed(url) == place


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("client_name=worker-1", {"client_name": "worker-1"}),
        ("socket_timeout=0.2&socket_connect_timeout=1", {"socket_timeout": 0.2, "socket_connect_timeout": 1.0}),
        ("socket_keepalive=Yes&max_connections=5", {"socket_keepalive": True, "max_connections": 5}),
        ("health_check_interval=30", {"health_check_interval": 30}),
        (
            "ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_password=p",
            {"ssl_ca_certs": "/ca", "ssl_certfile": "/c", "ssl_keyfile": "/k", "ssl_password": "p"},
        ),
        (
            "ssl_cert_reqs=none&ssl_check_hostname=false&ssl_ca_path=/d",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False, "ssl_ca_path": "/d"},
        ),
    ],
)
def test_the_query_holds_the_options_of_redis_py(query: str, options: dict[str, Any]) -> None:
    """Each as the type that it is meant as."""
    assert parsed(f"rediss://h/0?{query}").options == options


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("h:6379", "its scheme must be one of redis, rediss, unix"),
        ("valkey://h", "its scheme must be one of"),
        ("redis://h/first", "the database in the path must be a number"),
        ("redis://h/-1", "must be a number, 0 or more"),
        ("redis://h/1?db=2", "the database is given twice"),
        ("redis://h?db=x", "db must be a number"),
        ("redis://u:pa/ss@h", "more than one @: .* must be percent-escaped"),
        ("redis://u:pa@ss@h", "more than one @"),
        ("redis://u:pa#ss@h", "holds a #"),
        ("redis://u:pa?ss@h", "its query holds what is no option"),
        ("redis://u:p@h?password=q", "password is given twice"),
        ("redis://h:0", "a port must be a number, 1 to 65535"),
        ("redis://h:65536", "a port must be a number"),
        ("redis://h:", "a port must be a number"),
        ("redis://::1:6379", r"written as \[address\]:port"),
        ("redis://[::1", r"written as \[address\]:port"),
        ("redis://[h]:1", r"written as \[address\]:port"),
        ("redis://a b", "a host name is missing"),
        ("redis://a:1,b:2", r"several addresses are for redis\+sentinel:// or redis\+cluster://"),
        ("unix://run/r.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis+sentinel://a:1", "the name that the Sentinels have for the master is missing"),
        ("redis+sentinel://a:1/", "the name that the Sentinels have"),
        ("redis+sentinel://a:1/%20/0", "the name that the Sentinels have"),
        ("redis+sentinel://a:1/m/x", "the database in the path"),
        ("redis+sentinel:///m", "a host name is missing"),
        ("redis+sentinel://a,,b/m", "a host name is missing"),
        ("redis+cluster://", "a host name is missing"),
        ("redis+cluster://a/1", "a cluster has database 0 only"),
        ("redis+cluster://a?db=1", "a cluster has database 0 only"),
        ("redis://h?clientname=x", "no option is called 'clientname'; there are: client_name, db, "),
        ("redis://h?sentinel_password=x", "no option is called 'sentinel_password'"),
        ("redis+cluster://h?health_check_interval=1", "no option is called 'health_check_interval'"),
        ("redis://h?ssl_ca_certs=x", r"no option is called 'ssl_ca_certs' without TLS \(rediss\)"),
        ("redis://h?client_name=a&client_name=b", "the option client_name is given twice"),
        ("redis://h?client_name=", "the option client_name has no value"),
        ("redis://h?socket_timeout=soon", "socket_timeout must be seconds"),
        ("redis://h?socket_timeout=0", "socket_timeout must be seconds, above 0"),
        ("redis://h?socket_timeout=nan", "socket_timeout must be seconds"),
        ("redis://h?socket_keepalive=maybe", "socket_keepalive must be true or false"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs must be none, optional or required"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, wrong: str) -> None:
    """Each with what would be right."""
    with pytest.raises(ValueError, match=wrong):
        parsed(url)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unknown_option_is_told_those_that_there_are(scheme: str) -> None:
    """A typo would else do nothing, or show at the first call."""
    form, tls = SCHEMES[scheme]
    with pytest.raises(ValueError, match="no option is called 'tls'") as refused:
        parsed(f"{scheme}:///run?tls=1" if scheme == "unix" else f"{scheme}://h/0?tls=1")
    assert ", ".join(options_of(form, tls=tls)) in str(refused.value)


def test_what_is_read_shows_no_password() -> None:
    """Neither the server's nor the Sentinels', nor that of a key's file."""
    place = parsed("rediss+sentinel://u:s3cret@h/m?sentinel_password=s3cret&ssl_password=s3cret")
    assert "s3cret" not in repr(place)
