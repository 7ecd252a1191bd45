"""The measured figures of README.md and docs/: stored as JSON in benchmarks/results/, written into pages by a program.

Data flows one way: `outcomes` reads what a program printed or left in a directory, `results` keeps it with its
provenance, `quality` and `speed` turn stored results into Markdown tables, `comparisons` does so with the cells of
launch.compare in docs/results, `registry` gives each table its name, and `pages` writes the tables between their
markers. `python -m benchmarks.figures` runs all of it.
"""
