"""The systems to compare with CroPS that need no other program: tiny_cpu with another loss or other documents.

CHANGES of a module are the sections that it changes, so that any configuration becomes the same baseline:
`CONFIG.replace(**CHANGES)`. The labels are the other half of a system; each module says which ones it is trained on.
"""
