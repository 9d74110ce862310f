"""The official settings of a model, in HyperPyYAML: read into a recipe, and written from one.

`hyperyaml` reads such files as data, `structure` has the notation of what stands where, `form` says it of each family,
`recognition` knows these files from ours, `read` and `write` go from one to the other.
"""
