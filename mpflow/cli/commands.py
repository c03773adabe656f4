"""The commands, each an adapter between arguments and the library."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from mpflow import __version__
from mpflow.cli.documents import check_output, open_output, parse_json, print_json, read_json, to_json, write
from mpflow.cli.lines import Lines
from mpflow.cli.loading import load_graph
from mpflow.cli.refusal import Refused, one_line
from mpflow.cli.sink import Unwritten, stdout_that_tells

if TYPE_CHECKING:
    from mpflow.observe.progress import Progress

INTERRUPTED = 130
_PLACES = click.Choice(["auto", "process", "thread", "inline"])
_WAYS = click.Choice(["auto", "items", "nodes"])


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit as the package's docstring says. `args` defaults to the process's own."""
    try:
        with stdout_that_tells():
            code = commands.main(args=args, prog_name="mpflow", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("mpflow: interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output left
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mpflow", message="%(prog)s %(version)s")
def commands() -> None:
    """Run graphs on every core of the machine.

    A TARGET is MODULE:GRAPH or FILE.py:GRAPH, where GRAPH names a compiled graph or its builder.
    """


@commands.command()
@click.argument("target")
@click.option("-i", "--input", "given", required=True, help="JSON, a file of JSON, or - for stdin.")
@click.option("-c", "--config", "config", default="{}", help='JSON, such as {"configurable": {"thread_id": "1"}}.')
@click.option("-e", "--executor", type=_PLACES, help="Where nodes run that do not say so themselves.")
@click.option("-w", "--workers", type=click.IntRange(min=1), help="Most tasks at a time.")
@click.option("-s", "--stream", "mode", is_flag=False, flag_value="updates", help="Print chunks of this stream mode.")
@click.option("-t", "--trace", "trace_file", help="Write a timeline of all tasks here, for ui.perfetto.dev.")
@click.option("--explain", "explains", is_flag=True, help="Say on stderr where each node ran, and why.")
def run(
    target: str,
    given: str,
    config: str,
    executor: str | None,
    workers: int | None,
    mode: str | None,
    trace_file: str | None,
    explains: bool,
) -> None:
    """Run a graph once and print its result as JSON.

    With --stream every chunk is printed as one line, as it comes; the mode defaults to "updates".
    """
    input = read_json("--input", given)
    settings = _config(config, workers)
    graph = load_graph(target, executor)
    with _traced(trace_file):
        if mode is None:
            print_json(graph.invoke(input, settings))
        else:
            with contextlib.closing(graph.stream(input, settings, stream_mode=mode)) as chunks:
                for chunk in chunks:
                    print_json(chunk, indent=None)
    if explains and hasattr(graph, "explain"):
        click.echo(str(graph.explain()), err=True)


@commands.command()
@click.argument("target")
@click.option("-i", "--input", "given", required=True, help="A file of one JSON input a line, or -.")
@click.option("-o", "--output", default="-", show_default=True, help="Where to write one JSON result a line, or -.")
@click.option("-c", "--config", "config", default="{}", help="JSON, for every run.")
@click.option("-e", "--executor", type=_PLACES, help="Where nodes run that do not say so themselves.")
@click.option("-w", "--workers", type=click.IntRange(min=1), help="Most runs at a time, and most tasks in each.")
@click.option(
    "-p", "--parallel", type=_WAYS, default="auto", show_default=True, help="What goes to a worker: runs or nodes."
)
@click.option("-s", "--save", "database", help="Keep runs in this SQLite file, and take from it what it has of them.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
def batch(
    target: str,
    given: str,
    output: str,
    config: str,
    executor: str | None,
    workers: int | None,
    parallel: Any,
    database: str | None,
    quiet: bool,
) -> int:
    """Run a graph over many inputs and write the results, in the inputs' order.

    An input that fails leaves {"__error__": {"type": ..., "message": ...}} in its line; the exit code is then 1.

    With --save a batch that was killed goes on when the same command is given again: inputs that had finished are not
    run again, those that had begun go on from their last step, those that failed are tried anew.
    """
    from mpflow.observe.progress import Progress

    inputs = Lines(given)
    settings = _config(config, workers)
    graph = load_graph(target, executor)
    failed = []
    with contextlib.ExitStack() as stack:
        how: dict[str, Any] = {"parallel": parallel}
        if database is not None:
            graph, how["thread_id_prefix"] = stack.enter_context(_saved(graph, inputs, database))
        file = stack.enter_context(open_output(output))
        bar = stack.enter_context(Progress(target, False if quiet else None))
        bar.expect(inputs.count)
        done = -1
        for done, result in _in_order(graph.batch_as_completed(inputs, settings, return_exceptions=True, **how), bar):
            if isinstance(result, BaseException):
                failed.append(done + 1)
                result = {"__error__": {"type": type(result).__name__, "message": str(result)}}
            print(json.dumps(to_json(result)), file=file, flush=True)
    if failed:
        shown = ", ".join(map(str, failed[:10])) + (", ..." if len(failed) > 10 else "")
        click.echo(f"mpflow: {len(failed)} of {done + 1} inputs failed: {shown}", err=True)
    return 1 if failed else 0


@commands.command()
@click.argument("target")
@click.option("-i", "--input", "given", required=True, help="JSON, a file of JSON, or - for stdin.")
@click.option("-c", "--config", "config", default="{}", help="JSON, for every run.")
@click.option(
    "-w", "--workers", "counts", help="Numbers of workers to try, such as 1,2,8. [default: doubling to the cores]"
)
@click.option("-r", "--repeat", default=3, show_default=True, type=click.IntRange(min=1), help="Measured runs of each.")
@click.option("--html", "page_file", type=click.Path(dir_okay=False), help="Write tables and plot as one page.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False), help="Write the plot: .svg, .png or .pdf.")
@click.option("--json", "json_file", help="Write all figures to this file; - for stdout, without the tables.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, and one line instead of the tables.")
def bench(
    target: str,
    given: str,
    config: str,
    counts: str | None,
    repeat: int,
    page_file: str | None,
    plot_file: str | None,
    json_file: str | None,
    quiet: bool,
) -> int:
    """Compare threads with worker processes on your own graph and input.

    Prints the time, speed-up and load of each setting, and for each node whether processes are the better place for it
    and why. Every run of the graph really happens: nodes with side effects have them each time. The exit code is 1 if
    the settings did not all give the same result.
    """
    from mpflow.comparison.measure import compare, runs_of
    from mpflow.comparison.tables import print_comparison
    from mpflow.observe.progress import Progress

    input = read_json("--input", given)
    settings = _config(config, None)
    workers = None if counts is None else _counts(counts)
    graph = load_graph(target)
    plot_format = _check_outputs(page_file, plot_file, json_file)
    try:
        with Progress(f"comparing {target}", False if quiet else None) as progress:
            progress.expect(runs_of(workers, repeat))
            done = compare(graph, input, settings, workers=workers, repeat=repeat, tell=lambda _: progress.advance())
    except TypeError as error:
        if hasattr(graph, "with_executor"):
            raise
        raise Refused(one_line(error)) from error
    if json_file is not None:
        with open_output(json_file) as file:
            print(json.dumps(to_json(done.to_json()), indent=2), file=file)
    if page_file is not None:
        from mpflow.comparison.page import page

        write(page_file, page(done).encode())
    if plot_file is not None:
        from mpflow.comparison.plot import draw

        write(plot_file, draw(done, plot_format))
    if quiet and json_file != "-":
        click.echo(done.summary)
    elif json_file != "-":
        print_comparison(done)
    return 0 if done.same_result else 1


def _check_outputs(page_file: str | None, plot_file: str | None, json_file: str | None) -> str:
    """Refuse what could not be written at the end of a long comparison; the format of the plot."""
    for path in filter(None, (page_file, plot_file, json_file)):
        check_output(path)
    plot_format = "svg" if plot_file is None else Path(plot_file).suffix.lstrip(".").lower() or "svg"
    if page_file is not None or plot_file is not None:
        from mpflow.comparison.plot import check_format

        try:
            check_format(plot_format)
        except (ImportError, ValueError) as error:
            raise Refused(one_line(error)) from error
    return plot_format


@commands.command()
@click.argument("target")
@click.option("--ascii", "as_text", is_flag=True, help="As text instead of Mermaid; needs grandalf.")
@click.option("--xray", is_flag=True, help="Show the inside of subgraphs.")
def draw(target: str, as_text: bool, xray: bool) -> None:
    """Print a graph as a Mermaid diagram."""
    drawing = load_graph(target).get_graph(xray=xray)
    click.echo(drawing.draw_ascii() if as_text else drawing.draw_mermaid())


@commands.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("-n", "--limit", default=600, show_default=True, help="Files, spread evenly over the tree; 0 for all.")
@click.option("-w", "--workers", type=click.IntRange(min=1), help="Threads, then processes. [default: the cores]")
@click.option("--json", "json_file", help="Write times and report to this file; - for stdout, without the tables.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars, and one line instead of the tables.")
def demo(path: str | None, limit: int, workers: int | None, json_file: str | None, quiet: bool) -> int:
    """Analyse a tree of Python files on threads, then on processes.

    PATH defaults to the source of the standard library. Each file is tokenised, parsed, measured and compared with all
    others. Prints both times and the report; both places must give the same one, else the exit code is 1.
    """
    from mpflow._exec.cpu import cpu_count
    from mpflow.demo.files import standard_library
    from mpflow.demo.race import race
    from mpflow.demo.tables import print_race, verdict

    if json_file is not None:
        check_output(json_file)
    done = race(path or standard_library(), limit, workers or cpu_count(), show=False if quiet else None)
    if json_file is not None:
        with open_output(json_file) as file:
            print(json.dumps(done, indent=2), file=file)
    if done["differences"]:
        click.echo("mpflow: threads and processes do not report the same:", err=True)
        for difference in done["differences"]:
            click.echo(f"  {difference}", err=True)
        return 1
    if quiet and json_file != "-":
        click.echo(verdict(done))
    elif json_file != "-":
        print_race(done)
    return 0


def _config(text: str, workers: int | None) -> dict[str, Any]:
    config = parse_json("--config", text)
    if not isinstance(config, dict):
        raise Refused("--config must be a JSON object")
    return config if workers is None else {**config, "max_concurrency": workers}


@contextlib.contextmanager
def _traced(path: str | None) -> Iterator[None]:
    """Record what runs and write it to `path`, also when it fails."""
    if path is None:
        yield
        return
    from mpflow.observe.trace import Trace

    with Trace() as trace:
        try:
            yield
        finally:
            try:
                trace.save(path)
            except OSError as error:
                raise Refused(f"cannot write {path}: {error.strerror}") from error


def _counts(text: str) -> list[int]:
    try:
        counts = [int(count) for count in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise Refused(f"--workers takes counts of at least 1, such as 1,2,8; got {text!r}")
    return counts


@contextlib.contextmanager
def _saved(graph: Any, inputs: Lines, database: str) -> Iterator[tuple[Any, str]]:
    """The graph with a saver for this file, and the prefix of the threads that these very inputs have in it."""
    if inputs.digest is None:
        raise Refused("--save takes inputs from a file, which the next start can read again; --input is none")
    if getattr(graph, "checkpointer", None):
        raise Refused("--save keeps runs in a file, but this graph has a checkpointer of its own")
    if not hasattr(graph, "with_executor"):
        raise Refused("--save keeps runs of mpflow's own graphs, and this is none")
    from mpflow.checkpoint.sqlite import SqliteSaver
    from mpflow.errors import StorageError

    try:
        with SqliteSaver.from_conn_string(database) as saver:
            yield graph.copy({"checkpointer": saver}), f"{inputs.digest}/"
    except StorageError as error:
        raise Unwritten(one_line(error)) from error
    except KeyboardInterrupt:
        click.echo(f"mpflow: what was done is kept in {database}; the same command goes on from there", err=True)
        raise


def _in_order(results: Iterable[tuple[int, Any]], bar: Progress) -> Iterator[tuple[int, Any]]:
    """Results by index, each as soon as all before it have come; the bar is told of each as it comes."""
    waiting: dict[int, Any] = {}
    due = 0
    for index, result in results:
        bar.advance()
        waiting[index] = result
        while due in waiting:
            yield due, waiting.pop(due)
            due += 1
