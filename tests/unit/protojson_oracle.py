#!/usr/bin/env python3
"""Writes tests/vectors/protojson.txt: messages as binary and as JSON by protobuf's own implementation.

Usage, from the root of the repository, with protoc and PyPI's `protobuf` installed:
    python3 tests/unit/protojson_oracle.py > tests/vectors/protojson.txt

The seed is fixed: the same version of protobuf gives the same file. Needed only when protojson_test.proto changes; the
ordinary test run reads the file. Each line is

    both <hex> <json>   canonical: the binary must be written as this JSON, and the JSON read as this binary
    read <hex> <json>   another spelling of the same message, to be read only
    maps <hex> <json>   as `both`, but maps have several entries, whose order in the binary is the encoder's own

with "-" for empty binary.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor as F

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20240607
RANDOM_MESSAGES = 150
STRINGS = ["a", "hello", 'quote " back \\ slash /', "tab\tline\nreturn\r", "\x01\x1f\x7f\b\f", "grüße", "日本語", "🎥📞",
           "\u2028\u2029", "v=0\r\no=- 46117 2 IN IP4 127.0.0.1\r\ns=-\r\n", "<b>&amp;</b>", "é" * 40, "\uffff\ufffd", "null"]
FLOATS = [1.0, -1.0, 0.1, 1.5e-45, 3.4028234663852886e38, -2.5, 16777216.0, 1e10, 1 / 3, float("inf"), -float("inf"),
          float("nan")]
DOUBLES = FLOATS + [5e-324, 1.7976931348623157e308, 1e21, 1e20, 123456789012345680.0, 9007199254740993.0, 0.30000000000000004]


def message_types():
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"--proto_path={HERE}", f"--descriptor_set_out={out.name}", "protojson_test.proto"],
                       check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("signalbox.test.Everything"))


def integer(rng, bits, signed):
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return rng.choice([low, high, 1, max(low, -1), rng.randint(low, high), rng.randint(0, 300), rng.randint(0, (1 << 31) - 1)])


def scalar(rng, field):
    t = field.type
    if t in (F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32):
        return integer(rng, 32, True)
    if t in (F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64):
        return integer(rng, 64, True)
    if t in (F.TYPE_UINT32, F.TYPE_FIXED32):
        return integer(rng, 32, False)
    if t in (F.TYPE_UINT64, F.TYPE_FIXED64):
        return integer(rng, 64, False)
    if t == F.TYPE_FLOAT:
        return rng.choice(FLOATS + [struct.unpack("f", struct.pack("f", rng.gauss(0, 1e3)))[0]])
    if t == F.TYPE_DOUBLE:
        return rng.choice(DOUBLES + [rng.gauss(0, 1e3), rng.random() * 10 ** rng.randint(-300, 300)])
    if t == F.TYPE_BOOL:
        return rng.random() < 0.5
    if t == F.TYPE_STRING:
        return rng.choice(STRINGS + ["", "x" * rng.randint(1, 60)])
    if t == F.TYPE_BYTES:
        return rng.randbytes(rng.choice([0, 1, 2, 3, 4, 5, 20]))
    if t == F.TYPE_ENUM:
        return rng.choice([0, 1, 7, -3, 99])
    raise ValueError(t)


def fill_map(rng, message, field, depth, entries=1):
    key, value = field.message_type.fields
    target = getattr(message, field.name)
    for _ in range(entries):
        k = scalar(rng, key)
        if value.type == F.TYPE_MESSAGE:
            fill(rng, target[k], depth + 1)
        else:
            target[k] = scalar(rng, value)


def fill(rng, message, depth):
    chosen = {o.name: rng.choice([None, *o.fields]) for o in message.DESCRIPTOR.oneofs}
    density = rng.choice([0.05, 0.2, 0.5]) / (depth + 1)
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof:
            if chosen[field.containing_oneof.name] is not field:
                continue
        elif rng.random() >= density:
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            fill_map(rng, message, field, depth)
        elif field.is_repeated:
            for _ in range(rng.randint(1, 4)):
                if field.message_type:
                    fill(rng, getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(scalar(rng, field))
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            if depth < 6:
                fill(rng, getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, scalar(rng, field))


def emit(kind, message, **options):
    binary = message.SerializeToString(deterministic=True).hex() or "-"
    value = json_format.MessageToDict(message, **options)
    # json.dumps() instead of MessageToJson(): one line, and NaN is a string already.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=(kind == "read"))
    print(kind, binary, text)


def main():
    everything = message_types()
    rng = random.Random(SEED)
    print("# Generated by tests/unit/protojson_oracle.py; do not edit.")
    emit("both", everything())
    for field in everything.DESCRIPTOR.fields:  # each field alone
        message = everything()
        if field.message_type and field.message_type.GetOptions().map_entry:
            fill_map(rng, message, field, 1)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(3):
                fill(rng, values.add(), 2) if field.message_type else values.append(scalar(rng, field))
        elif field.message_type:
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, scalar(rng, field))
        emit("both", message)
    for entries in range(2, 8):
        message = everything()
        for field in message.DESCRIPTOR.fields:
            if field.message_type and field.message_type.GetOptions().map_entry:
                fill_map(rng, message, field, 3, entries)
        emit("maps", message)
    for i in range(RANDOM_MESSAGES):
        message = everything()
        fill(rng, message, 0)
        emit("both", message)
        if i % 5 == 0:
            emit("read", message, preserving_proto_field_name=True)
            emit("read", message, use_integers_for_enums=True, always_print_fields_with_no_presence=True)


if __name__ == "__main__":
    sys.exit(main())
