"""dataset_info.json and features.json of a folder of records, as tensorflow_datasets 4.9.10 writes them.

The statistics of a split hold what a reader needs to know before the first record, because tfds keeps such facts there:
the maximum number of rows of every feature (`maxNumValues`), and the token that closes every text.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.records.query_record import FEATURE_COLUMNS, SCORES

DATASET = "crops"
DATASET_INFO = "dataset_info.json"
FEATURES = "features.json"

_CLOSING_TOKEN = "closing_token"
_DESCRIPTION = "Training records of crops_jax: one query with its documents and graded labels."
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class SplitInfo:
    """The entry of one split in dataset_info.json.

    Attributes:
      shard_lengths: the number of records in each shard.
      data_bytes: the size in bytes of all records without their frames.
      greatest: for each feature the maximum number of rows in a record. It has the feature SCORES if the records do.
      last_tokens: the tokens that end texts; when there are more than two, at least two of them.
      closing_token: the token that ends every text; None when there is no such token.
    """

    def __init__(self) -> None:
        self.shard_lengths: list[int] = []
        self.data_bytes = 0
        self.greatest = dict.fromkeys(FEATURE_COLUMNS, 0)
        self.last_tokens: set[int | None] = set()

    @property
    def closing_token(self) -> int | None:
        return next(iter(self.last_tokens)) if len(self.last_tokens) == 1 else None

    @property
    def scored(self) -> bool:
        """Whether the records have the scores of the relevance discriminator."""
        return SCORES in self.greatest

    def add(self, values: dict[str, np.ndarray], data: bytes) -> None:
        """Adds one more record to the counts.

        Raises InputError if it has scores and earlier ones have not, or the reverse.
        """
        _check_alike(self.scored if self.data_bytes else SCORES in values, SCORES in values)
        self.data_bytes += len(data)
        for name, array in values.items():
            self.greatest[name] = max(self.greatest.get(name, 0), len(array))
        if len(self.last_tokens) < 2:
            counts = values["documents"][:, 3]
            self.last_tokens.update(values["document_tokens"][np.cumsum(counts)[counts > 0] - 1].tolist())
            self.last_tokens.add(int(values["query_tokens"][-1]) if values["query_tokens"].size else None)

    def merge(self, other: "SplitInfo") -> None:
        """Adds another part of the split to the counts, with its records and shards; see `add` for its errors."""
        _check_alike(self.scored if self.data_bytes else other.scored, other.scored)
        self.shard_lengths += other.shard_lengths
        self.data_bytes += other.data_bytes
        for name, number in other.greatest.items():
            self.greatest[name] = max(self.greatest.get(name, 0), number)
        self.last_tokens |= other.last_tokens

    def to_json(self, name: str) -> dict[str, Any]:
        """Returns the entry of dataset_info.json for a split with this name."""
        features: list[dict[str, Any]] = [
            {"name": feature, "numStats": {"commonStats": {"maxNumValues": str(number)} if number else {}}}
            for feature, number in self.greatest.items()
        ]
        if self.closing_token is not None:
            features.append(
                {"name": _CLOSING_TOKEN, "customStats": [{"name": _CLOSING_TOKEN, "num": float(self.closing_token)}]}
            )
        return {
            "filepathTemplate": _TEMPLATE,
            "name": name,
            "numBytes": str(self.data_bytes),
            "shardLengths": [str(length) for length in self.shard_lengths],
            "statistics": {"features": features, "name": name, "numExamples": str(sum(self.shard_lengths))},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SplitInfo":
        """Reads an entry that `to_json` returned.

        Raises KeyError, TypeError, ValueError or AttributeError for any other value.
        """
        info = cls()
        info.shard_lengths = [int(length) for length in value["shardLengths"]]
        info.data_bytes = int(value["numBytes"])
        features = {feature["name"]: feature for feature in value["statistics"]["features"]}
        for name in (*FEATURE_COLUMNS, *({SCORES} & features.keys())):
            info.greatest[name] = int(features[name]["numStats"]["commonStats"].get("maxNumValues", 0))
        if _CLOSING_TOKEN in features:
            info.last_tokens = {int(features[_CLOSING_TOKEN]["customStats"][0]["num"])}
        if value["filepathTemplate"] != _TEMPLATE or not info.shard_lengths or min(info.shard_lengths) < 1:
            raise ValueError("the shards have other names, or some are empty")
        numbers = [*info.shard_lengths, info.data_bytes, *info.greatest.values(), info.closing_token or 0]
        if min(numbers) < 0 or max(numbers) >= 2**63 or max(*info.greatest.values(), info.closing_token or 0) >= 2**31:
            raise ValueError("a number is out of its range")
        return info


def _check_alike(scored: bool, other: bool) -> None:
    if scored != other:
        raise InputError(f"either all records of a folder have {SCORES}, or none has; some have and others have not")


def shard_names(split: str, shards: int) -> list[str]:
    """Returns the file names of a split's shards, as tfds names them."""
    return [f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{shards:05d}" for shard in range(shards)]


def write_dataset_info(path: Path, splits: dict[str, SplitInfo]) -> None:
    """Writes dataset_info.json and features.json of a folder of records with these splits.

    Raises InputError if the records of one split have scores and those of another one have not.
    """
    scored = {info.scored for info in splits.values()}
    _check_alike(min(scored), max(scored))
    content = {
        "description": _DESCRIPTION,
        "fileFormat": "tfrecord",
        "moduleName": "crops_jax.records",
        "name": DATASET,
        "splits": [info.to_json(name) for name, info in splits.items()],
        "version": "1.0.0",
    }
    artifacts.write_text(path / FEATURES, json.dumps(features_json(scored=max(scored)), indent=4, sort_keys=True))
    artifacts.write_text(path / DATASET_INFO, json.dumps(content, indent=2, sort_keys=True))


def read_dataset_info(path: Path) -> dict[str, SplitInfo]:
    """Returns the splits of a folder of records. Raises InputError when dataset_info.json is missing or damaged."""
    file = path / DATASET_INFO
    if not file.is_file():
        raise InputError(f"{file}: no such file, so {path} holds no training records; data.write_records writes them")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["name"] != DATASET or content["fileFormat"] != "tfrecord":
            raise ValueError(f"it describes {content['name']} in {content['fileFormat']}")
        return {split["name"]: SplitInfo.from_json(split) for split in content["splits"]}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{file}: not the dataset_info.json of training records ({type(error).__name__}: {error}); "
            "write the records again"
        ) from error


def features_json(*, scored: bool) -> dict[str, Any]:
    """Returns the content of features.json as tensorflow_datasets writes it for records with or without scores."""
    package = "tensorflow_datasets.core.features"
    features = {
        name: {
            "pythonClassName": f"{package}.tensor_feature.Tensor",
            "tensor": {
                "dtype": "float32" if name == SCORES else "int32",
                "encoding": "bytes",
                "shape": {"dimensions": ["-1", str(columns)] if columns > 1 else ["-1"]},
            },
        }
        for name, columns in {**FEATURE_COLUMNS, **({SCORES: 1} if scored else {})}.items()
    }
    return {
        "featuresDict": {"features": features},
        "pythonClassName": f"{package}.features_dict.FeaturesDict",
    }
