"""The label table: hierarchical label assignment (HLA) computes its levels, and it is written and read here."""
