"""The named worlds: the small one of the demo and the tests, and the large one of comparisons.

The constants of the large world were calibrated on data.world.targets with the statistics of its log and of BM25, and
frozen before any arm of a comparison was trained on it.
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
        queries=24_000,
        users=12_000,
        days=4,
        entities_per_topic=8,
        vocabulary_gap=0.7,
        synonym_loyalty=0.9,
        popular_depth=30,
        similar_items_depth=30,
        clicked_words_depth=40,
        category_depth=30,
        initial_clicks=150_000,
        recall_depth=30,
        prerank_depth=60,
        prerank_noise=0.15,
        rank_noise=0.15,
        affinity_weight=1.0,
        prerank_lexical_weight=0.2,
        prerank_semantic_weight=0.5,
        prerank_popularity_weight=0.3,
        rank_lexical_weight=0.2,
        rank_semantic_weight=0.5,
        rank_popularity_weight=0.3,
        click_noise=0.1,
        click_ceiling=0.6,
        position_exponent=1.1,
        reformulation_median_seconds=67.0,
        reformulation_spread=1.07,
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
