"""Who may speak to the app, and how much."""

from pathlib import Path

import pytest

from tests.orchestration.serving.app_process import raw, running_app
from tests.processes import descendants, title

TOKEN = "seldom-guessed-0123456789"


@pytest.fixture(scope="module")
def guarded_app(tmp_path_factory, small_shards):
    data = tmp_path_factory.mktemp("guarded")
    with running_app(data, "--shards", str(small_shards), "--max_upload_mib", "1", MAMA_RAY_APP_TOKEN=TOKEN) as app:
        yield app


def test_it_listens_on_loopback_alone(bare_app):
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    own = [line.split()[1] for line in lines if line.split()[1].endswith(f":{bare_app.port:04X}")]
    listening = {address.split(":")[0] for address in own}
    assert listening == {"0100007F"}  # 127.0.0.1, as the kernel writes it


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"cookie": "mama_ray_app=wrong"}])
@pytest.mark.parametrize("path", ["/", "/api/search/filters", "/openapi.json", "/static/search.js"])
def test_a_missing_or_wrong_token_is_401(guarded_app, headers, path):
    assert guarded_app.get(path, headers=headers).status_code == 401


def test_the_token_opens_and_is_in_no_page_or_log(guarded_app):
    answer = guarded_app.get("/", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert TOKEN not in answer.text
    assert TOKEN not in guarded_app.log()


def test_no_process_that_the_app_starts_inherits_the_token(guarded_app):
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert guarded_app.get("/api/clips/simple-0-val-000003/poster", headers=bearer).status_code == 200
    below = descendants(guarded_app.process.pid)
    assert any("mama_ray.data.video.inspection" in title(process) for process in below)
    for process in below:
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert b"PATH=" in environment
        assert TOKEN.encode() not in environment and b"MAMA_RAY_APP_TOKEN" not in environment


def test_a_person_gives_the_token_once(guarded_app, browser):
    with browser.page(f"{guarded_app.url}/narrate") as page:
        browser.troubles.clear()  # Chromium tells of the 401 of the page itself
        page.fill("#token", "not the token, surely")
        page.press("#token", "Enter")
        page.get_by_role("alert").wait_for()
        browser.troubles.clear()
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("nav >> text=Weights")
        assert TOKEN not in str(page.context.cookies())
        assert page.context.cookies()[0]["httpOnly"]
        page.goto(f"{guarded_app.url}/weights")
        assert page.locator("[data-missing=weights]").count() == 1


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example"]
)
def test_a_foreign_host_is_400(bare_app, host):
    assert bare_app.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:80"])
def test_the_names_of_loopback_are_ours(bare_app, host):
    assert bare_app.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_write_from_a_page_of_another_site_is_403(bare_app, headers):
    assert bare_app.post("/api/search", json={}, headers=headers).status_code == 403


def test_a_write_from_our_own_page_is_done(bare_app):
    assert bare_app.post("/api/search", json={}, headers={"origin": bare_app.url}).status_code == 200


def test_an_upload_over_the_limit_is_stopped_before_its_body(guarded_app):
    head = f"POST /api/search/example HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = raw(guarded_app, f"{head}Content-Length: 2000000\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "path",
    [
        "/api/clips/../../etc/passwd/video",
        "/api/clips/..%2f..%2fetc%2fpasswd/video",
        "/api/clips/%2e%2e/video",
        "/api/clips/%00/video",
        "/api/clips/simple%00/poster",
        "/api/clips//etc/passwd/video",
        "/api/clips/%2fetc%2fpasswd/preview",
        "/clips/..%2f..%2fjob.py",
        "/static/..%2fjob.py",
        "/static/../job.py",
        "/static/%2fetc%2fpasswd",
        "/api/clips/%ff%fe/video",
    ],
)
def test_ids_that_are_paths_are_404(bare_app, path):
    answer = raw(bare_app, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


def test_every_answer_has_the_policy_even_a_refusal(bare_app):
    for headers, path in (({}, "/"), ({}, "/nothing"), ({"host": "evil.example"}, "/"), ({}, "/static/app.css")):
        found = bare_app.get(path, headers=headers).headers
        assert "default-src 'none'" in found["content-security-policy"]
        assert "unsafe" not in found["content-security-policy"]
        assert found["x-content-type-options"] == "nosniff"


def test_the_policy_holds_in_the_browser(bare_app, browser):
    with browser.page(f"{bare_app.url}/") as page:
        page.evaluate(
            """() => {
              const script = document.createElement('script');
              script.textContent = 'window.inlineRan = true';
              document.body.append(script);
              document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.handlerRan = true">');
            }"""
        )
        page.wait_for_timeout(300)
        assert page.evaluate("[window.inlineRan, window.handlerRan]") == [None, None]
        assert any("Content Security Policy" in trouble for trouble in browser.troubles)
        browser.troubles.clear()
