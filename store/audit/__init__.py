"""Served vectors: logged beside the lookups, and audited against what training sees.

`queue` takes what lookups answered, `forms` makes columns of it, `writer` files of those; `log` reads them again,
`recompute` asks the offline store, `audit` compares.
"""
