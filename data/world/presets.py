"""The named worlds: the small one of the demo and the tests, and the large one of comparisons.

The constants of the large world were calibrated on data.world.targets with the statistics of its log, with BM25 and
with a plain tower trained by NCE on its clicks. They were frozen before any other system was trained on it.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Literal

from data.world.constants import WorldConstants

Preset = Literal["small", "large"]
FLAG = "--world"

PRESETS: Mapping[str, WorldConstants] = {
    "small": WorldConstants(),
    "large": WorldConstants(
        documents=60_000,
        queries=40_000,
        users=9_000,
        days=4,
        topics=72,
        entities_per_topic=5,
        entity_query_share=0.62,
        vocabulary_gap=0.8,
        synonym_loyalty=0.9,
        poor_quality=-0.9,
        new_words_weight=0.5,
        reformulation_median_seconds=67.0,
        reformulation_spread=1.07,
        recall_depth=40,
        popular_depth=100,
        similar_items_depth=40,
        clicked_words_depth=10,
        category_depth=60,
        initial_clicks=150_000,
        prerank_depth=60,
        retriever_dimensions=48,
        affinity_weight=0.55,
        prerank_lexical_weight=0.15,
        prerank_semantic_weight=0.35,
        prerank_popularity_weight=0.25,
        rank_lexical_weight=0.15,
        rank_semantic_weight=0.35,
        rank_popularity_weight=0.25,
        prerank_noise=0.22,
        rank_noise=0.28,
        click_noise=0.16,
        click_ceiling=0.75,
        position_exponent=1.1,
        judged_query_share=0.1,
        knowledge_query_share=0.3,
    ),
}


def named_by(arguments: Sequence[str]) -> WorldConstants:
    """Returns the constants of the world that a command line names, those of the small one where it names none.

    A name that is unknown is left to the parser of the whole command line, which refuses it.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(FLAG, default="small", nargs="?")
    name = parser.parse_known_args(list(arguments))[0].world
    return PRESETS.get(name, PRESETS["small"])
