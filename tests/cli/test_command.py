"""Command-line programs: exit statuses, signals, and output that nobody reads."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerkit.cli import command
from layerkit.errors import DataError

PROGRAM = """
import os, sys, time
from layerkit.cli.command import run, OUTPUT_LOST, INTERRUPTED
from layerkit.system.interrupt import Interrupt
from pathlib import Path

def main():
    saved = Path(sys.argv[1])
    try:
        print("ready", flush=True)
        print("watched", file=sys.stderr)
        with Interrupt() as interrupt:
            end = time.monotonic() + 60
            while not interrupt.requested and time.monotonic() < end:
                print("." * 80)
                print("." * 80, file=sys.stderr)
                time.sleep(0.01)
            saved.write_text("in here" if interrupt.requested else "nothing came")
        print("good bye")
        return OUTPUT_LOST if interrupt.output_lost else INTERRUPTED
    finally:
        saved.with_suffix(".cleaned").touch()

run(main)
"""


def start(text, *arguments, **settings):
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], **settings)


def exit_of(main):
    with pytest.raises(SystemExit) as ended:
        command.run(main)
    return ended.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("a\nb"), "error: a b\n"),
        (OSError(28, "No space left"), "No space left"),
        (MemoryError(), "not enough memory"),
        (BrokenPipeError(32, "Broken pipe"), "Broken pipe"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(error, told, capsys):
    assert exit_of(raising(error)) == command.BAD_INPUT
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_long_messages_are_cut(capsys):
    assert exit_of(raising(DataError("start " + "x" * 10**6 + " end"))) == 2
    err = capsys.readouterr().err
    assert len(err) < 900
    assert err.startswith("error: start ")
    assert err.endswith(" end\n")
    parser = command.Parser()
    parser.add_argument("number", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["9" * 9000])
    assert len(capsys.readouterr().err) < 1000


def test_other_ends(capsys):
    assert exit_of(lambda: None) == 0
    assert exit_of(lambda: 7) == 7
    assert exit_of(raising(KeyboardInterrupt())) == command.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    streams = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 / 0)
    assert (sys.stdout, sys.stderr) == streams


def test_any_text_can_be_printed(capsys):
    assert exit_of(lambda: print("caf\u00e9 \udcff \ud800")) == 0
    assert capsys.readouterr().out == "caf\u00e9 \\udcff \\ud800\n"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    text = r"from layerkit.cli.command import run; run(lambda: print('caf\u00e9 \udcff'))"
    with start(text, env=environment) as child:
        out, err = child.communicate(timeout=60)
    assert (out, err, child.returncode) == (b"caf\\xe9 \\udcff\n", b"", 0)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_wait_for_what_is_saved(name, tmp_path):
    with start(PROGRAM, tmp_path / "saved") as child:
        assert child.stdout.readline() == b"ready\n"
        assert child.stdout.readline()
        child.send_signal(getattr(signal, name))
        out, err = child.communicate(timeout=60)
    assert child.returncode == command.INTERRUPTED
    assert out.endswith(b"good bye\n")
    assert b"Traceback" not in err
    assert (tmp_path / "saved").read_text() == "in here"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_clean_up_where_nothing_is_to_be_saved(name, tmp_path):
    text = PROGRAM.replace("with Interrupt() as interrupt:", "if True:").replace(
        "not interrupt.requested and", ""
    )
    text = text.replace(  # the second may come as late as the interpreter's own end
        "run(main)",
        "import atexit, signal\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{name}))\n"
        "run(main)",
    )
    with start(text, tmp_path / "saved") as child:
        child.stdout.readline()
        child.stdout.readline()
        for _ in range(2):
            child.send_signal(getattr(signal, name))
        _, err = child.communicate(timeout=60)
    assert child.returncode == command.INTERRUPTED
    assert b"Traceback" not in err
    assert (tmp_path / "saved.cleaned").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs terminals as POSIX has them")
@pytest.mark.filterwarnings("ignore:os.fork")  # another test's JAX, in this process, warns of it
def test_nohup_is_respected(tmp_path):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with start(PROGRAM, tmp_path / "saved", preexec_fn=ignore) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGHUP)
        for _ in range(20):
            assert child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
    assert child.returncode == command.INTERRUPTED


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_a_reader_that_goes_away(stream, tmp_path):
    """As with `| head -1`: saved all the same, and the status says that output was lost."""
    with start(PROGRAM, tmp_path / "saved") as child:
        assert child.stdout.readline() == b"ready\n"
        assert child.stderr.readline() == b"watched\n"
        if stream != "stderr":
            child.stdout.close()
        if stream != "stdout":
            child.stderr.close()
        assert child.wait(timeout=60) == command.OUTPUT_LOST
        if stream == "stdout":
            assert not child.stderr.read().strip(b".\n"), "no complaint of Python's either"
    assert (tmp_path / "saved").read_text() == "in here"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_stops_nothing(tmp_path):
    with open("/dev/full", "w") as full, start(PROGRAM, tmp_path / "saved", stdout=full) as child:
        assert child.stderr.readline() == b"watched\n"
        for _ in range(20):
            assert child.stderr.readline()
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == command.INTERRUPTED
    text = "from layerkit.cli.command import run; run(lambda: print('x'))"
    with open("/dev/full", "w") as full, start(text, stdout=full) as child:
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (command.OUTPUT_LOST, b"")


@pytest.mark.skipif(os.name != "posix", reason="for shells as POSIX has them")
def test_commands_can_be_pasted():
    words = ["a b", "it's", "$HOME", "caf\u00e9", "x\udcff7\\'", "two\nlines", "*", ""]
    text = f"printf '%s\\0' {command.pasteable(words)}"
    assert "\n" not in text
    shown = subprocess.run(["bash", "-c", text], stdout=subprocess.PIPE, check=True).stdout
    assert shown == b"".join(os.fsencode(word) + b"\0" for word in words)


def test_streams_that_are_not_there():
    text = "import sys; sys.stdout = sys.stderr = None\n"
    text += "from layerkit.cli.command import run; run(lambda: print('x'))"
    with start(text) as child:
        assert child.communicate(timeout=60) == (b"", b"")
    assert child.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="for shells as POSIX has them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_terminals_and_their_numbers_no_files(closed, tmp_path):
    text = (
        "import sys\nfrom tqdm import tqdm\nfrom layerkit.cli.command import run\n"
        "def main():\n"
        "    assert not sys.stderr.isatty() and not sys.stdout.isatty()\n"
        "    for _ in tqdm(range(3)): print('x')\n"
        "    with open(sys.argv[1], 'w') as file: file.write(str(file.fileno()))\n"
        "run(main)"
    )
    saved = tmp_path / "saved"
    with subprocess.Popen(
        ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", text, saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        child.communicate(timeout=60)
    assert child.returncode == 0
    assert int(saved.read_text()) > 2


@pytest.mark.parametrize("ask", [os.getcwd, lambda: os.path.abspath("out"), Path.cwd])
def test_a_current_folder_that_is_gone_is_named(ask, tmp_path, monkeypatch, capsys):
    """The system says "No such file or directory" of no file in particular."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert exit_of(ask) == command.BAD_INPUT
    assert "the current folder is gone" in capsys.readouterr().err
    assert exit_of((tmp_path / "nothing").read_bytes) == command.BAD_INPUT
    assert f"No such file or directory: '{tmp_path / 'nothing'}'" in capsys.readouterr().err
