"""Training sets in processes of their own, so that what they cost is not paid by online lookups.

    worker (client.py) --order, descriptors--> zygote (zygote.py) --fork--> child (work.py)
       ^                                                                      |
       +------------------- chunks of the answer, in messages ----------------+

A worker reads a body into memory that has a descriptor (`spool.py`), takes one of the few places (`places.py`) and
sends an order with the descriptors of body, registry, place and answer socket to its zygote. That is a process with
one thread that has Feast loaded; it forks a child for each order. The child parses the body, retrieves, encodes, and
writes the answer into its socket, from which the worker passes it on.

Nothing has to be told when something ends: whoever dies closes its descriptors. A worker that closes its end of the
answer socket (its client has gone, or it was killed) makes the zygote kill the child; the place is a file lock whose
descriptor the child holds, so it is free when the child is gone, however it went; and a zygote whose worker is gone
kills its children and ends.
"""
