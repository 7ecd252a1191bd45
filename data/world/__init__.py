"""The simulated world: what is true in it, who asks what, and an engine that shows and logs.

vocabulary -> lexicon -> documents, queries, users -> world; retrievers -> engine; sessions, clicks, feed -> day;
judges and provider read a served log. It is for measuring mechanisms: nothing that holds in it need hold elsewhere.
"""
