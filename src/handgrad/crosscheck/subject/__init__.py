"""The gradient under test, in whatever form it was written, as functions of flat lists of arrays."""
