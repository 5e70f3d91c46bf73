"""Turns the parts of records that are kept as one value into msgpack and back. It knows neither tables nor SQL."""

from __future__ import annotations

import msgspec

from lanai.model.access import Origin
from lanai.model.batch import BatchSettings, Counts
from lanai.model.ids import NodeId, ShapeId
from lanai.model.records import Facts, Ranges
from lanai.model.request import Check
from lanai.model.resources import Capacity, Shape

pack = msgspec.msgpack.Encoder().encode
unpack_settings = msgspec.msgpack.Decoder(BatchSettings).decode
unpack_shape = msgspec.msgpack.Decoder(Shape).decode
unpack_runs = msgspec.msgpack.Decoder(tuple[tuple[int, ShapeId], ...]).decode
unpack_checks = msgspec.msgpack.Decoder(dict[int, tuple[Check, ...]]).decode
unpack_ranges = msgspec.msgpack.Decoder(Ranges).decode
unpack_counts = msgspec.msgpack.Decoder(Counts).decode
unpack_capacity = msgspec.msgpack.Decoder(Capacity).decode
unpack_features = msgspec.msgpack.Decoder(tuple[str, ...]).decode
unpack_nodes = msgspec.msgpack.Decoder(tuple[NodeId, ...]).decode
unpack_origin = msgspec.msgpack.Decoder(Origin).decode
unpack_facts = msgspec.msgpack.Decoder(Facts).decode
