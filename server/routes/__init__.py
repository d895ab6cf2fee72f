"""The handlers, by what they are for: each validates, makes one store call, and shapes the answer."""
