"""Run by .venv-peers' python: makes a random BertForSequenceClassification with one output and scores pairs with it.

    python score_with_transformers.py REQUEST.json OUTPUT.npz

REQUEST: {"folder" (a tokenizer lies in it, the model is saved there), "sizes" (of BertConfig), "pairs"}.
OUTPUT: logits, and tokens_0, types_0, ... of each pair.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification


def main(request_file: str, output_file: str) -> None:
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_labels=1, **request["sizes"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1 if name.endswith("LayerNorm.weight") else 0, 0.25)
    model.save_pretrained(request["folder"])
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    found, logits = {}, []
    for i, (query, document) in enumerate(request["pairs"]):
        tokens = tokenizer(
            query, document, return_tensors="pt", return_token_type_ids=True, truncation="only_second", max_length=40
        )
        with torch.no_grad():
            logits.append(float(model(**tokens).logits[0, 0]))
        found |= {f"tokens_{i}": tokens["input_ids"][0].numpy(), f"types_{i}": tokens["token_type_ids"][0].numpy()}
    np.savez(output_file, logits=np.array(logits), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
