# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""SROS 2 keystores: who is who, and which names each may use, as `ros2 security` lays them out.

    public/, private/                   the authority that signs
    enclaves/governance.{xml,p7s}       all traffic is encrypted and checked
    enclaves/NAME/{cert,key}.pem        who a process is
    enclaves/NAME/permissions.{xml,p7s} what it may publish and subscribe to

A node's process is in the enclave of its name. Whatever else takes part (`koch run`, the console,
`ros2 topic`) is in the enclave `/`.

Source: OMG DDS Security 1.1, 9.4.1 (governance and permissions); ROS 2 design, "Topic and Service
name mapping to DDS" (prefixes rt, rq, rr). openssl does the cryptography.
"""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from koch_core.errors import KochError

VALID_DAYS = 3650
#: Every participant tells by it which nodes it holds.
DISCOVERY = "ros_discovery_info"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_SCHEMA = "http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_{}.xsd"


class KeystoreError(KochError):
    """A keystore cannot be made, or is none."""


@dataclass(frozen=True)
class Uses:
    """The names that a node uses, all absolute. Actions are topics and services of theirs."""

    publishes: frozenset[str] = frozenset()
    subscribes: frozenset[str] = frozenset()
    serves: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        """What either uses."""
        return Uses(
            self.publishes | other.publishes,
            self.subscribes | other.subscribes,
            self.serves | other.serves,
            self.calls | other.calls,
        )


@dataclass(frozen=True)
class Permissions:
    """DDS topics that an enclave may use."""

    publish: frozenset[str]
    subscribe: frozenset[str]

    @classmethod
    def of(cls, uses: Uses) -> Permissions:
        """What a process needs for these names, and nothing else."""
        requests = {f"rq{name}Request" for name in uses.calls}
        replies = {f"rr{name}Reply" for name in uses.calls}
        asked = {f"rq{name}Request" for name in uses.serves}
        answered = {f"rr{name}Reply" for name in uses.serves}
        return cls(
            frozenset(
                {DISCOVERY, *(f"rt{name}" for name in uses.publishes)} | requests | answered
            ),
            frozenset({DISCOVERY, *(f"rt{name}" for name in uses.subscribes)} | replies | asked),
        )

    @classmethod
    def read(cls, path: Path) -> Permissions:
        """Read those of a keystore.

        Raises:
            KeystoreError: The file is no permissions.
        """
        try:
            root = ElementTree.fromstring(path.read_bytes())
        except (OSError, ElementTree.ParseError) as exc:
            raise KeystoreError(f"{path}: no permissions of SROS 2 ({exc}).") from exc

        def topics(kind: str) -> frozenset[str]:
            return frozenset(str(each.text) for each in root.iterfind(f".//{kind}/topics/topic"))

        return cls(topics("publish"), topics("subscribe"))

    def __or__(self, other: Permissions) -> Permissions:
        """What either may."""
        return Permissions(self.publish | other.publish, self.subscribe | other.subscribe)


def permissions_xml(
    enclave: str, permissions: Permissions, domain: int, begin: datetime.datetime
) -> bytes:
    """Write an enclave's permissions; what they do not name is denied."""
    root = _root("permissions")
    grant = _child(_child(root, "permissions"), "grant")
    grant.set("name", enclave)
    _child(grant, "subject_name", f"CN={enclave}")
    validity = _child(grant, "validity")
    end = begin + datetime.timedelta(days=VALID_DAYS)
    for name, moment in (("not_before", begin), ("not_after", end)):
        _child(validity, name, moment.strftime("%Y-%m-%dT%H:%M:%S"))
    rule = _child(grant, "allow_rule")
    _child(_child(rule, "domains"), "id", str(domain))
    for kind, names in (("publish", permissions.publish), ("subscribe", permissions.subscribe)):
        topics = _child(_child(rule, kind), "topics")
        for name in sorted(names):
            _child(topics, "topic", name)
    _child(grant, "default", "DENY")
    return _written(root)


def governance_xml(domain: int) -> bytes:
    """Write the domain's rules: known participants alone, everything encrypted and checked."""
    root = _root("governance")
    rule = _child(_child(root, "domain_access_rules"), "domain_rule")
    _child(_child(rule, "domains"), "id", str(domain))
    _child(rule, "allow_unauthenticated_participants", "false")
    _child(rule, "enable_join_access_control", "true")
    for kind in ("discovery", "liveliness", "rtps"):
        _child(rule, f"{kind}_protection_kind", "ENCRYPT")
    topic = _child(_child(rule, "topic_access_rules"), "topic_rule")
    _child(topic, "topic_expression", "*")
    for name in ("discovery_protection", "liveliness_protection", "read_access_control"):
        _child(topic, f"enable_{name}", "true")
    _child(topic, "enable_write_access_control", "true")
    _child(topic, "metadata_protection_kind", "ENCRYPT")
    _child(topic, "data_protection_kind", "ENCRYPT")
    return _written(root)


