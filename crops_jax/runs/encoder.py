"""Opens the encoder of a run or of a model folder."""

from pathlib import Path

from crops_jax import artifacts, pretrained
from crops_jax.config.stored import CONFIG, read_config
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import from_parameters
from crops_jax.runs import checkpoints


def open_encoder(run_or_folder: str | Path) -> Encoder:
    """Returns the encoder of a RUN (its best checkpoint), a model folder or a hub name (`pretrained.load_encoder`)."""
    path = Path(run_or_folder)
    if (path / artifacts.MANIFEST).is_file() and artifacts.read_manifest(path)["kind"] != "encoder":
        return _open_run(path)
    return pretrained.load_encoder(run_or_folder)


def _open_run(run: Path) -> Encoder:
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
    dims = (*config.loss.matryoshka_dims, config.encoder.width)
    return Encoder(model, config=config, tokenizer_folder=run / "tokenizer", trained_dims=dims)
