"""The few endpoints of the Hugging Face hub that publishing a model and fetching it take, over a dict of files.

Written from the requests that huggingface_hub sends. Every commit is kept; weights go the way of large files.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"


class Hub(ThreadingHTTPServer):
    """A hub on this machine; `repositories` has the files of each by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.objects: dict[str, bytes] = {}

    def files_of(self, name: str, revision: str) -> dict[str, bytes] | None:
        """Return the files of a repository at a commit that was asked for before, and else the newest."""
        files = self.repositories.get(name)
        if files is not None:
            self.commits[_sha(files)] = dict(files)
        return self.commits.get(revision, files)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, Hub)
        return self.server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/objects/"):
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            content = json.loads(body)
            name = "/".join(filter(None, [content.get("organization"), content["name"]]))
            self.hub.repositories.setdefault(name, {})
            self._answer({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/.+/preupload/main", path):
            files = [{"path": file["path"], **_mode(file["path"])} for file in json.loads(body)["files"]]
            self._answer({"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._upload_of(one) for one in json.loads(body)["objects"]]
            self._answer({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._answer({"error": f"nothing at {path}"}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.objects[hashlib.sha256(body).hexdigest()] = body
        self._answer({})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/(.+)/revision/(\w+)", path):
            files = self.hub.files_of(match[1], match[2])
            siblings = [{"rfilename": name} for name in files or ()]
            if files is None:
                self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            else:
                self._answer({"id": match[1], "sha": _sha(files), "siblings": siblings, "private": False})
        elif match := re.fullmatch(r"/api/models/(.+)/tree/(\w+)", path):
            files = self.hub.files_of(match[1], match[2]) or {}
            oids = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
            self._answer([{"type": "file", "path": n, "size": len(files[n]), "oid": oids[n]} for n in files])
        elif match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            files = self.hub.files_of(match[1], match[2]) or {}
            if match[3] not in files:
                self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            else:
                self._send(files[match[3]], {"X-Repo-Commit": _sha(files)})
        else:
            self._answer({"error": f"nothing at {path}"}, 404)

    do_HEAD = do_GET

    def _upload_of(self, one: dict) -> dict:
        actions = {"upload": {"href": f"{self.hub.endpoint}/objects/{one['oid']}"}}
        return {**one, "actions": actions}

    def _commit(self, name: str, lines: list[dict]) -> None:
        files = self.hub.repositories[name]
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.hub.messages.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
        commit = _sha(files)
        url = f"{self.hub.endpoint}/{name}/commit/{commit}"
        self._answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), headers or {}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _mode(path: str) -> dict:
    return {"uploadMode": "lfs" if path.endswith(".safetensors") else "regular", "shouldIgnore": False, "oid": None}


def _sha(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()
