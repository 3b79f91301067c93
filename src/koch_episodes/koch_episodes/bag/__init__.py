# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags: reading."""

from koch_episodes.bag.reader import Bag, find_bags, is_bag, open_bag
from koch_episodes.bag.storage import RawMessage, Topic

__all__ = ["Bag", "RawMessage", "Topic", "find_bags", "is_bag", "open_bag"]
