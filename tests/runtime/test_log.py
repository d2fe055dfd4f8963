"""What the library logs, in a program that imports it and in the command."""

import io
import logging
import pickle
import subprocess
import sys

import pytest

from nestnet.cli.log import show_notices
from nestnet.runtime.log import get_logging_setup, log_notice, logger


def test_a_program_gets_a_record(caplog):
    log_notice("a\x1bb")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("nestnet", logging.WARNING, "a\x1bb")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_the_first_process_logs_what_all_know(rank, monkeypatch, caplog):
    monkeypatch.setenv("RANK", rank)
    log_notice("all know")
    log_notice("one knows", from_any_process=True)
    assert caplog.messages == ["all know", "one knows"][int(rank) :]


def test_the_command_writes_a_record_once_and_leaves_the_logger_as_it_was(capsys):
    handlers = list(logger.handlers)
    set_up = get_logging_setup()
    with show_notices(), show_notices():
        log_notice("a\x1bb 100 %s")
        logger.info("no notice")
        assert get_logging_setup() is not None
    assert capsys.readouterr().err == "nestnet: a\\x1bb 100 %s\n"
    assert logger.handlers == handlers
    assert get_logging_setup() is set_up


def test_processes_that_are_started_anew_log_as_their_parent_does():
    with show_notices():
        set_up = pickle.loads(pickle.dumps(get_logging_setup()))
    handlers = list(logger.handlers)
    logger.handlers = []
    try:
        set_up()
        set_up()
        assert [type(handler).__name__ for handler in logger.handlers] == ["NoticeHandler"]
    finally:
        logger.handlers = handlers


def test_a_program_configures_it_as_usual():
    code = (
        "import logging, nestnet.runtime.log as log\n"
        "logging.basicConfig(format='%(name)s|%(levelname)s|%(message)s')\n"
        "log.log_notice('so')\n"
        "logging.getLogger('nestnet').setLevel(logging.ERROR)\n"
        "log.log_notice('not shown')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "nestnet|WARNING|so\n")


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_standard_error_that_cannot_be_written_ends_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", FullDisk())
    with show_notices():
        log_notice("so")
