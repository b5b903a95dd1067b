"""The meta-gradient by the adjoint of the inner loop: first and second derivatives written out, all tasks at once."""
