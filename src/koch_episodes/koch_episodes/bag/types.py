# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Deserialising messages of any type, by the definitions that the bag itself carries."""

from __future__ import annotations

from typing import Any

from koch_core.errors import DecodeError
from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.storage import Topic
from koch_episodes.errors import MessageTypeError


class TypeDecoder:
    """Turns CDR bytes into message objects with the fields of the ROS type."""

    def __init__(self) -> None:
        self._store: Any = None

    def add(self, topic: Topic) -> None:
        """Learn a topic's type: a standard one, as the bag defines it, or as it is installed.

        Raises:
            MessageTypeError: The type is none of these.
        """
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

        if self._store is None:
            self._store = get_typestore(Stores.LATEST)
        if topic.type in self._store.fielddefs:
            return
        if not topic.definition:  # sqlite3 bags before Iron have none
            topic, _ = Definitions().topic(topic.name, topic.type)
        if not topic.definition:
            raise MessageTypeError(
                topic.name,
                f"{topic.type}, neither defined in the bag nor installed",
                "a known type",
            )
        try:
            if topic.form == "ros2idl":
                found = get_types_from_idl(topic.definition)
            else:
                found = get_types_from_msg(topic.definition, topic.type)
            new = {k: v for k, v in found.items() if k not in self._store.fielddefs}
            self._store.register(new)
        except Exception as exc:  # rosbags raises parser errors of many classes
            raise MessageTypeError(
                topic.name, f"{topic.type} with an unreadable definition ({exc})", "a known type"
            ) from exc

    def decode(self, message_type: str, data: bytes) -> Any:
        """Deserialise one message of a type added before.

        Raises:
            DecodeError: The bytes do not fit the type.
        """
        try:
            return self._store.deserialize_cdr(data, message_type)
        except Exception as exc:  # rosbags' generated code raises whatever numpy or struct raise
            raise DecodeError(message_type, f"{type(exc).__name__}: {exc}") from exc
