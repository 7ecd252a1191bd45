"""The baselines whose negatives are mined. They train on clicks, with one positive of each query in a batch.

CHANGES of a module are the sections that it changes, as in configs.baselines, and NEGATIVES says when the trainer of
its CONFIG mines. launch.compare chooses these steps as shares of its own number of steps. The records need all
documents (`data.write_records --all-documents`). Negatives by BM25 come from `launch.mine_negatives --ranked-by bm25
--replace-negatives --level 1`.
"""
