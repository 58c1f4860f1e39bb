"""Every test runs with the shapes in alphabar's signatures checked by beartype."""

from jaxtyping import install_import_hook

install_import_hook("alphabar", "typecheck.check")
