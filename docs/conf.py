"""Sphinx configuration. Build with ``sphinx-build -W docs docs/_build``."""

from importlib.metadata import version as installed_version

project = "daskps"
copyright = "The daskps developers"
release = version = installed_version("daskps")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

# They have their outputs; a test executes them and compares.
nb_execution_mode = "off"

html_theme = "furo"
html_title = f"daskps {release}"
html_static_path = ["_static"]
html_css_files = ["daskps.css"]
html_theme_options = {
    "source_repository": "https://github.com/daskps/daskps/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# GitHub's own anchors are made by the page's program, which nobody runs here.
linkcheck_anchors = False

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# Examples are written as in the module that they are in.
doctest_global_setup = "import daskps\nfrom daskps import open_store"
