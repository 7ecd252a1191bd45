"""The towers of hashed IDs of the comparison in the large generated world. They read whole texts."""

from configs.generated_world import RECIPE
from configs.tiny_hashed import CONFIG as TINY

CONFIG = TINY.replace(encoder={"max_document_tokens": 48}, **RECIPE)
