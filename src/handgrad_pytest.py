"""The pytest plugin: the fixture `gradcheck`, and the collection of `handgrad.conformance`.

    def test_softmax(gradcheck):
        gradcheck(softmax, X, reference=jax.nn.softmax)

It stands beside the package, not in it: pytest imports its plugins at every start, and importing a module of handgrad
imports JAX. This one imports handgrad at the first check.
"""

import importlib.util
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from handgrad.conformance import Row
    from handgrad.crosscheck import Report

Form = Literal["check_rule", "check_custom_vjp", "check_function", "check_layer"]
SUITE = "handgrad.conformance"
MARKER = "gradcheck(**settings): defaults of the checks in a test: any field of handgrad.crosscheck.Settings"
ROWS = pytest.StashKey[list["Row"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What holds for every check of a run."""
    group = parser.getgroup("handgrad", "gradient checks (handgrad)")
    group.addoption("--gradcheck-html", metavar="DIR", help="write each check's report as a page into this folder")
    group.addoption("--gradcheck-dtype", metavar="DTYPE", help="cast the inputs of checks that state no dtype to this")


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """--ops, where the suite is to run: elsewhere, a project may have an option of that name."""
    if any(arg.startswith(SUITE) for arg in args):
        early_config.stash[ROWS] = []
        group = parser.getgroup("handgrad")
        group.addoption("--ops", metavar="MODULE:TABLE", default="", help=f"the operations that {SUITE} checks")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse pages without what renders them."""
    config.addinivalue_line("markers", MARKER)
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if config.option.gradcheck_html and missing:
        from handgrad.extras import install

        raise pytest.UsageError(f"--gradcheck-html needs {missing[0]}: {install('report')}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Read the table of operations, before anything is collected."""
    if ROWS in session.config.stash:
        from handgrad.checks import InputError
        from handgrad.conformance import load, rows

        try:
            session.config.stash[ROWS] = rows(load(session.config.option.ops))
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> "Suite | None":
    """handgrad/conformance.py is collected as the rows that it makes of the table."""
    asked = ROWS in parent.config.stash and module_path.parts[-2:] == ("handgrad", "conformance.py")
    return Suite.from_parent(parent, path=module_path, nodeid=SUITE) if asked else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """With -v, one line for each passing check; xdist's workers send them with their tests' reports."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    lines = [
        f"{report.nodeid}  {line}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, line in report.user_properties
        if name == "gradcheck"
    ]
    if lines and terminalreporter.config.get_verbosity() > 0:
        terminalreporter.section("gradient checks")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> "Gradcheck":
    """Check a hand-written gradient: the test fails, with the whole report, unless the verdict is PASS."""
    return Gradcheck(request.node)


class Gradcheck:
    """Checks of one test. Each method takes what `handgrad.check_<method>` takes, and returns the report of a PASS.

    Settings are those of the call; where it has none, of the markers `gradcheck`, the closest first; then
    --gradcheck-dtype.

    Raises:
      handgrad.CheckFailed: any other verdict; the message is the whole report.
    """

    def __init__(self, node: pytest.Item) -> None:
        self._node = node
        self._pages = 0

    def __call__(self, subject: Any, *args: Any, **settings: Any) -> "Report":
        """Check what `subject` is: a jax.custom_vjp function, a Rule, a layer, or a pair: (forward, backward) or
        (f, grad_f)."""
        __tracebackhide__ = True
        form = recognize(subject, args)
        if form == "check_custom_vjp":
            return self.custom_vjp(subject, *args, **settings)
        if form == "check_function":
            return self.function(*subject, *args, **settings)
        return self._run(form, (tuple(subject) if isinstance(subject, list) else subject, *args), settings)

    def rule(self, rule: Any, *args: Any, **settings: Any) -> "Report":
        """A Rule, or a (forward, backward) pair."""
        __tracebackhide__ = True
        return self._run("check_rule", (rule, *args), settings)

    def custom_vjp(
        self, f: Callable[..., Any], *args: Any, reference: Callable[..., Any] | None = None, **settings: Any
    ) -> "Report":
        """A function that carries its own gradient, or any function beside a reference."""
        __tracebackhide__ = True
        return self._run("check_custom_vjp", (f, reference, *args), settings)

    def function(self, f: Callable[..., Any], grad_f: Callable[..., Any], *args: Any, **settings: Any) -> "Report":
        """The gradient of a scalar function."""
        __tracebackhide__ = True
        return self._run("check_function", (f, grad_f, *args), settings)

    def layer(self, layer: Any, x: Any, **settings: Any) -> "Report":
        """A layer with init, forward and backward."""
        __tracebackhide__ = True
        return self._run("check_layer", (layer, x), settings)

    def model(self, model: Any, loss: Any, params: Any, x: Any, target: Any, **settings: Any) -> "Report":
        """A network and its loss."""
        __tracebackhide__ = True
        return self._run("check_model", (model, loss, params, x, target), settings)

    def _run(self, check: str, args: tuple[Any, ...], given: dict[str, Any]) -> "Report":
        __tracebackhide__ = True
        report = self.report(check, args, given)
        if report.verdict == "INCONCLUSIVE":
            from handgrad import CheckFailed

            why = "An inconclusive check fails the test: it has not shown that the gradient is right."
            raise CheckFailed(f"{report}\n\n{why}")
        report.raise_if_failed()
        return report

    def report(self, check: str, args: tuple[Any, ...], given: dict[str, Any]) -> "Report":
        """Whatever the verdict, written as a page where pages are wanted."""
        import handgrad

        report = getattr(handgrad, check)(*args, **{**self.defaults(), **given})
        if self._node.config.option.gradcheck_html:
            report.to_html(self._page())
        if report.ok:
            self._node.user_properties.append(("gradcheck", one_line(report)))
        return report

    def defaults(self) -> dict[str, Any]:
        """The settings of the command line and the markers."""
        __tracebackhide__ = True
        dtype = self._node.config.option.gradcheck_dtype
        settings: dict[str, Any] = {"dtype": dtype} if dtype else {}
        for marker in reversed(list(self._node.iter_markers("gradcheck"))):
            if marker.args:
                pytest.fail(f"the marker gradcheck takes settings by name, got {marker.args}", pytrace=False)
            settings |= marker.kwargs
        return settings

    def _page(self) -> Path:
        """A file named after the test, a number added for its second check and on."""
        self._pages += 1
        config, name = self._node.config, self._node.nodeid
        stem = re.sub(r"[^\w.=\[\]]+", "-", name)
        if re.search(r"\[.*[^\w.=\[\]-]", name) or len(stem) > 150:  # another test's may read the same
            stem = f"{stem[:150]}-{zlib.crc32(name.encode()):08x}"
        folder = config.invocation_params.dir / config.option.gradcheck_html
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{stem}{'' if self._pages == 1 else f'-{self._pages}'}.html"


def recognize(subject: Any, args: Sequence[Any]) -> Form:
    """The check for what this is.

    A pair of functions is (forward, backward) where the first returns a tuple, (output, residuals); (f, grad_f) else.
    """
    init, forward, backward = (callable(getattr(subject, name, None)) for name in ("init", "forward", "backward"))
    if forward and backward:
        return "check_layer" if init else "check_rule"
    if isinstance(subject, tuple | list) and len(subject) == 2 and all(map(callable, subject)):
        return "check_rule" if returns_a_tuple(subject[0], args) else "check_function"
    if callable(subject):
        return "check_custom_vjp"
    forms = "a jax.custom_vjp function, a Rule, a layer, (forward, backward) or (f, grad_f)"
    raise TypeError(f"gradcheck: the first argument must be {forms}, got {type(subject).__name__}")


def returns_a_tuple(f: Callable[..., Any], args: Sequence[Any]) -> bool:
    """Whether f(*args) is a tuple, without computing it; True where that can't be seen, and the check says why."""
    import jax

    seen: list[bool] = []
    with suppress(Exception), jax.enable_x64(True):
        jax.eval_shape(lambda: seen.append(isinstance(f(*args), tuple)))
    return seen != [False]


def one_line(report: "Report") -> str:
    """A passing check: its worst leaf, and the smallest error that it would have detected."""
    if not report.rows:
        return f"{report.verdict}  {report.name}"
    row, power = report.rows[0], max(row.power for row in report.rows)
    return (
        f"{report.verdict}  {report.name}: error {row.error:.1e}, tolerance {row.tolerance:.1e} ({row.leaf}); "
        f"power {power:.1e}; {report.settings.get('seconds', 0)} s"
    )


class Suite(pytest.Module):
    """The rows of a table of operations as tests: "softmax[rows]"."""

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each row."""
        for row in self.config.stash[ROWS]:
            yield pytest.Function.from_parent(self, name=str(row), callobj=self._test(row))

    @staticmethod
    def _test(row: "Row") -> Callable[[Gradcheck], None]:
        def test(gradcheck: Gradcheck) -> None:
            if reason := row.unsupported(gradcheck.defaults().get("dtype")):
                pytest.skip(reason)
            args = (row.function, row.case.reference, *row.case.arguments())
            report, edge = gradcheck.report("check_custom_vjp", args, row.settings), row.case.tests_only
            if edge and report.verdict == "FAIL":  # on a kink other slopes are right too: differences show which
                again = gradcheck.report("check_custom_vjp", args, {**row.settings, "differences": True})
                report = again if again.ok else report
            if edge and report.verdict == "INCONCLUSIVE":  # it shows nothing, as an empty batch
                pytest.skip(f"inconclusive: {report.reason}")
            if not report.ok:
                pytest.fail(str(report), pytrace=False)

        return test
