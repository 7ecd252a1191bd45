"""Opens the encoder of a run or of a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from crops_jax import artifacts, pretrained
from crops_jax.config.stored import CONFIG, read_config
from crops_jax.errors import InputError

if TYPE_CHECKING:  # Programs load this module before they read their arguments, and JAX only to open an encoder.
    from crops_jax.embeddings.encoder import Encoder
    from crops_jax.embeddings.poly_encoder import PolyEncoder


def open_encoder(run_or_folder: str | Path) -> "Encoder":
    """Returns the encoder of a RUN (its best checkpoint), a model folder or a hub name (`pretrained.load_encoder`).

    Raises InputError for the run of a Poly-encoder, whose queries have more than one vector.
    """
    path = Path(run_or_folder)
    if (path / artifacts.MANIFEST).is_file() and artifacts.read_manifest(path)["kind"] != "encoder":
        encoder = _open_run(path)
        if codes := encoder.config.encoder.query_codes:
            raise InputError(
                f"{path} is a Poly-encoder (encoder.query_codes {codes}), so a query has {codes} vectors, and this "
                f"needs one; let it rerank the documents of another run (launch.evaluate --rerank-by {path}), or train "
                "with --encoder.query-codes 0"
            )
        return encoder
    return pretrained.load_encoder(run_or_folder)


def open_poly_encoder(run: str | Path) -> "PolyEncoder":
    """Returns the Poly-encoder of a RUN (its best checkpoint). Raises InputError for anything else."""
    from crops_jax.embeddings.poly_encoder import PolyEncoder

    path = Path(run)
    if not (path / artifacts.MANIFEST).is_file():
        raise InputError(f"{path} is no run; give a run that launch.train trained with --encoder.query-codes 64")
    encoder = _open_run(path)
    if not isinstance(encoder, PolyEncoder):
        raise InputError(
            f"{path} is a dual encoder (encoder.query_codes 0); give a run that was trained with "
            "--encoder.query-codes 64, or another number of codes"
        )
    return encoder


def _open_run(run: Path) -> "Encoder":
    from crops_jax.embeddings.encoder import Encoder
    from crops_jax.embeddings.poly_encoder import PolyEncoder
    from crops_jax.models.dual_encoder import from_parameters
    from crops_jax.runs import checkpoints

    kind = artifacts.read_manifest(run)["kind"]
    if kind != "run":
        raise InputError(f"{run} holds {kind}, not a run of launch.train nor a model's folder; give one of these")
    config = read_config(run / CONFIG)
    parameters = checkpoints.restore_parameters(run, which="best")
    try:
        model = from_parameters(config, parameters)
    except ValueError as error:
        raise InputError(
            f"{run}: the checkpoint does not fit config.json ({error}); was one of them replaced?"
        ) from error
    dims = (*config.loss.matryoshka_dims, config.encoder.dim)
    opened = PolyEncoder if config.encoder.query_codes else Encoder
    return opened(model, config=config, tokenizer_folder=run / "tokenizer", trained_dims=dims)
