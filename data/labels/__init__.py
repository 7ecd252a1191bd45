"""The label table: levels assigned (HLA), written and read."""
