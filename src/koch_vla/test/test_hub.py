# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch hub` against an HTTP server that keeps repositories as the Hub does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from koch_core.errors import KochError
from koch_episodes.dataset import load_info
from koch_vla import cli, hub
from koch_vla.hub import HubPush, HubUnavailableError

COMMIT = "a" * 40


class Store:
    """What the server holds: {kind/name: {path: bytes}}, uploads by hash, tags."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.tags: dict[str, list[str]] = {}
        self.commits = 0


def handler_of(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """The routes of the Hub's API that a push and a pull use."""

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, code: int, body: object = None, **headers: str) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def url(self, name: str) -> str:
            return f"http://{self.headers['Host']}/{name.removeprefix('models/')}"

        def missing(self) -> None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

        def repo(self, path: str) -> tuple[str, str] | None:
            found = re.match(r"/api/(datasets|models)/([^/]+/[^/]+)(/.*)?$", path)
            return (f"{found[1]}/{found[2]}", found[3] or "") if found else None

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
            if found := self.repo(path):
                name, rest = found
                if name not in store.repos:
                    return self.missing()
                files = store.repos[name]
                if rest.startswith("/tree/"):
                    return self.answer(200, [
                        {"type": "file", "path": p, "size": len(d), "oid": "b" * 40}
                        for p, d in files.items()
                    ])  # fmt: skip
                siblings = [{"rfilename": p} for p in files]
                return self.answer(
                    200, {"id": name.partition("/")[2], "sha": COMMIT, "siblings": siblings}
                )
            found = re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path)
            if not found:
                return self.missing()
            files = store.repos.get(f"{'datasets' if found[1] else 'models'}/{found[2]}", {})
            if found[3] not in files:
                return self.answer(404, {}, X_Error_Code="EntryNotFound")
            data = files[found[3]]
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            return self.answer(
                200, data, ETag=etag, X_Repo_Commit=COMMIT, X_Linked_Size=str(len(data))
            )

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
            body = self.body()
            if path == "/api/repos/create":
                told = json.loads(body)
                kind = f"{told.get('type') or 'model'}s"
                owner = told.get("organization") or "me"
                store.repos.setdefault(f"{kind}/{owner}/{told['name']}", {})
                return self.answer(200, {"url": self.url(f"{kind}/{owner}/{told['name']}")})
            if path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            if path.endswith("/info/lfs/objects/batch"):
                host = f"http://{self.headers['Host']}"
                return self.answer(200, {"transfer": "basic", "objects": [
                    {**item, "actions": {"upload": {"href": f"{host}/put/{item['oid']}"}}}
                    for item in json.loads(body)["objects"]
                ]}, Content_Type="application/vnd.git-lfs+json")  # fmt: skip
            found = self.repo(path)
            if not found or found[0] not in store.repos:
                return self.missing()
            name, rest = found
            if "/preupload/" in rest:
                large = (".parquet", ".mp4", ".safetensors")
                return self.answer(200, {"files": [
                    {"path": item["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if item["path"].endswith(large) else "regular"}
                    for item in json.loads(body)["files"]
                ]})  # fmt: skip
            if "/commit/" in rest:
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        store.repos[name][value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        store.repos[name][value["path"]] = store.blobs[value["oid"]]
                    elif line["key"] == "deletedFile":
                        del store.repos[name][value["path"]]
                store.commits += 1
                url = f"{self.url(name)}/commit/{COMMIT}"
                return self.answer(200, {"commitUrl": url, "commitOid": COMMIT})
            if "/tag/" in rest:
                store.tags.setdefault(name, []).append(json.loads(body)["tag"])
                return self.answer(200)
            return self.missing()

        def do_PUT(self) -> None:
            store.blobs[self.path.rpartition("/")[2]] = self.body()
            self.answer(200)

        def do_DELETE(self) -> None:
            self.answer(404, {}, X_Error_Code="RevisionNotFound")

    return Handler


@pytest.fixture
def store(monkeypatch, tmp_path) -> Iterator[Store]:
    """A running hub at which HF_ENDPOINT points; its client is an extra."""
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    kept = Store()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(kept)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # its own protocol; this server has LFS
        yield kept
        server.shutdown()


def koch(*words: str, code: int = 0) -> str:
    """Run `koch hub`, whose client reads the environment once; its messages."""
    done = subprocess.run(
        [sys.executable, "-m", "koch_vla", "hub", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60.0, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return " ".join(done.stdout.split())


@pytest.fixture
def dataset(repository, tmp_path) -> Path:
    return Path(shutil.copytree(repository / "docs/sample/dataset", tmp_path / "block_cup"))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "out/checkpoints/last/pretrained_model"
    folder.mkdir(parents=True)
    config = {"type": "act", "chunk_size": 50,
              "input_features": {"observation.state": {"type": "STATE", "shape": [6]}},
              "output_features": {"action": {"type": "ACTION", "shape": [6]}}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    told = {"format": 1, "units": "lerobot", "fps": 30.0, "robot_type": "koch_follower",
            "tasks": ["Pick up the block."], "training": {"step": 2000}}  # fmt: skip
    (folder / "koch.json").write_text(json.dumps(told))
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    return tmp_path / "out"


@pytest.mark.slow
def test_a_dataset_goes_up_in_one_commit_and_comes_down_the_same(store, dataset, tmp_path):
    (dataset / "notes.txt").write_text("not of the dataset")
    koch("push", str(dataset), "me/block_cup")
    assert store.commits == 1
    assert store.tags["datasets/me/block_cup"] == [load_info(dataset).format.name]
    files = store.repos["datasets/me/block_cup"]
    assert "README.md" in files
    assert "notes.txt" not in files
    out = tmp_path / "pulled"
    koch("pull", "me/block_cup", "--out", str(out))
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert there == set(files)
    for name in there - {"README.md"}:
        assert (out / name).read_bytes() == (dataset / name).read_bytes()


@pytest.mark.slow
def test_files_of_an_earlier_push_go_in_the_same_commit(store, dataset, checkpoint):
    """A table of an episode that was deleted since would be read as well."""
    others = {".gitattributes": b"x", "LICENSE": b"x", "scripts/x.json": b"{}"}
    stale = {"data/chunk-000/file-009.parquet": b"x", "meta/episodes/chunk-001/a.parquet": b"x"}
    store.repos["datasets/me/block_cup"] = {**others, **stale}
    assert "removing 2 file(s)" in koch("push", str(dataset), "me/block_cup")
    assert store.commits == 1
    there = set(store.repos["datasets/me/block_cup"])
    assert there >= {*others, "meta/info.json"}
    assert not there & set(stale)
    stale = {"adapter_model.safetensors": b"x", "policy_preprocessor.json": b"{}"}
    store.repos["models/me/act"] = {**others, **stale}
    koch("push", str(checkpoint), "me/act")
    assert set(store.repos["models/me/act"]) == {
        *others, "README.md", "config.json", "koch.json", "model.safetensors",
    }  # fmt: skip
    assert "removing" not in koch("push", str(checkpoint), "me/act")


@pytest.mark.slow
def test_a_checkpoint_goes_without_pickles(store, checkpoint, tmp_path):
    koch("push", str(checkpoint), "me/act")
    assert set(store.repos["models/me/act"]) == {
        "README.md", "config.json", "koch.json", "model.safetensors",
    }  # fmt: skip
    store.repos["models/me/act"]["evil.pkl"] = b"a pickle that somebody else put there"
    out = tmp_path / "policy"
    koch("pull", "me/act", "--out", str(out))
    assert not (out / "evil.pkl").exists()
    assert (out / "model.safetensors").read_bytes() == b"weights" * 1000


@pytest.mark.slow
def test_what_is_no_checkpoint_is_not_handed_out(store, tmp_path):
    store.repos["models/me/odd"] = {"config.json": b"{}", "model.pkl": b"a pickle"}
    out = tmp_path / "odd"
    assert "safetensors" in koch("pull", "me/odd", "--out", str(out), code=2)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["data/", "videos/", "meta/tasks", "meta/episodes/"])
def test_a_dataset_that_lacks_files_is_not_handed_out(store, dataset, tmp_path, lost):
    files = {p.relative_to(dataset).as_posix(): p for p in dataset.rglob("*") if p.is_file()}
    kept = {name: p.read_bytes() for name, p in files.items() if not name.startswith(lost)}
    assert len(kept) < len(files)
    store.repos["datasets/me/odd"] = kept
    assert lost.rstrip("/") in koch("pull", "me/odd", "--out", str(tmp_path / "x"), code=2)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_an_unknown_name_a_full_folder_and_no_hub_are_told(store, tmp_path, monkeypatch, dataset):
    said = koch("pull", "me/none", "--out", str(tmp_path / "x"), code=2)
    assert "neither a dataset nor a model" in said
    assert "is there already" in koch("pull", "me/none", "--out", str(tmp_path), code=2)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert "HF_ENDPOINT" in koch("push", str(dataset), "me/x", code=2)


def test_cards_say_what_the_files_say(dataset, checkpoint):
    card = hub.parcel(dataset, "me/block_cup").card
    head = yaml.safe_load(card.split("---")[1])
    assert {"LeRobot", "koch", "koch_follower"} <= set(head["tags"])
    info = load_info(dataset)
    assert f"| episodes | {info.total_episodes} |" in card
    assert "observation.images.above" in card
    assert "Pick up the rectangular block" in card
    card = hub.parcel(checkpoint, "me/act").card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "lerobot"
    for text in ("| policy | act |", "| chunk | 50 |", "| step | 2000 |", "| rate | 30 Hz |"):
        assert text in card


def test_a_card_of_ones_own_stays(dataset):
    (dataset / "README.md").write_text("mine\n")
    assert hub.parcel(dataset, "me/block_cup").card == "mine\n"


def test_neither_dataset_nor_checkpoint_is_pushed(tmp_path):
    with pytest.raises(KochError, match=r"config\.json"):
        hub.push(HubPush(folder=tmp_path, repo="me/x"))


def test_the_missing_extra_is_told(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubUnavailableError, match="koch setup --with hub"):
        hub.push(HubPush(folder=dataset, repo="me/x"))


def test_a_card_can_be_read_before_anything_is_sent(dataset, capsys):
    assert cli.main(["hub", "push", str(dataset), "me/x", "--card-only"]) == 0
    assert capsys.readouterr().out.startswith("---\n")
