"""The message tf.train.Example, declared here so that TFRecords need no TensorFlow.

The declaration lives in a descriptor pool of its own: a process that loads TensorFlow too keeps TensorFlow's.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tensorflow"


def _field(name: str, number: int, kind: Any, **options: Any) -> descriptor_pb2.FieldDescriptorProto:
    if isinstance(kind, str):
        options |= {"type_name": f".{_PACKAGE}.{kind}"}
        kind = _FIELD.TYPE_MESSAGE
    return _FIELD(name=name, number=number, type=kind, **{"label": _FIELD.LABEL_OPTIONAL, **options})


def _values(name: str, kind: int) -> descriptor_pb2.DescriptorProto:
    field = _field("value", 1, kind, label=_FIELD.LABEL_REPEATED)
    return descriptor_pb2.DescriptorProto(name=name, field=[field])


def _declaration() -> descriptor_pb2.FileDescriptorProto:
    message = descriptor_pb2.DescriptorProto
    feature = message(
        name="Feature",
        field=[
            _field("bytes_list", 1, "BytesList", oneof_index=0),
            _field("float_list", 2, "FloatList", oneof_index=0),
            _field("int64_list", 3, "Int64List", oneof_index=0),
        ],
        oneof_decl=[descriptor_pb2.OneofDescriptorProto(name="kind")],
    )
    entry = message(
        name="FeatureEntry",
        field=[_field("key", 1, _FIELD.TYPE_STRING), _field("value", 2, "Feature")],
        options=descriptor_pb2.MessageOptions(map_entry=True),
    )
    features = message(
        name="Features",
        field=[_field("feature", 1, "Features.FeatureEntry", label=_FIELD.LABEL_REPEATED)],
        nested_type=[entry],
    )
    return descriptor_pb2.FileDescriptorProto(
        name="crops_jax/tf_example.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            _values("BytesList", _FIELD.TYPE_BYTES),
            _values("FloatList", _FIELD.TYPE_FLOAT),
            _values("Int64List", _FIELD.TYPE_INT64),
            feature,
            features,
            message(name="Example", field=[_field("features", 1, "Features")]),
        ],
    )


def _message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_declaration().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


Example = _message_class()
"""Class of the message tf.train.Example."""
