"""``python -m agent_worker.offline``, and the models that other commands run: told, kept up, and gone behind them."""

import asyncio
import os
import shlex
import signal
import socket
import sys
from pathlib import Path

import openai
import psutil
import pytest

from agent_worker.offline.__main__ import main
from agent_worker.offline.running import models
from agent_worker.offline.transcript import bundled
from tests.support.fakes import until

LATE = 30.0


async def test_without_arguments_it_tells_what_to_paste() -> None:
    """It serves the bundled call on a free port, and prints the variables of an agent that is to use it."""
    command = [sys.executable, "-m", "agent_worker.offline"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(LATE):
            lines = [(await process.stdout.readline()).decode() for _ in range(3)]
        assert "no account" in lines[0]
        words = shlex.split(lines[1])
        assert words[0] == "export"
        variables = dict(word.split("=", 1) for word in words[1:])
        answer = await _asked(variables, "What can you do?")
        assert "order" in answer
        assert "DEEPGRAM_BASE_URL" in variables
        assert "Ctrl-C" in lines[2]
    finally:
        process.terminate()
    assert await process.wait() == 0


async def _asked(variables: dict[str, str], said: str) -> str:
    async with openai.AsyncOpenAI(
        base_url=variables["OPENAI_BASE_URL"], api_key=variables["OPENAI_API_KEY"], max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": said}])
    return answer.choices[0].message.content or ""


@pytest.mark.parametrize("arguments", [["--port", "port"], ["--chunk-pause", "-1"], ["--port", "70000"], ["--prot"]])
def test_a_mistake_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2."""
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.strip()


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    assert str(port) in capsys.readouterr().err


async def test_models_that_die_are_started_again_where_they_were() -> None:
    """A worker goes on with the address that it was given."""
    others = _servers()
    async with models(bundled()) as variables, asyncio.timeout(LATE):
        assert await _asked(variables, "hello") == "Hello. How can I help? Ask me what I can do."
        (process,) = (one for one in _servers() if one not in others)
        process.kill()
        await until(lambda: any(one not in [*others, process] for one in _servers()))
        while True:
            try:
                assert await _asked(variables, "hello") == "Hello. How can I help? Ask me what I can do."
                break
            except openai.APIConnectionError:
                await asyncio.sleep(0.05)
    assert _servers() == others


def _servers() -> list[psutil.Process]:
    """The offline servers that this process has started."""
    children = psutil.Process().children()
    return [one for one in children if one.is_running() and _is_server(one)]


def _is_server(process: psutil.Process) -> bool:
    try:
        return "agent_worker.offline" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_models_end_with_whoever_started_them(tmp_path: Path) -> None:
    """Also where that one was killed: nothing is left behind to listen for ever."""
    program = (
        "import asyncio\n"
        "from agent_worker.offline.running import models\n"
        "from agent_worker.offline.transcript import bundled\n"
        "async def main():\n"
        "    async with models(bundled()):\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    owner = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", program], stdout=asyncio.subprocess.PIPE, cwd=tmp_path, env=environment
    )
    assert owner.stdout is not None
    async with asyncio.timeout(LATE):
        assert await owner.stdout.readline() == b"ready\n"
    (server,) = psutil.Process(owner.pid).children()
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
    await until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


async def test_without_a_transcript_there_are_no_models() -> None:
    """Nothing is started, and no variable is changed."""
    async with models(None) as variables:
        assert variables == {}
