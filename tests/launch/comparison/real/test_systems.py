"""The systems of a real data set, and their configurations."""

import pytest

from crops_jax.errors import InputError
from launch.comparison.cells import cells_of
from launch.comparison.real.configurations import base_config, documents_to_present, real_config
from launch.comparison.real.settings import REAL_SETS
from launch.comparison.real.systems import PEER, real_catalogue, real_systems
from launch.comparison.systems import chosen_systems

every_set = pytest.mark.parametrize("settings", REAL_SETS.values(), ids=REAL_SETS)
NAMES = ["bm25", "bm25_anserini", "untrained", "nce", "sentence_transformers", "graded", "fusion", "reranked"]


def cells(settings, *, seeds=1):
    systems = real_systems(settings)
    return {cell.name: cell for cell in cells_of(list(systems.values()), seeds=seeds, among=systems)}


def configured(settings, name, *, pairs=1000, steps=0, factor=1.0):
    documents = documents_to_present(settings, pairs=pairs, steps=steps)
    return real_config(cells(settings)[name], base_config(settings, "folder"), documents=documents, factor=factor)


@every_set
def test_every_set_has_the_same_systems(settings):
    catalogue = real_catalogue(settings)
    assert list(catalogue.systems) == NAMES
    assert catalogue.reference in catalogue.systems
    assert catalogue.meanings
    with pytest.raises(InputError, match="name some of bm25, bm25_anserini"):
        chosen_systems("crops", among=catalogue.systems)


@every_set
def test_one_training_serves_what_ranks_its_results_and_systems_without_training_have_one_cell(settings):
    found = cells(settings, seeds=2)
    trained = {name: cell.trained.name for name, cell in found.items()}
    assert trained["bm25-none-0"] == trained["bm25_anserini-none-0"] == "untrained-none-0"
    assert trained["fusion-transformer-1"] == trained["reranked-transformer-1"] == "graded-transformer-1"
    assert "untrained-none-1" not in found
    for cell in found.values():
        assert cell.trained.system.labels == cell.system.labels


@every_set
def test_sentence_transformers_learns_from_the_labels_of_nce(settings):
    systems = real_systems(settings)
    assert systems[PEER].labels == systems["nce"].labels != systems["graded"].labels


@every_set
def test_all_systems_read_the_same_tokens_and_the_same_number_of_documents(settings):
    limits, presented = set(), {}
    for name in cells(settings):
        config = configured(settings, name)
        limits.add((config.encoder.max_query_tokens, config.encoder.max_document_tokens))
        data = config.data
        presented[name] = config.training.steps * data.queries_per_batch * data.documents_per_query
    assert limits == {(settings.max_tokens, settings.max_tokens)}
    wanted = settings.epochs * 1000
    for name in ("nce-transformer-0", "graded-transformer-0"):
        batch = settings.batch if name.startswith("nce") else settings.graded_batch[0] * settings.graded_batch[1]
        assert wanted <= presented[name] < wanted + batch


def test_steps_are_those_of_the_systems_of_pairs():
    """10 steps of 64 pairs are 640 documents, which are 2 steps of 64 queries with 5 documents each."""
    settings = REAL_SETS["homedepot"]
    assert configured(settings, "nce-transformer-0", steps=10).training.steps == 10
    assert configured(settings, "graded-transformer-0", steps=10).training.steps == 2


def test_the_last_step_is_measured_and_the_factor_changes_the_learning_rate():
    config = configured(REAL_SETS["bestbuy"], "graded-transformer-0", factor=0.5)
    assert config.training.evaluate_every_steps == config.training.steps == 47  # 3000 / 64, rounded up
    assert config.optimizer.learning_rate == pytest.approx(2.5e-5)
    assert config.encoder.weights == "folder"


@pytest.mark.parametrize("name", ["untrained-none-0", "sentence_transformers-transformer-0"])
def test_weights_that_are_measured_as_they_are_do_not_change(name):
    config = configured(REAL_SETS["bestbuy"], name)
    assert (config.training.steps, config.training.evaluate_every_steps) == (1, 1)
    assert config.optimizer.learning_rate < 1e-20
    assert config.optimizer.weight_decay == 0
