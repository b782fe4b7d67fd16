"""ArrayRecord files of tf.Example, read without TensorFlow, with bad records set aside.

The tf.Example message is declared here, field for field as in TensorFlow's `example.proto` and `feature.proto`, in a
descriptor pool of its own, so that it does not clash when TensorFlow is loaded in the same process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from omni_jax.errors import UserError

MAX_RECORD_BYTES = 8 << 20
JUDGED_BAD = 10  # a share is judged from so many bad records on, or when all have been read

Features = dict[str, list]


class DataError(UserError):
    """Data that cannot be read or used; the message names the source and the remedy."""


def _example_class() -> type:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    field_type = descriptor_pb2.FieldDescriptorProto

    def add(owner, name: str, number: int, kind: int, label: int, type_name: str | None = None) -> None:
        owner.field.add(name=name, number=number, type=kind, label=label, type_name=type_name)

    optional, repeated = field_type.LABEL_OPTIONAL, field_type.LABEL_REPEATED
    for name, kind in (("BytesList", "TYPE_BYTES"), ("FloatList", "TYPE_FLOAT"), ("Int64List", "TYPE_INT64")):
        add(file.message_type.add(name=name), "value", 1, getattr(field_type, kind), repeated)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), start=1):
        field_name = name.replace("List", "_list").lower()
        add(feature, field_name, number, field_type.TYPE_MESSAGE, optional, f".tensorflow.{name}")
        feature.field[-1].oneof_index = 0
    features = file.message_type.add(name="Features")
    add(features, "feature", 1, field_type.TYPE_MESSAGE, repeated, ".tensorflow.Features.FeatureEntry")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field_type.TYPE_STRING, optional)
    add(entry, "value", 2, field_type.TYPE_MESSAGE, optional, ".tensorflow.Feature")
    add(file.message_type.add(name="Example"), "features", 1, field_type.TYPE_MESSAGE, optional, ".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()


def parse_example(record: bytes) -> Features:
    """A serialised tf.Example as feature name -> list of bytes, float or int.

    Raises:
      DataError: not a tf.Example, or larger than MAX_RECORD_BYTES.
    """
    if len(record) > MAX_RECORD_BYTES:
        raise DataError(f"a record of {len(record)} bytes exceeds the limit of {MAX_RECORD_BYTES}: split it up")
    try:
        example = Example.FromString(record)
    except message.DecodeError as error:
        raise DataError(f"not a tf.Example: {error}") from error
    features = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = list(getattr(feature, kind).value) if kind else []
    return features


def field(features: Features, name: str, kind: type) -> bytes | int | str:
    """The one value of a scalar field; `str` is decoded from UTF-8 bytes."""
    values = features.get(name)
    if values is None or len(values) != 1:
        raise DataError(f"field {name!r} has {0 if values is None else len(values)} values, want 1")
    value = values[0]
    if kind is str and isinstance(value, bytes):
        return value.decode("utf-8")
    if not isinstance(value, kind):
        raise DataError(f"field {name!r} is {type(value).__name__}, want {kind.__name__}")
    return value


class Quarantine:
    """Counts bad records by source and cause, writes them down, and stops the run when there are too many.

    `path` gets one JSON object a bad record (source, key, cause, reason), also over several starts of a run; None
    keeps them in memory only. Of a source that is read bit by bit, set `total` to what it holds and add to `seen` what
    is read.
    """

    def __init__(self, max_bad_fraction: float, path: str | Path | None = None):
        self._max_bad_fraction = max_bad_fraction
        self._path = Path(path) if path is not None else None
        self._bad: dict[str, dict[str, tuple[str, str, int]]] = {}
        self._written: set[tuple[str, str]] | None = None
        self.seen: dict[str, int] = {}
        self.total: dict[str, int] = {}

    def add(self, source: str, key: str, reason: str, cause: str = "unreadable", records: int = 1) -> None:
        """`records`: how many are lost with it, where it is a shard. A key counts once, however often it is read."""
        bad = self._bad.setdefault(source, {})
        if key in bad:
            return
        bad[key] = (cause, reason, records)
        if self._path is not None and (source, key) not in self._on_file():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            entry = {"source": source, "key": key, "cause": cause, "reason": reason}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def take(self, other: Quarantine) -> None:
        """Adds what another one has seen and found bad."""
        for source, count in other.seen.items():
            self.seen[source] = self.seen.get(source, 0) + count
        for source, bad in other._bad.items():
            for key, (cause, reason, records) in bad.items():
                self.add(source, key, reason, cause, records)

    def counts(self, source: str) -> dict[str, int]:
        """Bad records by cause."""
        counts: dict[str, int] = {}
        for cause, _, records in self._bad.get(source, {}).values():
            counts[cause] = counts.get(cause, 0) + records
        return counts

    def check(self, source: str) -> None:
        """Raises DataError if more than the allowed share of the source's records are bad.

        At the default, 1 in 1,000, a source of a million stops at the 11th bad record among its first 10,000.
        """
        bad, seen = sum(self.counts(source).values()), self.seen.get(source, 0)
        total = self.total.get(source, seen)
        fraction = self._max_bad_fraction
        judged = max(min(seen, total), min(total, JUDGED_BAD / fraction)) if fraction else seen
        if bad > fraction * judged and fraction < 1.0:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.counts(source).items()))
            key, (_, reason, _) = next(iter(self._bad[source].items()))
            raise DataError(
                f"{source}: {bad} of {seen} records are bad (data.max_bad_fraction={fraction}; {causes}); the first is "
                f"{key}: {reason}. Mend or rebuild the source, or raise data.max_bad_fraction"
            )

    def _on_file(self) -> set[tuple[str, str]]:
        """What earlier starts have written."""
        if self._written is None:
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
            self._written = {place for place in map(_place, lines) if place is not None}
        return self._written


def _place(line: str) -> tuple[str, str] | None:
    """Source and key of a line; None for one that a killed run, or two at once, left in pieces."""
    try:
        entry = json.loads(line)
        return entry["source"], entry["key"]
    except (ValueError, KeyError, TypeError):
        return None


def split_files(directory: str | Path, split: str) -> list[str]:
    """The shards of one split in a TFDS directory, all of them or an error."""
    directory = Path(directory)
    paths = sorted(directory.glob(f"*-{split}.array_record-?????-of-?????"))
    if not paths:
        raise DataError(
            f"{directory}: no {split} split (*-{split}.array_record-*): build the corpus, or set data.corpus"
        )
    expected = int(paths[0].name.rsplit("-of-", 1)[1])
    if len(paths) != expected:
        raise DataError(f"{directory}: {len(paths)} of {expected} {split} shards are there: build the corpus again")
    return [str(path) for path in paths]


def read_examples(directory: str | Path, split: str, quarantine: Quarantine) -> Iterator[tuple[str, Features]]:
    """Yields (key, features) of every record of a split; unreadable ones go into quarantine.

    The caller adds what it finds wrong itself, and calls `quarantine.check` when it has seen them all.
    """
    for path in split_files(directory, split):
        try:
            records = ArrayRecordDataSource([path])
            count = len(records)
        except Exception as error:  # the reader raises bare RuntimeErrors of many kinds
            raise DataError(f"{path}: not an ArrayRecord file, or cut off ({error}): build the corpus again") from error
        quarantine.seen[str(directory)] = quarantine.seen.get(str(directory), 0) + count
        for index in range(count):
            try:
                features = parse_example(records[index])
            except Exception as error:
                quarantine.add(str(directory), f"{Path(path).name}[{index}]", str(error))
                continue
            yield f"{Path(path).name}[{index}]", features
