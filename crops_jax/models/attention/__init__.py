"""Attention among the tokens of each text in packed rows: api decides which implementation runs."""
