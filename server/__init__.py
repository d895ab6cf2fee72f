"""The HTTP side of Larder: a stack of guards around thin handlers that each make one store call."""
