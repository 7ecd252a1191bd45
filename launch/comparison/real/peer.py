"""The peer sentence-transformers, which trains the same weights on the same pairs in the environment .venv-peers."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from crops_jax.program.chain import Step
from launch.comparison.real.settings import RealSet

_ROOT = Path(__file__).parents[3]
_PYTHON = _ROOT / ".venv-peers" / "bin" / "python"
_SCRIPT = _ROOT / "benchmarks" / "train_sentence_transformers.py"
WEIGHTS = "sentence_transformers"
"""The folder of the peer's trained weights, in the folder of its cell."""


def peer_absence(*, python: Path = _PYTHON, script: Path = _SCRIPT) -> str:
    """Returns the reason why the peer cannot be trained on this machine; empty if it can."""
    if not script.exists():
        return f"{script.name} is not installed; call launch.compare in a checkout of the repository"
    if not python.exists():
        return "there is no .venv-peers; make peers makes it"
    found = subprocess.run([python, "-c", "import sentence_transformers"], capture_output=True, text=True)
    return "" if found.returncode == 0 else ".venv-peers has no sentence-transformers; make peers installs it"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The training of sentence-transformers, with all that its cells have in common."""

    settings: RealSet
    weights: str
    pairs: Path
    """The result of launch.comparison.real.pairs.write_pairs."""
    steps: int
    """The number of steps; 0: as many as the epochs take."""

    def settings_of(self, *, factor: float, seed: int) -> tuple[str, ...]:
        """Returns the arguments that decide the trained weights, without paths."""
        length = ("--steps", str(self.steps)) if self.steps else ("--epochs", f"{self.settings.epochs:g}")
        return (
            *length,
            *("--batch", str(self.settings.batch), "--max-tokens", str(self.settings.max_tokens)),
            *("--learning-rate", f"{self.settings.learning_rate * factor:g}", "--seed", str(seed)),
        )

    def step(self, name: str, output: Path, *, factor: float, seed: int) -> Step:
        """Returns the step that trains the weights OUTPUT."""
        paths = ("--weights", self.weights, "--pairs", str(self.pairs), "--output", str(output))
        arguments = (*self.settings_of(factor=factor, seed=seed), *paths)
        return Step(
            name=name,
            module="",
            launcher=(str(_PYTHON), str(_SCRIPT)),
            arguments=arguments,
            inputs=(self.pairs, Path(self.weights)),
            output=output,
            in_place=True,
        )
