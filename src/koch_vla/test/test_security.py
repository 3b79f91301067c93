# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""SROS 2 keystores: openssl agrees with each signature, nothing is allowed but what is used."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from koch_vla.executables import ros_arguments
from koch_vla.node_spec import NodeSpec
from koch_vla.security import (
    DISCOVERY,
    Keystore,
    KeystoreError,
    Permissions,
    Uses,
    by_enclave,
    write_keystore,
)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the keys")
DRIVER = Uses(
    frozenset({"/follower/joint_states"}),
    frozenset({"/follower/command/policy"}),
    frozenset({"/follower/stop"}),
    frozenset({"/world/reset"}),
)
# Children of each element, in the order of SROS 2's schema; all are there once, topics as needed.
ORDER = {
    "dds": ["permissions"],
    "permissions": ["grant"],
    "grant": ["subject_name", "validity", "allow_rule", "default"],
    "validity": ["not_before", "not_after"],
    "allow_rule": ["domains", "publish", "subscribe"],
    "domains": ["id"],
    "publish": ["topics"],
    "subscribe": ["topics"],
}


def openssl(*words: object) -> str:
    command = ["openssl", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "keystore"
    write_keystore(folder, 7, {"/follower/driver": DRIVER, "/": Uses()})
    return folder


def test_names_become_dds_topics() -> None:
    """Worked by hand from the mapping's table."""
    assert Permissions.of(DRIVER) == Permissions(
        frozenset({DISCOVERY, "rt/follower/joint_states", "rr/follower/stopReply",
                   "rq/world/resetRequest"}),
        frozenset({DISCOVERY, "rt/follower/command/policy", "rq/follower/stopRequest",
                   "rr/world/resetReply"}),
    )  # fmt: skip


@pytest.mark.parametrize("enclave", ["follower/driver", "."])
def test_openssl_verifies_who_signed(store: Path, enclave: str, tmp_path: Path) -> None:
    folder = store / "enclaves" / enclave
    for name in ("permissions", "governance"):
        out = tmp_path / "out.xml"
        openssl("smime", "-verify", "-text", "-in", folder / f"{name}.p7s", "-out", out,
                "-CAfile", folder / "permissions_ca.cert.pem")  # fmt: skip
        plain = (store / "enclaves" / "governance.xml") if name == "governance" else (
            folder / "permissions.xml"
        )  # fmt: skip
        assert out.read_text().split() == plain.read_text().split()
    openssl("verify", "-CAfile", folder / "identity_ca.cert.pem", folder / "cert.pem")
    subject = openssl(
        "x509", "-in", folder / "cert.pem", "-noout", "-subject", "-nameopt", "RFC2253"
    )
    name = "/" if enclave == "." else f"/{enclave}"
    assert subject.strip() == f"subject=CN={name}"
    ours = openssl("pkey", "-in", folder / "key.pem", "-pubout")
    assert ours == openssl("x509", "-in", folder / "cert.pem", "-noout", "-pubkey")


def test_what_was_changed_after_signing_is_refused(store: Path) -> None:
    folder = store / "enclaves/follower/driver"
    signed = folder / "permissions.p7s"
    signed.write_text(signed.read_text().replace("rt/follower/joint_states", "rt/follower/other"))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("smime", "-verify", "-text", "-in", signed, "-CAfile",
                folder / "permissions_ca.cert.pem")  # fmt: skip


def test_the_keystore_of_another_signed_nothing_here(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_keystore(other, 7, {"/follower/driver": DRIVER})
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", "-CAfile", other / "public/ca.cert.pem",
                store / "enclaves/follower/driver/cert.pem")  # fmt: skip


def test_permissions_are_built_as_the_schema_says(store: Path) -> None:
    root = ElementTree.parse(store / "enclaves/follower/driver/permissions.xml").getroot()
    for element in root.iter():
        if element.tag in ORDER:
            assert [child.tag for child in element] == ORDER[element.tag], element.tag
        elif element.tag == "topics":
            assert {child.tag for child in element} == {"topic"}
        else:
            assert len(element) == 0
    assert root.findtext(".//id") == "7"
    assert root.findtext(".//default") == "DENY"
    assert root.findtext(".//subject_name") == "CN=/follower/driver"
    assert not any("*" in str(each.text) for each in root.iter("topic"))


def test_governance_lets_no_stranger_in(store: Path) -> None:
    root = ElementTree.parse(store / "enclaves/governance.xml").getroot()
    said = {element.tag: element.text for element in root.iter() if not len(element)}
    assert said["allow_unauthenticated_participants"] == "false"
    assert said["enable_join_access_control"] == "true"
    assert {text for tag, text in said.items() if tag.endswith("_kind")} == {"ENCRYPT"}
    assert {text for tag, text in said.items() if tag.startswith("enable_")} == {"true"}


def test_private_keys_are_ones_own(store: Path) -> None:
    keys = [path for path in store.rglob("*key.pem") if not path.is_symlink()]
    assert len(keys) == 3
    for path in keys:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_keystore_is_added_to_and_keeps_its_keys(store: Path) -> None:
    certificate = (store / "enclaves/follower/driver/cert.pem").read_bytes()
    more = Uses(publishes=frozenset({"/follower/guard_status"}))
    write_keystore(store, 7, {"/follower/driver": more})
    allowed = Permissions.read(store / "enclaves/follower/driver/permissions.xml")
    assert allowed == Permissions.of(DRIVER | more)
    assert (store / "enclaves/follower/driver/cert.pem").read_bytes() == certificate


def test_other_domains_and_other_folders_are_left_alone(store: Path, tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="not for ROS domain 8"):
        Keystore(store, 8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(KeystoreError, match="no keystore"):
        Keystore(tmp_path / "mine", 7)


def test_nodes_of_the_graph_have_their_own_enclave_and_others_share_one() -> None:
    run, tool = Uses(publishes=frozenset({"/a"})), Uses(subscribes=frozenset({"/b"}))
    found = by_enclave(
        {"/follower/driver": DRIVER, "/run_1": run, "/tool": tool}, ["/follower/driver"]
    )
    assert found == {"/follower/driver": DRIVER, "/": run | tool}


@pytest.mark.parametrize(("value", "is_told"), [("true", True), ("false", False), ("", False)])
def test_a_secured_graph_tells_each_process_its_enclave(
    monkeypatch: pytest.MonkeyPatch, value: str, is_told: bool
) -> None:
    monkeypatch.setenv("ROS_SECURITY_ENABLE", value)
    words = ros_arguments(NodeSpec("koch_driver", "follower", "driver", "/follower"), None)
    assert ("--enclave" in words) == is_told
    if is_told:
        assert words[words.index("--enclave") + 1] == "/follower/driver"


@pytest.mark.ros
def test_a_node_without_its_enclave_is_refused_under_enforce(store: Path) -> None:
    """Fast DDS with security finds no enclave of that name; that of the wheels has none at all."""
    pytest.importorskip("rclpy")
    security = {
        "ROS_SECURITY_KEYSTORE": str(store), "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce", "ROS_DOMAIN_ID": "7",
    }  # fmt: skip
    code = "import rclpy, sys; rclpy.init(args=sys.argv); rclpy.create_node('a')"
    words = [sys.executable, "-c", code, "--ros-args", "--enclave"]
    for enclave, told in (("/nobody", "/nobody"), ("/follower/driver", "security libraries")):
        done = subprocess.run(
            [*words, enclave], env={**os.environ, **security}, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        has_plugins = enclave != "/nobody" and done.returncode == 0
        assert has_plugins or told in done.stderr, done.stderr
