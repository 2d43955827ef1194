"""The arithmetic of the compiled backend, one operation a file; importing any of them needs numba.

Nothing here is compiled by being imported: `compile.py` compiles `render.py` with all it calls, or
loads it from the cache on disk.
"""
