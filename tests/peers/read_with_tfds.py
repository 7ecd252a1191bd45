"""Reads a folder of records with tensorflow_datasets on TensorFlow and writes what it found to an .npz file.

Run by the interpreter of .venv-peers: read_with_tfds.py RECORDS OUTPUT.
"""

import sys

import numpy as np
import tensorflow_datasets as tfds

builder = tfds.builder_from_directory(sys.argv[1])
found = {}
for split, dataset in builder.as_dataset().items():
    for number, example in enumerate(dataset.as_numpy_iterator()):
        found |= {f"{split}/{number}/{name}": value for name, value in example.items()}
    found[f"{split}/num_examples"] = np.array(builder.info.splits[split].num_examples)
np.savez(sys.argv[2], **found)
