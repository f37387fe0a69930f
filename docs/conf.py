"""The site. One command builds it, without a network: sphinx-build -W --keep-going -b html docs build/docs"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent / "src")]

import handgrad

project = "handgrad"
author = "the handgrad authors"
copyright = "the handgrad authors, Apache-2.0"  # noqa: A001 (the name that Sphinx reads)
version = release = handgrad.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # MathJax from the site itself
    "sphinx_copybutton",
    "punctuation",
    "code_host",
    "source_directive",
    "pages",
    "docstrings",
    "api_pages",
]
exclude_patterns = ["results/*.json", "notebooks/*.ipynb", "_*", "build"]
root_doc = "index"

# Pages: MyST Markdown, of which notebooks are executed at each build unless neither they nor their build have changed.
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True

# Reference: what docstrings and signatures say.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autosummary_generate = False  # api_pages writes the pages
add_module_names = False
maximum_signature_line_length = 70
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False
default_role = "code"
smartquotes = False  # "save" is a value to be typed
toc_object_entries = False

# Links into JAX's and optax's pages, from lists of the names that ours use: a build needs no network. With `-t online`,
# from their own lists.
OTHERS = {"jax": "https://docs.jax.dev/en/latest/", "optax": "https://optax.readthedocs.io/en/latest/"}
intersphinx_mapping = {
    name: (url, None if tags.has("online") else str(DOCS / "_inventories" / f"{name}.txt"))  # noqa: F821
    for name, url in OTHERS.items()
}

# Mathematics: MathJax's menu and speech would load further files. What is wider than the page scrolls in its own box.
myst_update_mathjax = False
mathjax3_config = {
    "options": {"enableMenu": False, "ignoreHtmlClass": "tex2jax_ignore", "processHtmlClass": "math"},
    "chtml": {"matchFontHeight": False, "mtextInheritFont": True},
}

html_theme = "furo"
html_title = "handgrad"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["handgrad.css"]
html_use_index = False  # the search has every name
html_domain_indices = False
html_show_sourcelink = False
html_copy_source = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    "source_repository": "https://github.com/handgrad/handgrad",
    "source_branch": "main",
    "source_directory": "docs/",
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """The lines of the code host that define what an entry of the reference documents."""
    import reference

    return reference.url_of(info["module"], info["fullname"]) if domain == "py" else None