class Keystore:
    """A keystore on the disk; made where there is none.

    Args:
        folder: Where.
        domain: ROS domain that it is for.

    Raises:
        KeystoreError: openssl is missing, or the folder holds something else.
    """

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder, self._domain = folder, domain
        self._authority = folder / "public" / "ca.cert.pem", folder / "private" / "ca.key.pem"
        if shutil.which("openssl") is None:
            raise KeystoreError("openssl makes the keys and is missing: apt install openssl.")
        if folder.exists() and any(folder.iterdir()) and not self._authority[1].is_file():
            raise KeystoreError(f"{folder}: holds something that is no keystore. Name another.")
        for name in ("public", "enclaves", "private"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "private").chmod(0o700)
        if not self._authority[1].is_file():
            self._found()
        governance = governance_xml(domain)
        path = folder / "enclaves" / "governance.xml"
        if path.is_file() and path.read_bytes() != governance:
            raise KeystoreError(f"{folder}: is not for ROS domain {domain}. Name another folder.")
        self._sign(path, governance)

    def path(self, enclave: str) -> Path:
        """The folder of an enclave."""
        return self.folder / "enclaves" / enclave.strip("/")

    def allow(self, enclave: str, permissions: Permissions) -> Permissions:
        """Let an enclave do this beside what it may do already; makes its key where it has none.

        Returns:
            What it may do now.
        """
        folder = self.path(enclave)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("public/identity_ca.cert.pem", "public/permissions_ca.cert.pem"):
            _link(folder / Path(name).name, self.folder / name)
        if enclave.strip("/"):  # the folder of `/` is the one that holds it
            _link(folder / "governance.p7s", self.folder / "enclaves" / "governance.p7s")
        if not (folder / "cert.pem").is_file():
            self._identify(enclave, folder)
        path = folder / "permissions.xml"
        if path.is_file():
            permissions = permissions | Permissions.read(path)
        begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        self._sign(path, permissions_xml(enclave, permissions, self._domain, begin))
        return permissions

    def _found(self) -> None:
        """Make the authority; identities and permissions have the same, as `ros2 security`'s."""
        certificate, key = self._authority
        _make_key(key)
        with _configuration("sros2CA", "critical, CA:TRUE, pathlen:1") as words:
            days: list[str | Path] = ["-sha256", "-days", str(VALID_DAYS)]
            _openssl("req", "-x509", "-new", "-key", key, "-out", certificate, *days, *words)
        for kind in ("identity", "permissions"):
            _link(certificate.with_name(f"{kind}_ca.cert.pem"), certificate)
            _link(key.with_name(f"{kind}_ca.key.pem"), key)

    def _identify(self, enclave: str, folder: Path) -> None:
        certificate, key = self._authority
        _make_key(folder / "key.pem")
        with _configuration(enclave, "CA:FALSE") as words, tempfile.TemporaryDirectory() as work:
            request = Path(work) / "request.pem"
            _openssl("req", "-new", "-key", folder / "key.pem", "-out", request, *words)
            _openssl(
                "x509", "-req", "-in", request, "-out", folder / "cert.pem", "-sha256",
                "-CA", certificate, "-CAkey", key, "-days", str(VALID_DAYS),
                "-set_serial", f"0x{os.urandom(16).hex()}",
                "-extfile", words[1], "-extensions", "own",
            )  # fmt: skip

    def _sign(self, path: Path, content: bytes) -> None:
        """Write a file, and beside it the same signed, for S/MIME."""
        certificate, key = self._authority
        path.write_bytes(content)
        signed = path.with_suffix(".p7s")
        who: list[str | Path] = ["-signer", certificate, "-inkey", key, "-md", "sha256"]
        _openssl("smime", "-sign", "-text", "-in", path, "-out", signed, *who)


class _configuration:
    """openssl's configuration for one name, as words of its command line."""

    def __init__(self, name: str, constraints: str) -> None:
        self._text = (
            "[req]\nprompt = no\nstring_mask = utf8only\ndistinguished_name = who\n"
            f"x509_extensions = own\n[who]\nCN = {name}\n[own]\nbasicConstraints = {constraints}\n"
        )

    def __enter__(self) -> list[str]:
        self._folder = tempfile.TemporaryDirectory(prefix="koch_security_")
        path = Path(self._folder.name) / "openssl.cnf"
        path.write_text(self._text, encoding="utf-8")
        return ["-config", str(path)]

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def write_keystore(folder: Path, domain: int, uses: Mapping[str, Uses]) -> dict[str, Permissions]:
    """Make a keystore, or add to one, for processes that use these names, by enclave."""
    keystore = Keystore(folder, domain)
    return {name: keystore.allow(name, Permissions.of(each)) for name, each in uses.items()}


def by_enclave(found: Mapping[str, Uses], own: Iterable[str]) -> dict[str, Uses]:
    """Sort what nodes use by enclave: those of the graph have their own, others share `/`."""
    own = set(own)
    result: dict[str, Uses] = {}
    for name, uses in found.items():
        enclave = name if name in own else "/"
        result[enclave] = result.get(enclave, Uses()) | uses
    return result


def _make_key(path: Path) -> None:
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    path.touch(mode=0o600)
    _openssl("genpkey", *curve, "-out", path)
    path.chmod(0o600)


def _openssl(*words: str | Path) -> None:
    command = ["openssl", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise KeystoreError(f"{' '.join(command)}: {done.stderr.strip()}")


def _link(path: Path, target: Path) -> None:
    if not path.is_symlink():
        path.symlink_to(os.path.relpath(target, path.parent))


def _root(kind: str) -> ElementTree.Element:
    ElementTree.register_namespace("xsi", _XSI)
    schema = {f"{{{_XSI}}}noNamespaceSchemaLocation": _SCHEMA.format(kind)}
    return ElementTree.Element("dds", schema)


def _child(parent: ElementTree.Element, name: str, text: str = "") -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name)
    child.text = text or None
    return child


def _written(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return written + b"\n"
