"""The simulated world: its truth, the behaviour of its users, and a search engine whose results are logged.

The modules build on each other: vocabulary -> lexicon -> documents, queries, users -> world; retrievers -> engine;
sessions, clicks, feed -> day. The modules judges and language_model read served days. The world serves to measure
mechanisms; a result that is true in it can be false elsewhere.
"""
