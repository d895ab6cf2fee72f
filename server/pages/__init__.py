"""The web pages: made in a process of their own, so that no lookup waits for one.

`client.py` is the worker's side and all of this that a worker imports; `process.py` is the other, and `site.py` what it
does with one request. Templates and charts know no server: whoever has a catalogue can use them.
"""
