"""What pages have in common: cookies, form tokens, header fields, templates, style."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from jinja2 import UndefinedError

from gateway.web.assets import load_stylesheet
from gateway.web.cookies import SecretCookie
from gateway.web.csrf import FormTokens
from gateway.web.headers import csp_source, page_headers
from gateway.web.templating import Pages, make_environment

SHARED = {"product": "Gateway", "stylesheet": "/style.css"}
MIN_TEXT_CONTRAST = 4.5
MIN_CONTROL_CONTRAST = 3.0


def mac(message: bytes) -> bytes:
    return hmac.digest(b"a key", message, hashlib.sha256)


def test_a_cookie_on_https_is_bound_to_its_host_and_hidden_from_scripts() -> None:
    name, value = SecretCookie("session", is_secure=True).set("abc", max_age_s=60)
    assert name == "Set-Cookie"
    assert value == ("__Host-session=abc; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax")


def test_a_cookie_on_http_goes_without_what_only_https_can_have() -> None:
    cookie = SecretCookie("session", is_secure=False, same_site="Strict")
    assert cookie.set("abc")[1] == "session=abc; Path=/; HttpOnly; SameSite=Strict"
    assert cookie.clear()[1] == "session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"


def test_a_cookie_takes_no_value_that_could_add_attributes() -> None:
    with pytest.raises(ValueError, match="base64url"):
        SecretCookie("session", is_secure=True).set("abc; Domain=example.com")


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ([b"__Host-session=abc"], "abc"),
        ([b"a=1; __Host-session=abc; b=2"], "abc"),
        ([b"a=1", b"__Host-session=abc"], "abc"),
        ([b"session=abc"], None),
        ([b"__host-session=abc"], None),
        ([b"__Host-session=abc; __Host-session=def"], None),
        ([b"__Host-session=a b"], None),
        ([b"__Host-session="], None),
        ([b"__Host-session=\xff"], None),
        ([], None),
    ],
)
def test_a_cookie_is_read_only_where_it_has_one_value_that_we_could_have_set(
    sent: list[bytes], value: str | None
) -> None:
    headers = [(b"Cookie", line) for line in sent]
    assert SecretCookie("session", is_secure=True).read(headers) == value


def test_a_form_token_is_good_for_its_cookie_and_purpose_alone() -> None:
    tokens = FormTokens(mac)
    token = tokens.make("cookie", "consent")
    assert tokens.is_valid(token, "cookie", "consent")
    assert not tokens.is_valid(token, "other", "consent")
    assert not tokens.is_valid(token, "cookie", "sign-out")
    assert not tokens.is_valid(token, None, "consent")
    assert not tokens.is_valid(None, "cookie", "consent")
    assert not tokens.is_valid("\udcff", "cookie", "consent")
    assert not FormTokens(lambda message: b"\0" * 32).is_valid(token, "cookie", "consent")


def test_a_page_runs_nothing_and_is_in_no_frame() -> None:
    headers = dict(page_headers(form_action=["https://app.example"]))
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy.endswith("form-action 'self' https://app.example")
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://app.example:8443/cb?x=1", "https://app.example:8443"),
        ("http://127.0.0.1:5000/cb", "http://127.0.0.1:5000"),
        ("http://[::1]:5000/cb", "http:"),
        ("com.example.app:/cb", "com.example.app:"),
        ("https://app.example;script-src/cb", "https:"),
        ("https://app.example,x/cb", "https:"),
    ],
)
def test_a_redirect_target_becomes_a_source_that_a_policy_can_name(url: str, source: str) -> None:
    assert csp_source(url) == source


def test_the_base_page_has_a_language_landmarks_and_no_script_or_inline_style() -> None:
    page = Pages(shared=SHARED).render("base.html", {}).decode()
    assert '<html lang="en">' in page
    assert '<main id="main"' in page
    assert 'href="/style.css"' in page
    assert "<script" not in page
    assert "style=" not in page


def test_templates_escape_and_do_not_take_a_missing_value_for_nothing() -> None:
    environment = make_environment()
    template = environment.from_string('<p title="{{ value }}">{{ value }}</p>')
    assert template.render(value='"><script>') == (
        '<p title="&#34;&gt;&lt;script&gt;">&#34;&gt;&lt;script&gt;</p>'
    )
    with pytest.raises(UndefinedError):
        template.render()


def test_the_style_sheet_is_named_by_its_content_and_cached_for_ever() -> None:
    sheet = load_stylesheet()
    assert hashlib.sha256(sheet.body).hexdigest()[:12] in sheet.name
    assert ("Content-Type", "text/css; charset=utf-8") in sheet.headers
    assert any("immutable" in value for _, value in sheet.headers)
    assert b"@import" not in sheet.body
    assert b"url(" not in sheet.body


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_both_themes_hold_the_contrast_of_wcag_aa(theme: int) -> None:
    sheet = load_stylesheet().body.decode()
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", sheet.split(":root {")[theme + 1]))
    texts = [(text, ground) for text in ("text", "muted") for ground in ("ground", "surface")]
    texts += [("text", "sunken"), ("accent", "ground"), ("accent", "surface")]
    texts += [("on-accent", "accent"), ("on-accent", "accent-strong")]
    texts += [(kind, f"{kind}-ground") for kind in ("danger", "good", "warn")]
    for text, ground in texts:
        assert contrast(colours[text], colours[ground]) >= MIN_TEXT_CONTRAST, (text, ground)
    for edge in ("control", "accent", "danger"):
        assert contrast(colours[edge], colours["surface"]) >= MIN_CONTROL_CONTRAST, edge


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
