"""Pure kernels: no client, no clock, no environment, no logging. Shells bring those in."""
