# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Arrow tables of a LeRobot dataset: frames, tasks, episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.errors import DatasetFormatError, DatasetWriteError

Columns = Mapping[str, npt.NDArray[Any]]
LOCAL = LocalFileSystem()
"""Files are local; without being told, pyarrow takes 20 ms to find out that a path is no URL."""


def column_type(key: str, spec: FeatureSpec) -> pa.DataType:
    """Return the Arrow type of a numeric or string feature.

    Raises:
        DatasetWriteError: The feature has no axis; LeRobot's scalars have the shape (1,).
    """
    if spec.dtype == "string":
        return pa.string()
    kind = pa.from_numpy_dtype(np.dtype(spec.dtype))
    if not spec.shape:
        raise DatasetWriteError(f"feature {key}", "shape ()", "(1,) for a number")
    if spec.shape == (1,):
        return kind
    if len(spec.shape) == 1:
        return pa.list_(pa.field("element", kind), spec.shape[0])
    for _ in spec.shape:  # as the storage of `datasets.Array2D`, whose lists tell no length
        kind = pa.list_(kind)
    return kind


def frame_schema(features: Mapping[str, FeatureSpec]) -> pa.Schema:
    """Return the schema of the frame table: every feature that is not a video, in order."""
    return pa.schema(
        [(key, column_type(key, spec)) for key, spec in features.items() if not spec.is_image]
    )


def frame_table(features: Mapping[str, FeatureSpec], columns: Columns) -> pa.Table:
    """Build the rows of one episode.

    Args:
        features: All features of the dataset.
        columns: Feature key to values, shape (T,) or (T, *shape); strings as object arrays.

    Raises:
        DatasetWriteError: A column has the wrong shape, or holds NaN or infinity.
    """
    schema = frame_schema(features)
    arrays = []
    for field in schema:
        spec, values = features[field.name], np.asarray(columns[field.name])
        if spec.dtype == "string":
            arrays.append(pa.array(values.tolist(), pa.string()))
            continue
        fits = values.shape[1:] == spec.shape if len(spec.shape) > 1 else True
        if not fits or values.size != len(values) * math.prod(spec.shape):
            expected = f"(frames, {', '.join(map(str, spec.shape))})"
            raise DatasetWriteError(f"feature {field.name}", f"shape {values.shape}", expected)
        flat = np.ascontiguousarray(values, dtype=spec.dtype).reshape(-1)
        if flat.dtype.kind == "f" and not np.isfinite(flat).all():
            raise DatasetWriteError(f"feature {field.name}", "NaN or infinity", "finite numbers")
        arrays.append(_nested(pa.array(flat), spec.shape).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _nested(flat: pa.Array, shape: tuple[int, ...]) -> pa.Array:
    """Put the elements of all frames, one after the other, into one list for each frame."""
    if shape == (1,):
        return flat
    for size in reversed(shape):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def renumbered(rows: pa.Table, features: Mapping[str, FeatureSpec], columns: Columns) -> pa.Table:
    """Return another dataset's rows with some columns replaced, in the order of `features`.

    What else the rows hold keeps its type, and so do images inside the table. Of the schema's
    metadata what Hugging Face's `datasets` says of columns that are left out goes with them.
    """
    wanted = [key for key, spec in features.items() if not spec.is_video]
    arrays, fields = [], []
    for key in wanted:
        if key not in columns:
            arrays.append(rows[key].combine_chunks())
            fields.append(rows.schema.field(key))
            continue
        kind = column_type(key, features[key])
        values = np.ascontiguousarray(columns[key], dtype=features[key].dtype)
        arrays.append(pa.array(values).cast(kind))
        fields.append(pa.field(key, kind))
    metadata = dict(rows.schema.metadata or {})
    metadata.pop(b"pandas", None)
    if b"huggingface" in metadata:
        told = json.loads(metadata[b"huggingface"])
        known = told.get("info", {}).get("features", {})
        if set(wanted) <= set(known):
            told["info"]["features"] = {key: known[key] for key in wanted}
            metadata[b"huggingface"] = json.dumps(told).encode()
        else:
            del metadata[b"huggingface"]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=metadata or None))


def _pandas_metadata() -> bytes:
    """Say that the task text is the index; without it LeRobot reads row numbers as tasks."""

    def column(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    return json.dumps(
        {
            "index_columns": ["task"],
            "column_indexes": [
                {
                    "name": None,
                    "field_name": None,
                    "pandas_type": "unicode",
                    "numpy_type": "object",
                    "metadata": {"encoding": "UTF-8"},
                }
            ],
            "columns": [
                column("task_index", "int64", "int64"),
                column("task", "unicode", "object"),
            ],
            "creator": {"library": "pyarrow", "version": "21.0.0"},
            "pandas_version": "2.2.0",
        }
    ).encode()


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write tasks.parquet; the row number is the task index."""
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(list(tasks), pa.string()),
        }
    )
    write_parquet(path, table.replace_schema_metadata({b"pandas": _pandas_metadata()}))


def read_tasks(path: Path) -> list[str]:
    """Read tasks.parquet in task index order.

    Raises:
        DatasetFormatError: Unreadable, or the indices are not 0..n-1.
    """
    try:
        table = read_parquet(path)
    except (OSError, pa.ArrowException) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "a parquet file") from exc
    name = "task" if "task" in table.column_names else "__index_level_0__"
    if name not in table.column_names or "task_index" not in table.column_names:
        raise DatasetFormatError(path, f"columns {table.column_names}", "task and task_index")
    rows = dict(zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True))
    if sorted(rows) != list(range(len(rows))):
        raise DatasetFormatError(path, f"task_index {sorted(rows)}", f"0..{len(rows) - 1}")
    return [str(rows[index]) for index in range(len(rows))]


def _column(name: str, values: list[Any]) -> pa.Array:
    if name.startswith("stats/"):
        base: pa.DataType = pa.int64() if name.endswith("/count") else pa.float64()
        depth = np.ndim(values[0])
        for _ in range(depth):
            base = pa.list_(base)
        return pa.array([np.asarray(value).tolist() for value in values], base)
    if name == "tasks":
        return pa.array(values, pa.list_(pa.string()))
    if name == "outcome":
        return pa.array(values, pa.string())
    if name.endswith("_timestamp"):
        return pa.array(values, pa.float64())
    return pa.array(values, pa.int64())


def write_episodes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write an episode table; all rows have the same keys."""
    names = list(rows[0])
    arrays = [_column(name, [row[name] for row in rows]) for name in names]
    write_parquet(path, pa.Table.from_arrays(arrays, names=names))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table in one row group, by way of a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    rows = max(1, table.num_rows)
    pq.write_table(table, draft, compression="snappy", row_group_size=rows, filesystem=LOCAL)
    draft.replace(path)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, from one file.

    `pyarrow.parquet.read_table` reads many, and spends 50 ms on the means for it.

    Raises:
        OSError: It cannot be read.
        pa.ArrowException: It is no Parquet, or a column is not there.
    """
    with pq.ParquetFile(path) as file:
        if columns is None:
            return file.read()
        # A key selects the columns below it too: action takes action.extra along.
        return file.read(columns=list(columns)).select(list(columns))
