"""Pages on Dask's own dashboard, and what is on those that it has.

Checked with dask and distributed 2025.4.0 and 2026.8.0, and bokeh 3.9. Bokeh is imported
only where the dashboard has imported it already. What is used:

``distributed.Scheduler.http_application.applications``, ``http_server``
    Applications of Tornado. The first ``bokeh.server.tornado.BokehTornado`` is the
    dashboard; ``individual-plots.json``, which JupyterLab's extension reads, lists the names
    in its ``applications``, which is the mapping itself.
``distributed.dashboard.core.BokehApplication(applications, server, prefix=,
template_variables=)``
    Makes another one.
``distributed.dashboard.scheduler.template_variables(scheduler)``
    The pages and plots in the dashboard's bar, in lists that all pages share.
``distributed.dashboard.components.scheduler.BOKEH_THEME``, ``env``
    How pages look; the template ``simple.html``.
``distributed.http.scheduler.info.Task.get(task)``, ``task.html``
    The page of a task, rendered with its key as "Task"; its table ends before
    ``<div id="dependencies-dependents"``. The route says where it is.
``distributed.Scheduler.performance_report(...)``
    Saves ``bokeh.models.Tabs`` by ``bokeh.plotting.save``, which it imports when it is
    called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tornado.ioloop import IOLoop

from daskps.dask_private.connections import add_operations
from daskps.lazy import loaded
from daskps.safety_net import fell_back

if TYPE_CHECKING:
    from distributed import Scheduler

_INFO = "distributed.http.scheduler.info"
_AFTER_TABLE = '<div id="dependencies-dependents"'


def has_dashboard(scheduler: Scheduler) -> bool:
    """Whether the scheduler shows Dask's dashboard."""
    return _dashboard(scheduler) is not None


def _dashboard(scheduler: Scheduler) -> Any:
    bokeh = loaded("bokeh.server.tornado")
    if bokeh is None:
        return None
    applications = getattr(scheduler, "http_application", None)
    found = getattr(applications, "applications", ())
    return next((app for app in found if isinstance(app, bokeh.BokehTornado)), None)


def add_pages(
    scheduler: Scheduler,
    pages: Mapping[str, Callable[[Any], None]],
    plots: Mapping[str, str],
) -> None:
    """Add pages to the dashboard of a scheduler that has one. Again: does nothing.

    Parameters
    ----------
    scheduler
        The scheduler.
    pages
        By path, such as ``"/name"``, what fills a ``bokeh.document.Document``. Those that
        begin with ``"/individual-"`` are listed for JupyterLab.
    plots
        The paths of those that the dashboard's bar lists among plots, and their names. The
        others that are not individual are in the bar.
    """
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    dashboard = _dashboard(scheduler)
    if dashboard is None or pages.keys() <= dashboard.applications.keys():
        return
    variables = template_variables(scheduler)
    ours = {path: functools.partial(_show, fill) for path, fill in pages.items()}
    bar = [path for path in pages if not path.startswith("/individual-")]
    variables["pages"] += [path.strip("/") for path in bar]
    variables["plots"] += [
        {"url": path.strip("/"), "name": name} for path, name in plots.items()
    ]
    variables["plots"].sort(key=lambda plot: plot["name"])
    application = BokehApplication(
        ours, scheduler, prefix=dashboard.prefix, template_variables=variables
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    dashboard.applications.update(application.applications)


def _show(
    fill: Callable[[Any], None], scheduler: Scheduler, extra: Any, doc: Any
) -> None:
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    fill(doc)
    doc.theme = BOKEH_THEME
    if len(doc.roots) and doc.roots[0].name == WHOLE_PAGE:
        doc.template = env.get_template("simple.html")
        doc.template_variables.update(extra)


#: The name of a document's root that is a page with the dashboard's bar.
WHOLE_PAGE = "daskps-page"


def add_to_task_pages(
    scheduler: Scheduler, describe: Callable[[Any], str | None]
) -> None:
    """Have the pages of tasks show something more.

    Parameters
    ----------
    scheduler
        The scheduler, whose pages may be switched off.
    describe
        Given the key of a task, gives HTML; None: nothing.
    """
    info = loaded(_INFO)
    path = None if info is None else _path_of(scheduler, info.Task)
    if info is None or path is None:
        return

    # Not known to mypy: the module is there only if Dask has imported it.
    class Task(info.Task):  # type: ignore[name-defined]
        def render_string(self, template_name: str, **kwargs: Any) -> Any:
            page = super().render_string(template_name, **kwargs)
            try:
                return _with_description(page, describe(kwargs["Task"]))
            except Exception as e:
                fell_back(e, "describe a task on its page")
                return page

    # What is added later comes before what the application was made with.
    scheduler.http_application.add_handlers(
        r".*", [(path, Task, {"dask_server": scheduler})]
    )


def _with_description(page: bytes, description: str | None) -> bytes:
    if description is None:
        return page
    marker = _AFTER_TABLE.encode()
    return page.replace(marker, description.encode() + marker, 1)


def _path_of(scheduler: Scheduler, handler: type) -> str | None:
    """The pattern of the addresses at which pages are."""
    application = getattr(scheduler, "http_application", None)
    rules = [] if application is None else application.wildcard_router.rules
    found = (rule for rule in rules if rule.target is handler)
    return next((rule.matcher.regex.pattern for rule in found), None)


#: Gives the tabs to add to the report that is made here.
_tabs: ContextVar[Callable[[], Sequence[Any]] | None] = ContextVar(
    "daskps_tabs", default=None
)


def add_to_reports(
    scheduler: Scheduler, tabs: Callable[[float], Sequence[Any]]
) -> None:
    """Add tabs to what ``distributed.performance_report`` makes.

    Parameters
    ----------
    scheduler
        The scheduler.
    tabs
        Given when the report begins (``time.time``), gives ``bokeh.models.TabPanel``.
    """
    plain = scheduler.performance_report

    @functools.wraps(plain)
    async def performance_report(**options: Any) -> Any:
        _hook_saving()
        token = _tabs.set(functools.partial(tabs, options.get("start", 0.0)))
        try:
            return await plain(**options)
        finally:
            _tabs.reset(token)

    add_operations(scheduler, {"performance_report": performance_report})


def _hook_saving() -> None:
    """Have whatever is saved within a report get the tabs."""
    try:
        import bokeh.plotting
    except ImportError:
        return  # Dask says so
    original = bokeh.plotting.save
    if hasattr(original, "daskps"):
        return

    @functools.wraps(original)
    def save(obj: Any, *args: Any, **kwargs: Any) -> Any:
        more = _tabs.get()
        if more is not None and hasattr(obj, "tabs"):
            plain = obj.tabs
            try:
                obj.tabs = [*plain, *more()]
                return original(obj, *args, **kwargs)
            except Exception as e:
                fell_back(e, "add a page to a performance report")
                obj.tabs = plain
        return original(obj, *args, **kwargs)

    # A mark, for the next time: mypy knows no attributes of functions.
    save.daskps = True  # type: ignore[attr-defined]
    bokeh.plotting.save = save
