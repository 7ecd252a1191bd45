"""Run by .venv-peers' python: encodes texts with sentence-transformers, and takes token states from transformers.

It answers one request after the other, since loading torch and sentence-transformers takes longer than an answer. Each
line of the standard input is a JSON object: {"folder", "texts", "dim", "output"}; dim: so many leading components, or
null. The file `output` (npz) then holds encode, query, document (the three ways to encode), missing (tensors that the
folder lacks), and, unless it is a Router, states_0, states_1, ... [tokens, width] and tokens_0, ... of each text. The
name of the file, alone in a line of the standard output, says that it is written.
"""

import json
import sys

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel


def answer(request: dict) -> None:
    texts = request["texts"]
    model = SentenceTransformer(request["folder"], device="cpu", local_files_only=True)
    shortened = {"truncate_dim": request["dim"], "normalize_embeddings": True} if request["dim"] else {}
    found = {
        "encode": model.encode(texts, **shortened),
        "query": model.encode_query(texts, **shortened),
        "document": model.encode_document(texts, **shortened),
    }
    if hasattr(model[0], "auto_model"):
        transformer, report = AutoModel.from_pretrained(request["folder"], output_loading_info=True)
        transformer.eval()
        found["missing"] = np.asarray(sorted(report["missing_keys"]), dtype="U")
        for i, text in enumerate(texts):
            tokens = model.tokenizer(text, truncation=True, max_length=model.max_seq_length, return_tensors="pt")
            with torch.no_grad():
                states = transformer(**tokens).last_hidden_state[0]
            found |= {f"states_{i}": states.numpy(), f"tokens_{i}": tokens["input_ids"][0].numpy()}
    np.savez(request["output"], **found)


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        answer(request)
        print(request["output"], flush=True)
