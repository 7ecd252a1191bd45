"""Attention among the tokens of each text in packed rows. The module api decides which implementation runs."""
