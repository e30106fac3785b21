"""No module of the package imports itself by way of others, for types neither."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp


def test_imports_form_no_circle() -> None:
    graph = grimp.build_graph("gateway", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None
