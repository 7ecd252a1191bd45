"""Runs one cell of the comparison on real data."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crops_jax import artifacts
from crops_jax.config import Config
from crops_jax.config.module import changes_of_defaults
from crops_jax.program.chain import Chain, Step
from launch.comparison.cells import Cell, claim_run
from launch.comparison.measures import as_metrics
from launch.comparison.real.configurations import documents_to_present, real_config
from launch.comparison.real.measures import real_values
from launch.comparison.real.peer import WEIGHTS, Peer
from launch.comparison.real.settings import RealSet
from launch.comparison.real.shared import RealShared
from launch.comparison.real.systems import PEER
from launch.comparison.results.files import Measured
from launch.comparison.running import CellRunner


@dataclass(frozen=True, kw_only=True)
class RealRunner(CellRunner):
    """All that the cells of a real data set have in common."""

    shared: RealShared
    settings: RealSet

    @property
    def common_inputs(self) -> dict[str, Any]:
        settings = json.dumps(asdict(self.settings), sort_keys=True)
        return super().common_inputs | {
            "weights": artifacts.fingerprint(self.arguments.weights),
            "real": hashlib.sha256(settings.encode()).hexdigest(),
        }

    @property
    def _steps_of_cell(self) -> int:
        return 3

    @property
    def _peer(self) -> Peer:
        return Peer(
            settings=self.settings,
            weights=self.arguments.weights,
            pairs=self.shared.pairs,
            steps=self.budget.steps,
        )

    def _config(self, cell: Cell, factor: float) -> Config:
        documents = documents_to_present(self.settings, pairs=self.shared.number_of_pairs, steps=self.budget.steps)
        config = real_config(cell, self.configs[cell.architecture], documents=documents, factor=factor)
        if cell.system.name != PEER:
            return config
        return config.replace(encoder={"weights": str(self._folder(cell, factor) / WEIGHTS)})

    def _settings(self, cell: Cell, factor: float) -> str:
        # The weights are in the common inputs by their content, so that a result has no path of this machine.
        return changes_of_defaults(self._config(cell, factor).replace(encoder={"weights": ""}))

    def _run_inputs(self, cell: Cell, factor: float) -> dict[str, Any]:
        inputs = super()._run_inputs(cell, factor) | {"labels": cell.system.labels.name}
        if cell.system.name != PEER:
            return inputs
        described = json.dumps(self._peer.settings_of(factor=factor, seed=cell.seed))
        return inputs | {"peer": hashlib.sha256(described.encode()).hexdigest()}

    def _fingerprints(self, cell: Cell) -> dict[str, str]:
        pairs = {"pairs": artifacts.fingerprint(self.shared.pairs)} if cell.system.name == PEER else {}
        return super()._fingerprints(cell) | pairs

    def _train(self, cell: Cell, factor: float) -> tuple[Path, Chain, dict[str, Any]]:
        """Trains the encoder of a cell. For the peer, sentence-transformers has trained the weights before."""
        if cell.system.name == PEER:
            folder = self._folder(cell, factor)
            claim_run(folder, self._claimed(cell, factor))
            chain = Chain(folder, total=1, compilation_cache=self.compilation_cache)
            name = f"train {cell.name} with sentence-transformers"
            chain.run(self._peer.step(name, folder / WEIGHTS, factor=factor, seed=cell.seed))
        return super()._train(cell, factor)

    def _evaluate(
        self, cell: Cell, chain: Chain, run: Path, evaluation: Path, *, retriever: Path | None = None
    ) -> None:
        """Embeds the documents once for all cells that measure a run, and evaluates the cell."""
        embeddings = run.with_name("embeddings")
        step = Step(
            name=f"embed {cell.trained.name}",
            module="launch.embed",
            arguments=("--run", str(run), "--texts", str(self.shared.split), "--tower", "document")
            + ("--output", str(embeddings)),
            inputs=(run, self.shared.split),
            output=embeddings,
            in_place=True,
        )
        chain.run(step)
        super()._evaluate(cell, chain, run, evaluation, retriever=retriever)

    def _evaluation_flags(self, cell: Cell, run: Path) -> tuple[str, ...]:
        reranker = self.shared.reranker if cell.system.ranked_by == "reranked" else ""
        further = ("--reranker", reranker) if reranker else ()
        return ("--document-embeddings", str(run.with_name("embeddings")), *further)

    def _metrics(self, evaluation: Path, *, ranked_by: str) -> dict[str, Measured]:
        return as_metrics(real_values(evaluation, ranked_by=ranked_by), with_values=self.settings.metrics)
