"""Systems that are trained in phases, with negatives that are mined between them."""
