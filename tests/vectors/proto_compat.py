#!/usr/bin/env python3
"""Fails when a schema in proto/ breaks what was released.

    tests/vectors/proto_compat.py PROTOC            compares with proto_baseline.txt
    tests/vectors/proto_compat.py PROTOC --update   writes it anew, as part of a release; read the difference first

A line of the baseline is a message, a field number and what it means (oneof, name, label, type), an enum, a value and its
name, or a number that is reserved. Fields and values may be added, or removed if their numbers become `reserved`. Nothing
else may change: names are in JSON, and a new name for an old number is the usual sign of a new meaning.
"""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASELINE = pathlib.Path(__file__).with_name("proto_baseline.txt")
SCHEMAS = ["client.proto", "cluster.proto", "server.proto"]
TYPES = ("? double float int64 uint64 int32 fixed64 fixed32 bool string group message bytes uint32 enum sfixed32 "
         "sfixed64 sint32 sint64").split()
REPEATED = 3


def varint(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields_of(data):
    """A message's fields: number -> list of values (int or bytes). Numbers below are those of descriptor.proto."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = varint(data, at)
        assert tag & 7 in (0, 2), "descriptors hold numbers and strings of bytes alone"
        value, at = varint(data, at)
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def name_of(fields):
    return fields[1][0].decode()


def reserved(fields, number, inclusive):
    for entry in map(fields_of, fields.get(number, [])):
        yield from range(entry[1][0], entry[2][0] + inclusive)


def read_enum(enum, scope, facts):
    name = f"{scope}.{name_of(enum)}"
    facts[name] = {}
    for number in reserved(enum, 4, 1):
        facts[name][number] = "reserved"
    for value in map(fields_of, enum[2]):
        facts[name][value.get(2, [0])[0]] = name_of(value)


def read_message(message, scope, facts):
    name = f"{scope}.{name_of(message)}"
    oneofs = [name_of(fields_of(oneof)) for oneof in message.get(8, [])]
    facts[name] = {}
    for number in reserved(message, 9, 0):
        facts[name][number] = "reserved"
    for field in map(fields_of, message.get(2, [])):
        oneof = f"{oneofs[field[9][0]]}: " if 9 in field else ""
        label = "repeated " if field[4][0] == REPEATED else ""
        kind = field[6][0].decode().lstrip(".") if 6 in field else TYPES[field[5][0]]
        facts[name][field[3][0]] = f"{oneof}{name_of(field)} {label}{kind}"
    for nested in map(fields_of, message.get(3, [])):
        read_message(nested, name, facts)
    for enum in map(fields_of, message.get(4, [])):
        read_enum(enum, name, facts)


def read_schemas(protoc):
    """Message or enum -> {number: meaning}."""
    facts = {}
    with tempfile.NamedTemporaryFile() as out:
        command = [protoc, f"--proto_path={ROOT}", f"--descriptor_set_out={out.name}"]
        if subprocess.run(command + [f"{ROOT}/proto/{schema}" for schema in SCHEMAS]).returncode != 0:
            sys.exit("protoc refuses the schemas")
        for file in map(fields_of, fields_of(pathlib.Path(out.name).read_bytes())[1]):
            package = file[2][0].decode()
            for message in map(fields_of, file.get(4, [])):
                read_message(message, package, facts)
            for enum in map(fields_of, file.get(5, [])):
                read_enum(enum, package, facts)
    return facts


def problems_of(facts, baseline):
    # A type may go once the fields that carried it are reserved; the schemas would not compile before.
    carried = {meaning.split(" ")[-1] for _, _, meaning in baseline}
    for name, number, was in baseline:
        if name not in facts and name in carried:
            continue
        if (now := facts.get(name, {}).get(int(number), "neither used nor reserved")) not in (was, "reserved"):
            yield f"{name} {number}: was '{was}', is '{now}'"


def main():
    facts = read_schemas(sys.argv[1])
    if sys.argv[2:] == ["--update"]:
        lines = [f"{name} {number} {facts[name][number]}\n" for name in sorted(facts) for number in sorted(facts[name])]
        BASELINE.write_text("".join(lines))
        return
    problems = list(problems_of(facts, [line.split(" ", 2) for line in BASELINE.read_text().splitlines()]))
    if problems:
        sys.exit("\n".join(problems) + "\nWhat is released keeps its number, name and type, or its number becomes "
                 "`reserved`: CONTRIBUTING.md, \"A message\".")


main()
