"""A discriminator, and a log that reaches over midnight."""

import copy
import dataclasses

import pytest

from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.discriminator.lexical_features import CorpusStatistics
from data.mining.relevance.theta import Fitted, Theta, save_theta
from tests.data.mining.mined_days.days import DOCUMENTS, OVER_MIDNIGHT


@pytest.fixture(scope="module")
def discriminator(tmp_path_factory):
    """One that knows red from blue, fitted apart from the logs that are mined."""
    texts = [document["title"] for document in DOCUMENTS]
    queries = [colour + " shoe" for colour in ("red", "blue") for _ in texts]
    targets = [float(text.startswith(query.split()[0])) for query, text in zip(queries, texts * 2, strict=True)]
    fitted = LexicalDiscriminator.fit(queries, texts * 2, targets, corpus=CorpusStatistics.from_texts(texts))
    about = Fitted(
        kind="lexical",
        source="hand-made",
        relevant_grade=None,
        pairs=len(queries),
        populations={"pool": len(queries), "feed": 0, "random": 0},
        ece_before=0.0,
        ece_after=0.0,
        calibrated_on="nothing",
        latest_time=None,
        unsplit_judgements=0,
    )
    folder = tmp_path_factory.mktemp("theta") / "discriminator"
    folder.mkdir()
    save_theta(Theta(fitted, dataclasses.asdict(about)), folder)
    return folder


@pytest.fixture
def over_midnight():
    return copy.deepcopy(OVER_MIDNIGHT)
