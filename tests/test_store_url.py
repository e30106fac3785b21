"""Where the store is, in a line."""

from __future__ import annotations

import pytest

from gateway.store_url import RedisUrl, SqliteUrl, parse_store_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///./a.db", SqliteUrl("./a.db")),
        ("sqlite:////var/a.db", SqliteUrl("/var/a.db")),
        ("redis://h", RedisUrl("standalone", False, (("h", 6379),))),
        ("redis://h:1/2", RedisUrl("standalone", False, (("h", 1),), database=2)),
        ("redis://[::1]:1", RedisUrl("standalone", False, (("::1", 1),))),
        ("redis://:p%40ss@h", RedisUrl("standalone", False, (("h", 6379),), password="p@ss")),
        (
            "rediss://me:a:b%2F@h/0?ca=/etc/ca.pem&cert=c.pem&key=k.pem&prefix=gw",
            RedisUrl("standalone", True, (("h", 6379),), username="me", password="a:b/",
                     ca="/etc/ca.pem", cert="c.pem", key="k.pem", prefix="gw"),
        ),
        (
            "redis+sentinel://me:pw@a:1,b/main/3?sentinel_password=s",
            RedisUrl("sentinel", False, (("a", 1), ("b", 26379)), service="main", database=3,
                     username="me", password="pw", sentinel_password="s"),
        ),
        ("rediss+sentinel://a/main", RedisUrl("sentinel", True, (("a", 26379),), service="main")),
        ("redis+cluster://a:1,b:2", RedisUrl("cluster", False, (("a", 1), ("b", 2)))),
        ("rediss+cluster://a/0", RedisUrl("cluster", True, (("a", 6379),))),
    ],
)  # fmt: skip
def test_url_is_understood(url: str, expected: SqliteUrl | RedisUrl) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "expected sqlite:///PATH, redis"),
        ("redis:h", "expected sqlite:///PATH, redis"),
        ("mysql://h", "expected sqlite:///PATH, redis"),
        ("sqlite://a.db", "expected sqlite:///PATH"),
        ("sqlite:///", "expected sqlite:///PATH"),
        ("sqlite:////x/q.db?mode=ro", "a SQLite file has no options"),
        ("sqlite:///:memory:", "can't be shared by processes"),
        ("sqlite:///file:x", "can't be shared by processes"),
        ("sqlite:////x/a%20b.db", "not percent-decoded"),
        ("sqlite:////x/a\x00b.db", "control character"),
        ("sqlite:////var/lib/", "not that of a directory"),
        ("redis://", "expected HOST or HOST:PORT"),
        ("redis://geheim@/0", "expected HOST or HOST:PORT"),
        ("redis://h:0", "expected HOST or HOST:PORT"),
        ("redis://h:65536", "expected HOST or HOST:PORT"),
        ("redis://h,i", "several need redis\\+sentinel:// or redis\\+cluster://"),
        ("redis://h/geheim", "the number of a database"),
        ("redis+sentinel://h", "/SERVICE/DB"),
        ("redis+cluster://h/1", "database 0 only"),
        ("redis://h?ca=x", "use rediss://"),
        ("redis+cluster://h?ca=x", "use rediss\\+cluster://"),
        ("rediss://h?cert=x", "cert and key go together"),
        ("redis://h?passwort=geheim", "unknown option 'passwort', expected prefix"),
        ("redis://h?prefix={geheim}", "option prefix must match"),
    ],
)
def test_anything_else_is_reported_without_what_may_be_secret(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_store_url(url)
    assert "geheim" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    url = parse_store_url("redis+sentinel://me:geheim@h/main/1?sentinel_password=geheim")
    assert "geheim" not in repr(url) + str(url)
    assert str(url) == "redis+sentinel://h:26379/main/1"
