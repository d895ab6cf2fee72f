"""Materializations by the stock command's own call, beside Feast's and beside plain commands down one socket."""
