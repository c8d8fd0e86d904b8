"""Prints a compressed ExportProfilesServiceRequest, and checks what the protocol asks of its tables."""

import gzip
import sys

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2
from opentelemetry.proto.profiles.v1development import profiles_pb2

request = profiles_service_pb2.ExportProfilesServiceRequest()
request.ParseFromString(gzip.decompress(sys.stdin.buffer.read()))
tables = request.dictionary
text = tables.string_table

zeros = {
    "mapping_table": profiles_pb2.Mapping(),
    "location_table": profiles_pb2.Location(),
    "function_table": profiles_pb2.Function(),
    "link_table": profiles_pb2.Link(),
    "attribute_table": profiles_pb2.KeyValueAndUnit(),
    "stack_table": profiles_pb2.Stack(),
    "string_table": "",
}
for name, zero in zeros.items():
    entries = list(getattr(tables, name))
    assert entries[0] == zero, f"{name} does not begin with an empty entry"
    keys = [entry if isinstance(entry, str) else entry.SerializeToString() for entry in entries]
    assert len(set(keys)) == len(keys), f"{name} has an entry twice"


def value(of):
    return getattr(of, of.WhichOneof("value"))


def attributes(indices):
    entries = [tables.attribute_table[index] for index in indices]
    return " ".join(sorted(f"{text[entry.key_strindex]}={value(entry.value)}" for entry in entries))


def line(of):
    function = tables.function_table[of.function_index]
    file = text[function.filename_strindex]
    return text[function.name_strindex] + (f" {file}:{of.line}:{of.column}" if file else "")


def location(index):
    of = tables.location_table[index]
    module = text[tables.mapping_table[of.mapping_index].filename_strindex]
    kinds = [value(tables.attribute_table[index].value) for index in of.attribute_indices]
    place = [f"{module}@{of.address}"] if module else []
    return " ".join(place + kinds + [" < ".join(line(one) for one in reversed(of.lines))])


def kind(of):
    return f"{text[of.type_strindex]} {text[of.unit_strindex]}"


for resource in request.resource_profiles:
    print("resource", " ".join(sorted(f"{one.key}={value(one.value)}" for one in resource.resource.attributes)))
    for scope in resource.scope_profiles:
        print("scope", scope.scope.name, scope.scope.version)
        for profile in scope.profiles:
            print(
                f"profile {profile.profile_id.hex()} {kind(profile.sample_type)} period {kind(profile.period_type)} "
                f"{profile.period} at {profile.time_unix_nano} for {profile.duration_nano}"
            )
            for sample in profile.samples:
                stack = tables.stack_table[sample.stack_index].location_indices
                names = "; ".join(location(index) for index in reversed(stack))
                (weight,) = sample.values
                print(f"{attributes(sample.attribute_indices)} | {names} | {weight}")
