"""The ``ddbench`` command. Sub-commands are imported when they are used, so ``--help`` and lists stay fast."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from benchmark import __version__
from benchmark.cli import console
from benchmark.cli.completion import with_names
from benchmark.core import distributed, supervise
from benchmark.core.errors import DDBenchError

# name: (module:attribute, one line)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("benchmark.cli.run:run", "Distil, train students, add rows to the leaderboard."),
    "plan": ("benchmark.cli.run:plan", "What `run` would do: what is cached, what is skipped and why."),
    "distill": ("benchmark.cli.run:distill", "Make only the distilled set."),
    "evaluate": ("benchmark.cli.run:evaluate", "Train students on a given distilled set."),
    "check": ("benchmark.cli.check:check", "Check a method against the contract, on tiny data."),
    "grid": ("benchmark.cli.grid:grid", "Run an ablation grid."),
    "tune": ("benchmark.cli.tune:tune", "Tune methods, each with the same number of trials."),
    "leaderboard": ("benchmark.cli.leaderboard:leaderboard", "Rebuild and print the leaderboard from records."),
    "compare": ("benchmark.cli.compare:compare", "Compare two methods, paired by seed."),
    "scores": ("benchmark.cli.scores:scores", "Label-robust and augmentation-robust scores from records."),
    "report": ("benchmark.cli.report:report", "One self-contained HTML page of everything."),
    "results": ("benchmark.cli.results:results", "Add or verify somebody's records."),
    "export": ("benchmark.cli.export:export", "Export a distilled set with a dataset card."),
    "list": ("benchmark.cli.lists:list_", "List methods, datasets, students, protocols, …"),
    "show": ("benchmark.cli.lists:show", "Explain one of them; `show protocol A B` shows the differences."),
    "plugins": ("benchmark.cli.lists:plugins", "Plug-ins: what each registers, and what is broken."),
    "backbone": ("benchmark.cli.backbone:backbone", "Train, fine-tune and show diffusion backbones."),
    "speed": ("benchmark.cli.speed:speed", "Measure images a second: what `plan` predicts from."),
    "selftest": ("benchmark.cli.selftest:selftest", "Check a new machine: right, repeatable, how fast."),
    "doctor": ("benchmark.cli.doctor:doctor", "Check data, disk, backbone and teacher; say what to do."),
    "env": ("benchmark.cli.lists:env", "Versions and hardware, as they go into records."),
    "status": ("benchmark.cli.status:status", "Progress of runs in the store."),
    "worker": ("benchmark.cli.run:worker", "Work on a run's jobs (started by `run`; for clusters)."),
}
HIDDEN = {"worker"}


class _Commands(click.Group):
    """Looks sub-commands up in `COMMANDS`, then among plug-ins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *self._plugged()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        target = COMMANDS.get(name, ("",))[0]
        if not target:
            info = self._plugged().get(name)
            return with_names(info.load(), name) if info else None
        module, _, attribute = target.partition(":")
        return with_names(getattr(importlib.import_module(module), attribute), name)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        name = args[0]
        if name not in COMMANDS and name not in self._plugged() and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in COMMANDS.items() if name not in HIDDEN]
        rows += [(name, info.summary) for name, info in self._plugged().items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @staticmethod
    def _plugged() -> dict:
        from benchmark.plugins import registry

        return registry().items["command"]


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  ddbench run --method d3hr --dataset digits --ipc 1
  ddbench run --method d3hr,d4m --dataset imagenet1k --ipc 50 --student resnet18
  ddbench plan --method d3hr --dataset cifar10 --ipc 10 --data-root ~/data
  ddbench evaluate path/to/set --dataset cifar10 --protocol rded-paper
  ddbench list methods
""",
)
@click.version_option(__version__, prog_name="ddbench")
@click.option("--debug", is_flag=True, help="Print the traceback of an error; may stand after any command.")
@click.option("-v", "--verbose", is_flag=True, help="Also print what each job logs; may stand after any command.")
@click.option("-q", "--quiet", is_flag=True, help="Print results and errors alone; may stand after any command.")
def cli(debug: bool, verbose: bool, quiet: bool) -> None:  # `main` has taken the options out
    """Dataset distillation, measured: every method, the same students, one protocol, one leaderboard.

    Data is looked for under --data-root or $DDBENCH_DATA; work is kept in $DDBENCH_CACHE (default
    ~/.cache/ddbench), so an interrupted command resumes when it is repeated. The shell completes names too:
    eval "$(_DDBENCH_COMPLETE=bash_source ddbench)" (or zsh_source, fish_source).
    """


def _of_file(error: OSError) -> DDBenchError:
    return DDBenchError(
        f"cannot read or write a file: {error.strerror or type(error).__name__}",
        where=str(error.filename),
        hint="check that it is there and that this user may use it, then repeat the command",
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console command; turns errors into messages and exit codes."""
    # Waiting threads sleep instead of spinning: on a shared or oversubscribed machine spinning costs a factor of ten.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # must precede torch
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS; must precede CUDA
    if arguments is None:
        _supervised(sys.argv[1:])
    console.open_streams()
    arguments, debug = console.wants_debug(sys.argv[1:] if arguments is None else list(arguments))
    if debug:
        os.environ[console.DEBUG] = "1"
    arguments = console.verbosity(arguments)
    console.catch_threads(debug)
    console.leave(_run(arguments, debug))


def _supervised(arguments: list[str]) -> None:
    """Where foreign code takes part, go on in a process that another one waits for: see `benchmark.core.supervise`."""
    from benchmark.plugins import others

    whose = ", ".join(sorted(set(others().values())))
    if not whose and arguments[:1] == ["check"]:
        whose = "the method that is checked"  # module:Class, of no distribution
    if whose and supervise.possible():
        supervise.fork(f"a plug-in ({whose})" if others() else whose)


def _run(arguments: list[str], debug: bool) -> int:
    """Run the command; the exit code, with whatever went wrong said."""
    try:
        code = cli.main(arguments, prog_name="ddbench", standalone_mode=False)
        distributed.leave()
        return code if isinstance(code, int) else 0
    except DDBenchError as error:
        if debug:
            traceback.print_exc()
        print(f"ddbench: error: {error}", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        print("ddbench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None:
            console.unexpected(error, debug)
        else:
            print(f"ddbench: error: {_of_file(error)}", file=sys.stderr)
        return 1
    except SystemExit as error:
        whose = console.plugin_at_fault(error) or "a plug-in ended the program: "
        print(f"ddbench: error: {whose}sys.exit({error.code!r})", file=sys.stderr)
        return error.code if isinstance(error.code, int) and 0 < error.code < 256 else 1
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for a user
        console.unexpected(error, debug)
        return 1
